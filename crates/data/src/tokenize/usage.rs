//! What of the rows a chat template writes, and what it leaves out.

use std::collections::HashSet;

use super::spans::changed_range;
use crate::conversation::{Conversation, Message};
use crate::error::{Error, Result};
use crate::row::Row;
use crate::rows::{UnknownKeys, rows_of};
use crate::tokenizer::TextTokenizer;

/// What the rows of a file have that does not reach the model, collected over its rows.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Roles that the chat template was seen to render.
    roles: HashSet<String>,
    /// Keys of turns that were seen to change what the chat template writes.
    used: HashSet<String>,
    /// Keys of the rows that were not seen to, with their rows.
    unused: UnknownKeys,
    /// Fields for which the template of the run has no place.
    unplaced: UnknownKeys,
    /// Rows in which a turn's text is not written as it stands.
    rewritten: usize,
}

impl Usage {
    /// Takes note of what a row with a template of the run has beside that template's fields.
    pub(super) fn placed(&mut self, row: &Row) {
        if let Row::Instruction {
            system, history, ..
        } = row
        {
            let system = system.as_ref().map(|_| "system");
            let history = (!history.is_empty()).then_some("history");
            self.unplaced.count(system.into_iter().chain(history));
        }
    }

    /// Takes note of what the chat template has left out of a conversation that it has rendered as `text`.
    ///
    /// # Errors
    /// It has left out a turn, or the tool calls of one.
    pub(super) fn rendered(
        &mut self,
        tokenizer: &TextTokenizer,
        conversation: &Conversation,
        text: &str,
    ) -> Result<()> {
        let mut is_rewritten = false;
        for (index, message) in conversation.messages.iter().enumerate() {
            let is_there = message.text().is_none_or(|said| text.contains(said));
            is_rewritten |= !is_there;
            if is_there && self.roles.contains(message.role()) {
                continue;
            }
            let calls_tools = message.fields.contains_key("tool_calls");
            let says_something = message.text().is_some() || calls_tools;
            if says_something && is_unread(tokenizer, conversation, index, text) {
                let what = match message.text() {
                    Some(_) => format!("messages[{index}], whose role is {:?}", message.role()),
                    None => format!("the `tool_calls` of messages[{index}]"),
                };
                return Err(Error::NotRendered { what });
            }
            if message.text().is_some() {
                self.roles.insert(message.role().to_owned());
            }
        }
        self.rewritten += usize::from(is_rewritten);
        self.keys(tokenizer, conversation, text)
    }

    fn keys(
        &mut self,
        tokenizer: &TextTokenizer,
        conversation: &Conversation,
        text: &str,
    ) -> Result<()> {
        let Conversation {
            messages,
            variables,
        } = conversation;
        for (name, value) in variables {
            let is_empty = value.as_array().is_some_and(Vec::is_empty);
            if !is_empty && !tokenizer.reads_variable(name) {
                self.unused.add(name, 1);
            }
        }
        let mut keys: Vec<&String> = Vec::new();
        for key in messages.iter().flat_map(|message| message.fields.keys()) {
            if key != "role" && key != "content" && !keys.contains(&key) {
                keys.push(key);
            }
        }
        for key in keys {
            if self.used.contains(key) {
                continue;
            }
            let without = |message: &Message| {
                let mut message = message.clone();
                message.fields.shift_remove(key);
                message
            };
            let without: Vec<Message> = messages.iter().map(without).collect();
            let rendered = tokenizer.render(&without, variables, false);
            if rendered.map_or(true, |rendered| rendered.text != text) {
                self.used.insert(key.clone());
            } else if key == "tool_calls" {
                return Err(Error::NotRendered {
                    what: "`tool_calls`".to_owned(),
                });
            } else {
                self.unused.add(&format!("messages[].{key}"), 1);
            }
        }
        Ok(())
    }

    /// A sentence for each thing that does not reach the model.
    pub(super) fn notes(mut self, path: &str) -> Vec<String> {
        // What reached the model in one row does not in another that has nothing to say there.
        let used = self.used.iter().map(|key| format!("messages[].{key}"));
        self.unused.forget(&used.collect::<Vec<_>>());
        let mut notes = self
            .unused
            .notes(path, "is not used by the model's chat template");
        notes.extend(
            self.unplaced
                .notes(path, "is not used: the template has no place for it"),
        );
        if self.rewritten > 0 {
            notes.push(format!(
                "{path}: in {} the model's chat template leaves out or changes a part of a turn's text",
                rows_of(self.rewritten)
            ));
        }
        notes
    }
}

/// Whether a turn can say something else and the text stays the same.
fn is_unread(
    tokenizer: &TextTokenizer,
    conversation: &Conversation,
    index: usize,
    text: &str,
) -> bool {
    // If the template refuses the other text, it has read it.
    let changed = changed_range(tokenizer, conversation, index, text);
    changed.is_ok_and(|changed| changed.is_none())
}
