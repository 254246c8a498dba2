//! Where in a rendered conversation the turns of the assistant stand.

use std::cell::OnceCell;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::conversation::{Conversation, Message};
use crate::error::{Error, Result};
use crate::tokenizer::TextTokenizer;

/// What a chat template puts around a turn of the assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TurnFrame {
    /// What the generation prompt and a saved turn both begin with, as in `<|im_start|>assistant\n`.
    pub(crate) header: String,
    /// What follows the text of the last turn, as in `<|im_end|>\n`.
    pub(crate) footer: String,
}

impl TurnFrame {
    /// Finds it by rendering ordinary conversations. `None` if the template renders none.
    pub(crate) fn find(tokenizer: &TextTokenizer) -> Option<Self> {
        let user = || Message::new("user", "a");
        let system = Message::new("system", "b");
        Self::behind(tokenizer, vec![user()])
            .or_else(|| Self::behind(tokenizer, vec![system, user()]))
    }

    fn behind(tokenizer: &TextTokenizer, given: Vec<Message>) -> Option<Self> {
        let render = |messages: &[Message], with_prompt| {
            tokenizer.render(messages, &Map::new(), with_prompt).ok()
        };
        let answered = |answer: &str| {
            let mut messages = given.clone();
            messages.push(Message::new("assistant", answer));
            render(&messages, false)
        };
        let (given, prompt) = (render(&given, false)?, render(&given, true)?);
        let (answer, other) = (answered("x")?.text, answered("y")?.text);
        let text_start = common_prefix(&answer, &other);
        let footer = answer[text_start..].strip_prefix('x')?.to_owned();
        let start = common_prefix(&answer, &given.text).min(text_start);
        let end = common_prefix(&answer, &prompt.text).clamp(start, text_start);
        Some(Self {
            header: answer[start..end].to_owned(),
            footer,
        })
    }
}

/// Finds the turns of the assistant in a rendered conversation.
///
/// Most templates write a conversation turn by turn. Then the text up to the turn, with the generation prompt, and
/// the text through the turn are prefixes of the whole, and the turn is what only the second has. Where that is not
/// so, the conversation is rendered with another text in that turn. What changes is the text of the turn, and the
/// turn is that with what the [frame](TurnFrame) puts around it. So are turns found that come first (a template may
/// not render no turns), that are written differently once others follow (Qwen3 drops the reasoning of earlier turns),
/// that follow a turn behind which the template writes no generation prompt (Zephyr's writes none behind no turn),
/// and in front of which the generation prompt says more than a saved turn has (DeepSeek-R1's ends in `<think>`).
pub(super) struct Turns<'a> {
    tokenizer: &'a TextTokenizer,
    conversation: &'a Conversation,
    text: &'a str,
    /// What changes with each turn, as far as it was asked for.
    changed: Vec<OnceCell<Option<Range<usize>>>>,
}

impl<'a> Turns<'a> {
    /// Of a conversation and its rendered text.
    pub(super) fn new(
        tokenizer: &'a TextTokenizer,
        conversation: &'a Conversation,
        text: &'a str,
    ) -> Self {
        Self {
            tokenizer,
            conversation,
            text,
            changed: vec![OnceCell::new(); conversation.messages.len()],
        }
    }

    /// Returns the byte range of turn `index`, which is the assistant's. It is empty if the turn says nothing and
    /// cannot be found.
    ///
    /// # Errors
    /// The turn is not rendered, or in no known way.
    pub(super) fn range(&self, index: usize) -> Result<Range<usize>> {
        self.between_prefixes(index)
            .or_else(|| self.around_change(index))
            .or_else(|| self.says_nothing(index).then_some(0..0))
            .ok_or(Error::UnstableChatTemplate { message: index })
    }

    fn between_prefixes(&self, index: usize) -> Option<Range<usize>> {
        let render = |count: usize, with_prompt| {
            let messages = &self.conversation.messages[..count];
            let variables = &self.conversation.variables;
            let rendered = self.tokenizer.render(messages, variables, with_prompt);
            Some(rendered.ok()?.text)
        };
        let through = render(index + 1, false).filter(|text| self.text.starts_with(text))?;
        let before = render(index, true).filter(|text| through.starts_with(text))?;
        // A template may write a generation prompt behind some turns and none behind others. Where it writes none,
        // the header would be taken for a part of the turn.
        let has_header = || {
            self.tokenizer
                .turn_frame()
                .is_some_and(|frame| !frame.header.is_empty())
        };
        let has_prompt = || render(index, false).is_some_and(|without| without != before);
        (!has_header() || has_prompt()).then_some(before.len()..through.len())
    }

