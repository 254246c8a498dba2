//! The turns of a conversation, as a row has them.

use serde_json::{Map, Value};

use super::line::{Line, kind};
use crate::conversation::{Conversation, Message};
use crate::error::Result;

/// Other spellings of a role, in lower case. A role that is not here stays as it is, and the chat template decides.
const ROLES: [(&str, &[&str]); 4] = [
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
        ],
    ),
    ("system", &["system"]),
    ("tool", &["tool"]),
];

/// Keys that say whether a turn is learned: OpenAI's, axolotl's two, and ms-swift's.
const FLAGS: [&str; 4] = ["weight", "train", "training", "loss"];

/// Variables of a chat template that a row cannot set, because each rendering does.
const OWN_VARIABLES: [&str; 2] = ["messages", "add_generation_prompt"];

/// Keys that can stand in place of a turn's text.
const INSTEAD_OF_CONTENT: [&str; 5] = [
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "thinking",
];

impl Line<'_> {
    /// Reads a row's `messages` with what else the row says to the chat template.
    pub(super) fn conversation(&self, mut object: Map<String, Value>) -> Result<Conversation> {
        let list = object["messages"].take();
        if self.list(&list, "messages")?.is_empty() {
            return Err(self.bad("\"messages\" is empty; it needs at least one turn".to_owned()));
        }
        let Value::Array(list) = list else {
            unreachable!("it was a list above")
        };
        let turn = |(index, message)| self.turn(index, message);
        let messages: Result<Vec<_>> = list.into_iter().enumerate().map(turn).collect();
        let mut variables = Map::new();
        for key in ["tools", "documents"] {
            let list = match object.get_mut(key).map(Value::take) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) if text.trim().is_empty() => continue,
                // A table of columns has no type for them, so they are often stored as text.
                Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| {
                    self.bad(format!("\"{key}\" is text, and not JSON: {error}"))
                })?,
                Some(list) => list,
            };
            if !list.is_null() && !self.list(&list, key)?.is_empty() {
                variables.insert(key.to_owned(), list);
            }
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
            messages: messages?,
            variables,
        })
    }

    fn turn(&self, index: usize, value: Value) -> Result<Message> {
        // transformers leaves out what is null, because many templates would write "None".
        let mut fields: Map<String, Value> = match value {
            Value::Object(fields) => fields.into_iter().filter(|(_, v)| !v.is_null()).collect(),
            _ => Map::new(),
        };
        if fields.get("tool_calls").is_some_and(is_nothing) {
            fields.shift_remove("tool_calls");
        }
        let must_be_text = |key: &str, found: Option<&Value>| {
            self.bad(format!(
                "messages[{index}].{key} must be a string, found {}",
                found.map_or("nothing", kind)
            ))
        };
        match fields.get_mut("role") {
            Some(Value::String(role)) => {
                if let Some(usual) = usual_role(role) {
                    *role = usual.to_owned();
                }
            }
            other => return Err(must_be_text("role", other.as_deref())),
        }
        match fields.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(parts)) => self.check_parts(index, parts)?,
            None if INSTEAD_OF_CONTENT
                .iter()
                .any(|key| fields.contains_key(*key)) => {}
            other => return Err(must_be_text("content", other)),
        }
        let mut masked_by = None;
        for key in FLAGS {
            if let Some(flag) = fields.shift_remove(key)
                && !self.flag(index, key, &flag)?
            {
                masked_by = Some(key);
            }
        }
        Ok(Message { fields, masked_by })
    }

    /// Checks the parts of a turn's content: a list of texts.
    fn check_parts(&self, index: usize, parts: &[Value]) -> Result<()> {
        for (at, part) in parts.iter().enumerate() {
            let is_text = part.get("type").is_none_or(|kind| kind == "text")
                && part.get("text").is_some_and(Value::is_string);
            if !is_text {
                let found = match part.get("type") {
                    Some(kind) => format!("of type {kind}"),
                    None => kind(part).to_owned(),
                };
                return Err(self.bad(format!(
                    "messages[{index}].content[{at}] is {found}; only {{\"type\": \"text\", \"text\"}} is read"
                )));
            }
        }
        Ok(())
    }

    /// Whether a flag says that the turn is learned.
    fn flag(&self, index: usize, key: &str, value: &Value) -> Result<bool> {
        match (value, value.as_f64()) {
            (Value::Bool(flag), _) => Ok(*flag),
            (_, Some(0.0)) => Ok(false),
            (_, Some(1.0)) => Ok(true),
            _ => Err(self.bad(format!(
                "messages[{index}].{key} is {value}; a turn is learned (1, true) or not (0, false)"
            ))),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::conversation::Conversation;
    use crate::row::Row;
    use crate::rows::parse_rows;

    fn conversation(row: &str) -> Conversation {
        let rows = parse_rows("chat.jsonl", row).expect("a good row");
        match &rows.rows()[0].1 {
            Row::Messages(conversation) => conversation.clone(),
            other => panic!("{other:?} is no conversation"),
        }
    }

    fn message_of(row: &str) -> String {
        let error = parse_rows("chat.jsonl", row).expect_err("a bad row");
        error.to_string()
    }

    #[test]
    fn usual_spellings_of_a_role_are_one_role() {
        for (given, read) in [
            ("human", "user"),
            ("User", "user"),
            ("gpt", "assistant"),
            ("Assistant", "assistant"),
            ("model", "assistant"),
            ("SYSTEM", "system"),
            ("ipython", "ipython"),
            ("Oracle", "Oracle"),
        ] {
            let row = json!({"messages": [{"role": given, "content": "a"}]});
            assert_eq!(conversation(&row.to_string()).messages[0].role(), read);
        }
    }

    #[test]
    fn what_a_turn_says_besides_its_text_is_kept_and_null_is_nothing() {
        let row = r#"{"tools":"[{\"type\":\"function\"}]","messages":[{"role":"assistant","content":null,
            "tool_calls":[{"function":{"name":"f","arguments":"{}"}}],"name":null}]}"#;
        let row = row.replace('\n', "");
        let conversation = conversation(&row);
        let fields: Vec<&String> = conversation.messages[0].fields.keys().collect();
        assert_eq!(fields, ["role", "tool_calls"]);
        assert_eq!(
            conversation.variables["tools"],
            json!([{"type": "function"}])
        );
    }

    #[test]
    fn empty_lists_as_tables_have_them_are_absent() {
        let row = r#"{"tools":"","documents":[],"messages":[{"role":"user","content":"a","tool_calls":[]},
            {"role":"assistant","content":"b","tool_calls":""}]}"#;
        let conversation = conversation(&row.replace('\n', ""));
        assert!(conversation.variables.is_empty());
        for message in &conversation.messages {
            assert_eq!(message.fields.len(), 2, "{message:?}");
        }
    }

    #[test]
    fn flags_of_each_spelling_say_whether_a_turn_is_learned() {
        for (flag, learned) in [
            (r#""weight":0"#, false),
            (r#""weight":1"#, true),
            (r#""weight":0.0"#, false),
            (r#""train":false"#, false),
            (r#""training":true"#, true),
            (r#""loss":false"#, false),
            (r#""weight":null"#, true),
        ] {
            let row = format!(r#"{{"messages":[{{"role":"gpt","content":"a",{flag}}}]}}"#);
            let message = &conversation(&row).messages[0];
            assert_eq!(message.is_learned(), learned, "{flag}");
            assert_eq!(message.fields.len(), 2, "templates do not see {flag}");
        }
        let row = r#"{"messages":[{"role":"gpt","content":"a","weight":0.5}]}"#;
        assert!(message_of(row).contains("messages[0].weight is 0.5"));
    }

    #[test]
    fn what_is_not_text_is_refused_by_name() {
        for (row, expected) in [
            (
                r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":"x"}]}]}"#,
                r#"messages[0].content[0] is of type "image_url""#,
            ),
            (
                r#"{"messages":[{"role":"user","content":{"a":1}}]}"#,
                "messages[0].content must be a string, found an object",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}],"tools":"[}"}"#,
                "\"tools\" is text, and not JSON",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"add_generation_prompt":true}}"#,
                "\"chat_template_kwargs\" has \"add_generation_prompt\"",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"messages":[]}}"#,
                "\"chat_template_kwargs\" has \"messages\"",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}],"tools":{}}"#,
                "\"tools\" must be a list, found an object",
            ),
        ] {
            let message = message_of(row);
            assert!(
                message.starts_with("chat.jsonl:1: ") && message.contains(expected),
                "{message}"
            );
        }
    }
}
