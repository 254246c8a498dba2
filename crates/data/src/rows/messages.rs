//! The turns of a conversation, as a row has them.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::columns::Columns;
use super::line::{Line, kind};
use super::tools;
use crate::conversation::{Conversation, Message, PROMPT};
use crate::error::Result;

/// Other spellings of a role, in lower case. A role that is not here stays as it is, and the chat template decides.
const ROLES: [(&str, &[&str]); 5] = [
    ("user", &["user", "human", "prompter"]),
    (
        "assistant",
        &[
            "assistant",
            "gpt",
            "bot",
            "model",
            "ai",
            "chatbot",
            "chatgpt",
            "bing",
            "bard",
        ],
    ),
    ("system", &["system"]),
    (
        "tool",
        &[
            "tool",
            "function",
            "observation",
            "function_response",
            "tool_response",
        ],
    ),
    // A turn of the assistant whose text is the calls.
    (TOOL_CALL, &["function_call", "tool_call"]),
];

const TOOL_CALL: &str = "function_call";

/// Keys that say whether a turn is learned: OpenAI's, axolotl's two, and ms-swift's.
const FLAGS: [&str; 4] = ["weight", "train", "training", "loss"];

/// Variables of a chat template that a row cannot set, because each rendering does.
const OWN_VARIABLES: [&str; 2] = ["messages", "add_generation_prompt"];

/// Keys that can stand in place of a turn's text.
const INSTEAD_OF_CONTENT: [&str; 4] = ["tool_calls", "reasoning_content", "reasoning", "thinking"];

/// What a turn of OpenAI's may have and a language model of text cannot learn.
const NOT_TEXT: [&str; 2] = ["refusal", "audio"];

