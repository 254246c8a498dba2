//! A conversation: what a chat template sees of it, and which turns are learned.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The names under which datasets store what the assistant thinks before it answers. A template reads one of them.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// What takes out the turns of a prompt, where another column has the turns to learn.
pub(crate) const PROMPT: &str = "prompt";

/// A conversation, and what a row says to the chat template besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conversation {
    /// The turns in order. In a row there is at least one.
    pub messages: Vec<Message>,
    /// Variables of the template by name: the row's `tools` and `documents`, and each entry of its
    /// `chat_template_kwargs`.
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// Makes a conversation of turns alone.
    pub fn new(messages: impl Into<Vec<Message>>) -> Self {
        Self {
            messages: messages.into(),
            variables: Map::new(),
        }
    }
}

/// One turn of a conversation. Chat templates see all of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The keys of the turn, `role` and `content` among them. None of the values is null.
    pub(crate) fields: Map<String, Value>,
    /// The flag of the row that says that the turn is not learned.
    pub(crate) masked_by: Option<&'static str>,
}

impl Message {
    /// Makes a turn of `role` with the text `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let role = ("role".to_owned(), Value::String(role.into()));
        let content = ("content".to_owned(), Value::String(content.into()));
        Self {
            fields: [role, content].into_iter().collect(),
            masked_by: None,
        }
    }

    /// The speaker: `system`, `user`, `assistant`, or another role that the chat template renders.
    pub fn role(&self) -> &str {
        self.fields
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether the turn is to be learned: the assistant's, and no flag says otherwise.
    pub(crate) fn is_learned(&self) -> bool {
        self.role() == "assistant" && self.masked_by.is_none()
    }

    /// Whether the content is a list of parts.
    pub(crate) fn has_parts(&self) -> bool {
        matches!(self.fields.get("content"), Some(Value::Array(_)))
    }

    /// The turn with the texts of its parts as one text, a line break between them.
    pub(crate) fn with_parts_joined(&self) -> Self {
        let mut turn = self.clone();
        if let Some(content) = turn.fields.get_mut("content")
            && let Value::Array(parts) = content
        {
            let texts: Vec<&str> = parts.iter().filter_map(text_of_part).collect();
            *content = Value::String(texts.join("\n"));
        }
        turn
    }

    /// The text of the turn, white space at its ends aside: of its `content`, or of the first part of that which has
    /// any. `None` if there is none.
    pub(crate) fn text(&self) -> Option<&str> {
        let text = match self.fields.get("content")? {
            Value::String(text) => text,
            Value::Array(parts) => parts.iter().filter_map(text_of_part).find(is_text)?,
            _ => return None,
        };
        Some(text.trim()).filter(|text| !text.is_empty())
    }
}

fn text_of_part(part: &Value) -> Option<&str> {
    part.get("text")?.as_str()
}

fn is_text(text: &&str) -> bool {
    !text.trim().is_empty()
}

impl Serialize for Message {
    /// As transformers gives a turn to a template: its reasoning is there under the names that templates read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reasoning = REASONING.iter().find_map(|key| self.fields.get(*key));
        let Some(reasoning) = reasoning else {
            return self.fields.serialize(serializer);
        };
        let mut fields = Map::new();
        fields.insert("thinking".to_owned(), reasoning.clone());
        fields.extend(self.fields.clone());
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
        fields.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasoning_is_there_under_the_names_that_templates_read() {
        let mut message = Message::new("assistant", "4");
        message
            .fields
            .insert("reasoning".to_owned(), json!("2 + 2"));
        let seen = serde_json::to_value(&message).expect("strings");
        assert_eq!(seen["thinking"], "2 + 2");
        assert_eq!(seen["reasoning_content"], "2 + 2");
        let plain = serde_json::to_value(Message::new("user", "2 + 2?")).expect("strings");
        assert_eq!(plain, json!({"role": "user", "content": "2 + 2?"}));
    }

    #[test]
    fn the_text_of_a_turn_is_its_content_or_a_part_of_it() {
        assert_eq!(Message::new("user", " hi\n").text(), Some("hi"));
        assert_eq!(Message::new("user", " ").text(), None);
        let mut parts = Message::new("user", "");
        let list = json!([{"type": "text", "text": " "}, {"type": "text", "text": "hi"}]);
        parts.fields.insert("content".to_owned(), list);
        assert_eq!(parts.text(), Some("hi"));
    }
}