    /// Whether a turn has no text, and nothing else of which the template writes anything.
    fn says_nothing(&self, index: usize) -> bool {
        self.conversation.messages[index].text().is_none() && self.changed(index).is_none()
    }

    fn around_change(&self, index: usize) -> Option<Range<usize>> {
        let (text, frame) = (self.text, self.tokenizer.turn_frame()?);
        let changed = self.changed(index)?;
        // The header is this turn's only if it stands behind the turn before.
        let before = index.checked_sub(1).and_then(|before| self.changed(before));
        let before = before.map_or(0, |before| before.end.min(changed.start));
        let between = &text[before..changed.start];
        let start = match frame.header.as_str() {
            "" => behind_prompt(self.tokenizer, self.conversation, index, between)
                .unwrap_or(between.len()),
            header => between.rfind(header)? + header.len(),
        };
        // And the footer is this turn's only if it stands in front of the turn behind.
        let mut behind = index + 1..self.conversation.messages.len();
        let behind = behind.find_map(|behind| self.changed(behind));
        let behind = behind.map_or(text.len(), |behind| behind.start.max(changed.end));
        let footer = frame.footer.trim_end();
        // The last turn of a conversation may end with more than the others.
        let shorter = footer.lines().next().unwrap_or_default();
        let rest = &text[changed.end..behind];
        let footer = [footer, shorter]
            .into_iter()
            .find_map(|footer| Some(rest.find(footer)? + footer.len()))?;
        Some(before + start..changed.end + footer)
    }

    fn changed(&self, index: usize) -> Option<Range<usize>> {
        let changed = || changed_range(self.tokenizer, self.conversation, index, self.text);
        let range = self.changed[index].get_or_init(|| changed().ok().flatten());
        range.clone()
    }
}

/// Where in `between`, what stands between the texts of turn `index` and of the turn before, the prompt ends. This is
/// for templates that put nothing in front of the assistant's turns: there the prompt ends with the end of what the
/// user's turn or a tool's is put into.
fn behind_prompt(
    tokenizer: &TextTokenizer,
    conversation: &Conversation,
    index: usize,
    between: &str,
) -> Option<usize> {
    let before = index.checked_sub(1)?;
    let given = Conversation {
        messages: conversation.messages[..index].to_vec(),
        variables: conversation.variables.clone(),
    };
    let prompt = tokenizer.render(&given.messages, &given.variables, false);
    let prompt = prompt.ok()?.text;
    let changed = changed_range(tokenizer, &given, before, &prompt).ok()??;
    Some(common_prefix(&prompt[changed.end..], between))
}

/// The part of the rendered conversation that changes with the texts of turn `index`. `None` if nothing does.
///
/// # Errors
/// The template does not render the conversation with other texts.
pub(super) fn changed_range(
    tokenizer: &TextTokenizer,
    conversation: &Conversation,
    index: usize,
    text: &str,
) -> Result<Option<Range<usize>>> {
    let mut messages = conversation.messages.clone();
    messages[index].change_texts();
    let changed = tokenizer.render(&messages, &conversation.variables, false)?;
    let changed = changed.text;
    let start = common_prefix(text, &changed);
    let tail = common_suffix(&text[start..], &changed[start..]);
    Ok((text != changed).then_some(start..text.len() - tail))
}

impl Message {
    /// Puts another text in place of each of the turn's texts, with other characters at both ends.
    fn change_texts(&mut self) {
        for (key, value) in &mut self.fields {
            if key != "role" {
                change_texts(value);
            }
        }
    }
}

fn change_texts(value: &mut Value) {
    match value {
        Value::String(text) if !text.trim().is_empty() => {
            let (trimmed, mut others) = (text.trim(), ["x", "y", "z"].into_iter());
            let is_other =
                |other: &&str| !trimmed.starts_with(*other) && !trimmed.ends_with(*other);
            *text = others.find(is_other).unwrap_or("x").to_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(change_texts),
        Value::Object(fields) => {
            // Templates decide by types and do not write them.
            let texts = fields.iter_mut().filter(|(key, _)| *key != "type");
            texts.for_each(|(_, value)| change_texts(value));
        }
        _ => {}
    }
}

/// The bytes that two texts have in common at their beginnings, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    let differ = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    differ.map(|(character, _)| character.len_utf8()).sum()
}

fn common_suffix(a: &str, b: &str) -> usize {
    let differ = a.chars().rev().zip(b.chars().rev());
    let differ = differ.take_while(|(a, b)| a == b);
    differ.map(|(character, _)| character.len_utf8()).sum()
}