impl Line<'_> {
    /// Reads the turns of a row with what else the row says to the chat template.
    pub(super) fn conversation(
        &self,
        mut object: Map<String, Value>,
        columns: &Columns,
    ) -> Result<Conversation> {
        let key = columns.given[0];
        let mut messages = self.turns(&mut object, key)?;
        if key == "prompt" {
            for message in &mut messages {
                message.masked_by = Some(PROMPT);
            }
            if let Some(key) = columns.answer(&object) {
                messages.extend(self.turns(&mut object, key)?);
            }
        }
        if let Some(system) = self.system(&mut object)? {
            let first = messages.first().filter(|first| first.role() == "system");
            match first.map(|first| first.text() == Some(system.trim())) {
                None => messages.insert(0, Message::new("system", system)),
                Some(true) => {}
                Some(false) => {
                    return Err(self.bad(
                        "a system text and another one in the first turn; keep one of them"
                            .to_owned(),
                    ));
                }
            }
        }
        let mut variables = Map::new();
        for key in ["tools", "functions", "documents"] {
            let list = match object.get_mut(key).map(Value::take) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) if text.trim().is_empty() => continue,
                // A table of columns has no type for them, so they are often stored as text.
                Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
                    self.bad(format!("\"{key}\" is text, and not JSON: {error}"))
                })?,
                Some(list) => list,
            };
            if list.is_null() || self.list(&list, key)?.is_empty() {
                continue;
            }
            // Sharegpt's rows and OpenAI's first format have the functions alone.
            let are_functions = key == "functions" || columns.given[0].starts_with("conversation");
            let (key, list) = match (are_functions, key) {
                (true, "tools" | "functions") => ("tools", tools::of_functions(list)),
                _ => (key, list),
            };
            variables.entry(key).or_insert(list);
        }
        match object.get_mut("chat_template_kwargs").map(Value::take) {
            None | Some(Value::Null) => {}
            Some(Value::Object(given)) => {
                let is_taken = |key: &&String| {
                    OWN_VARIABLES.contains(&key.as_str()) || variables.contains_key(*key)
                };
                if let Some(key) = given.keys().find(is_taken) {
                    return Err(self.bad(format!(
                        "\"chat_template_kwargs\" has \"{key}\", which the chat template is given already"
                    )));
                }
                variables.extend(given);
            }
            Some(other) => {
                return Err(self.bad(format!(
                    "\"chat_template_kwargs\" must be an object, found {}",
                    kind(&other)
                )));
            }
        }
        Ok(Conversation {
            messages,
            variables,
        })
    }

    /// Reads a list of turns.
    fn turns(&self, object: &mut Map<String, Value>, key: &str) -> Result<Vec<Message>> {
        let list = match object.get_mut(key).map(Value::take).unwrap_or_default() {
            Value::String(text) => list_in(text),
            list => list,
        };
        if self.list(&list, key)?.is_empty() {
            return Err(self.bad(format!("\"{key}\" is empty; it needs at least one turn")));
        }
        let Value::Array(list) = list else {
            unreachable!("it was a list above")
        };
        let turn = |(index, value)| {
            let place = format!("{key}[{index}]");
            let value = match value {
                // LIMA's conversations are texts, the user's first.
                Value::String(text) if key.starts_with("conversation") => {
                    let role = ["user", "assistant"][index % 2];
                    return Ok(Message::new(role, text));
                }
                value => value,
            };
            self.turn(&place, value)
        };
        list.into_iter().enumerate().map(turn).collect()
    }

    fn turn(&self, place: &str, value: Value) -> Result<Message> {
        // transformers leaves out what is null, because many templates would write "None".
        let mut fields: Map<String, Value> = match value {
            Value::Object(fields) => fields.into_iter().filter(|(_, v)| !v.is_null()).collect(),
            _ => Map::new(),
        };
        // Sharegpt's names.
        let is_sharegpt = fields.contains_key("from") && !fields.contains_key("role");
        let (role_key, content_key) = match is_sharegpt {
            true => ("from", "value"),
            false => ("role", "content"),
        };
        for key in ["tool_calls", "refusal", "audio"] {
            if fields.get(key).is_some_and(is_nothing) {
                fields.shift_remove(key);
            }
        }
        let must_be_text = |key: &str, found: Option<&Value>| {
            self.bad(format!(
                "{place}.{key} must be a string, found {}",
                found.map_or("nothing", kind)
            ))
        };
        let role = match fields.get(role_key) {
            Some(Value::String(role)) => usual_role(role).unwrap_or(role).to_owned(),
            other => return Err(must_be_text(role_key, other)),
        };
        if let Some(key) = NOT_TEXT.iter().find(|key| fields.contains_key(**key)) {
            return Err(self.bad(format!(
                "{place} has \"{key}\", and only text is learned; write what is to be learned as its \"content\", or \
                 remove the row"
            )));
        }
        if role == TOOL_CALL {
            let Some(Value::String(text)) = fields.get(content_key) else {
                return Err(must_be_text(content_key, fields.get(content_key)));
            };
            let calls = tools::of_text(text);
            let calls =
                calls.map_err(|reason| self.bad(format!("{place}.{content_key} {reason}")))?;
            fields.shift_remove(content_key);
            fields.insert("tool_calls".to_owned(), calls);
        }
        if let Some(call) = fields.shift_remove("function_call") {
            let calls = tools::of_call(call).map(|call| Value::Array(vec![call]));
            let calls =
                calls.map_err(|reason| self.bad(format!("{place}.function_call {reason}")))?;
            fields.entry("tool_calls").or_insert(calls);
        }
        match fields.get(content_key) {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) => {
                self.check_parts(&format!("{place}.{content_key}"), parts)?
            }
            None if INSTEAD_OF_CONTENT
                .iter()
                .any(|key| fields.contains_key(*key)) => {}
            other => return Err(must_be_text(content_key, other)),
        }
        let mut masked_by = None;
        for key in FLAGS {
            if let Some(flag) = fields.shift_remove(key)
                && !self.flag(&format!("{place}.{key}"), &flag)?
            {
                masked_by = Some(key);
            }
        }
        let role = match role.as_str() {
            TOOL_CALL => "assistant".to_owned(),
            _ => role,
        };
        let mut turn = Map::new();
        for (key, value) in fields {
            let (key, value) = match key {
                key if key == role_key => ("role".to_owned(), Value::String(role.clone())),
                key if key == content_key => ("content".to_owned(), value),
                key => (key, value),
            };
            turn.insert(key, value);
        }
        Ok(Message {
            fields: turn,
            masked_by,
        })
    }

    /// Checks the parts of a turn's content: a list of texts.
    fn check_parts(&self, place: &str, parts: &[Value]) -> Result<()> {
        for (at, part) in parts.iter().enumerate() {
            let is_text = part.get("type").is_none_or(|kind| kind == "text")
                && part.get("text").is_some_and(Value::is_string);
            if !is_text {
                let found = match part.get("type") {
                    Some(kind) => format!("of type {kind}"),
                    None => kind(part).to_owned(),
                };
                return Err(self.bad(format!(
                    "{place}[{at}] is {found}; only {{\"type\": \"text\", \"text\"}} is read"
                )));
            }
        }
        Ok(())
    }

    /// Whether a flag says that the turn is learned.
    fn flag(&self, place: &str, value: &Value) -> Result<bool> {
        match (value, value.as_f64()) {
            (Value::Bool(flag), _) => Ok(*flag),
            (_, Some(0.0)) => Ok(false),
            (_, Some(1.0)) => Ok(true),
            _ => Err(self.bad(format!(
                "{place} is {value}; a turn is learned (1, true) or not (0, false)"
            ))),
        }
    }
}

/// The list that a text is in JSON, or else the text. A table of columns may have no type for lists.
fn list_in(text: String) -> Value {
    match serde_json::from_str(&text) {
        Ok(list @ Value::Array(_)) => list,
        _ => Value::String(text),
    }
}

/// Whether a value is what a table of columns has where a row has no list: an empty one, or an empty text.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// The usual spelling of a role, if it has another.
fn usual_role(role: &str) -> Option<&'static str> {
    let spelling = role.trim().to_lowercase();
    let mut roles = ROLES.iter();
    let (usual, _) = roles.find(|(_, spellings)| spellings.contains(&spelling.as_str()))?;
    Some(usual)
}
