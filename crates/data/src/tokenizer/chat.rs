//! The chat template of a model.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use minijinja::value::merge_maps;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json, json};

use super::config::Templates;
use super::jinja;
use super::marks::{MARKS, Rendered, replace_tags, take_marks};
use super::stack::on_deep_stack;
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::panics::caught;

/// The template for conversations, and the one that transformers takes instead where a row has tools.
const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

/// The longest template that is compiled, in bytes. Those of published models have up to 30,000.
const LONGEST: usize = 200_000;

/// A model's chat template, or several. They are compiled at their first use.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// The length of the longest template, and whether there is one for tools.
    length: usize,
    has_tool_use: bool,
    /// The names of the templates that mark what is learned.
    marking: HashSet<String>,
    /// The most operators that one tag has.
    operators: usize,
    /// The texts of `bos_token`, `eos_token` and so on, which templates use by name.
    special_tokens: BTreeMap<String, String>,
    /// The names of the variables that the templates read; found at its first use.
    variables: OnceLock<HashSet<String>>,
    /// Whether the template, and the one for tools, writes a content that is a list of parts as it writes a text.
    takes_parts: [OnceLock<bool>; 2],
}

impl ChatTemplate {
    /// Does not compile the templates, so that a model whose template fails can still be used with other rows.
    /// `None` if there is no template.
    pub(super) fn new(
        templates: Templates,
        special_tokens: BTreeMap<String, String>,
    ) -> Option<Self> {
        let mut sources = BTreeMap::new();
        let mut marking = HashSet::new();
        let (mut length, mut operators, mut repeated_text) = (0, 0, 0);
        for (name, source) in templates.by_name(DEFAULT)? {
            let (source, is_marked) = replace_tags(&source);
            if is_marked {
                marking.insert(name.clone());
            }
            length = length.max(source.len());
            if source.len() > LONGEST {
                continue;
            }
            let guarded = jinja::guard(&source);
            operators = operators.max(guarded.operators);
            repeated_text = repeated_text.max(guarded.repeated_text);
            sources.insert(name, guarded.source);
        }
        let has_tool_use = sources.contains_key(TOOL_USE);
        let mut environment = jinja::environment(repeated_text);
        environment.set_loader(move |name| Ok(sources.get(name).cloned()));
        Some(Self {
            environment,
            length,
            has_tool_use,
            marking,
            operators,
            special_tokens,
            variables: OnceLock::new(),
            takes_parts: Default::default(),
        })
    }

    /// Whether a template reads a variable of that name.
    pub(super) fn reads(&self, name: &str) -> bool {
        let variables = self.variables.get_or_init(|| {
            let found = on_deep_stack(|| {
                let templates = [DEFAULT, TOOL_USE].into_iter();
                templates
                    .filter_map(|name| self.environment.get_template(name).ok())
                    .flat_map(|template| template.undeclared_variables(false))
                    .collect()
            });
            found.unwrap_or_default()
        });
        variables.contains(name)
    }

    /// The name of the template for a conversation with these variables.
    fn name(&self, variables: &Map<String, Json>) -> &'static str {
        match self.has_tool_use && variables.contains_key("tools") {
            true => TOOL_USE,
            false => DEFAULT,
        }
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins.
    pub(super) fn render(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<Rendered> {
        if self.length > LONGEST {
            return Err(failed(format!(
                "it has {} bytes, and the longest that is compiled has {LONGEST}",
                self.length
            )));
        }
        let is_marked = self.marking.contains(self.name(variables));
        if is_marked && has_mark(messages, variables) {
            return Err(failed(
                "it marks what is learned with the characters U+FDD0 and U+FDD1, and the row has one of them"
                    .to_owned(),
            ));
        }
        let messages = match messages.iter().any(Message::has_parts) {
            true if !self.takes_parts(variables) => &messages
                .iter()
                .map(Message::with_parts_joined)
                .collect::<Vec<_>>(),
            _ => messages,
        };
        let rendered = self.render_text(messages, variables, add_generation_prompt)?;
        if !is_marked {
            return Ok(Rendered {
                text: rendered,
                marks: None,
            });
        }
        take_marks(&rendered)
            .ok_or_else(|| failed("its `generation` tags do not come in pairs".to_owned()))
    }

    /// Whether the template writes parts: most know texts only, and fail at a list, or write it as Python shows one.
    fn takes_parts(&self, variables: &Map<String, Json>) -> bool {
        let index = usize::from(self.name(variables) == TOOL_USE);
        *self.takes_parts[index].get_or_init(|| {
            let text = Message::new("user", "text");
            let mut parts = text.clone();
            let list = json!([{"type": "text", "text": "text"}]);
            parts.fields.insert("content".to_owned(), list);
            let [text, parts] =
                [text, parts].map(|turn| self.render_text(&[turn], variables, false));
            // A template that fails at this conversation tells nothing.
            text.ok().is_none_or(|text| parts.ok() == Some(text))
        })
    }

    fn render_text(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let render = || caught(|| self.render_here(messages, variables, add_generation_prompt));
        on_deep_stack(render)
            .map_err(|source| Error::Memory { source })?
            .map_err(failed)?
            .map_err(|source| Error::ChatTemplate { source })
    }

    fn render_here(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String, minijinja::Error> {
        jinja::begin(self.operators);
        let template = self.environment.get_template(self.name(variables))?;
        // transformers defines these two as none: some templates ask `tools is not none`.
        let absent = context! { tools => (), documents => () };
        let special_tokens = Value::from_serialize(&self.special_tokens);
        let variables = merge_maps([absent, special_tokens, Value::from_serialize(variables)]);
        let mut out = jinja::Output::default();
        let rendered = template.render_captured_to(
            context! {
                messages,
                add_generation_prompt,
                ..variables
            },
            &mut out,
        );
        match rendered {
            Ok(_) => out.into_text(),
            Err(_) if out.is_full() => Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                "the text is too long",
            )),
            Err(error) => Err(error),
        }
    }
}

/// Whether the marks of `generation` tags stand in a text of the conversation.
fn has_mark(messages: &[Message], variables: &Map<String, Json>) -> bool {
    fn is_in(value: &Json) -> bool {
        match value {
            Json::String(text) => text.contains(MARKS),
            Json::Array(items) => items.iter().any(is_in),
            Json::Object(fields) => fields.iter().any(is_in_field),
            _ => false,
        }
    }
    fn is_in_field((key, value): (&String, &Json)) -> bool {
        key.contains(MARKS) || is_in(value)
    }
    let fields = messages.iter().flat_map(|message| &message.fields);
    fields.chain(variables).any(is_in_field)
}

fn failed(reason: String) -> Error {
    let source = minijinja::Error::new(ErrorKind::InvalidOperation, reason);
    Error::ChatTemplate { source }
}
