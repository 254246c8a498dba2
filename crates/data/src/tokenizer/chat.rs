//! The chat template of a model.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use minijinja::value::merge_maps;
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json};

use super::config::Templates;
use super::jinja;
use super::marks::{Rendered, replace_tags, take_marks};
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
    /// The length of the longest template, and whether there is one for tools, and whether one marks what is learned.
    length: usize,
    has_tool_use: bool,
    has_marks: bool,
    /// The texts of `bos_token`, `eos_token` and so on, which templates use by name.
    special_tokens: BTreeMap<String, String>,
    /// The names of the variables that the templates read; found at its first use.
    variables: OnceLock<HashSet<String>>,
}

impl ChatTemplate {
    /// Does not compile the templates, so that a model whose template fails can still be used with other rows.
    /// `None` if there is no template.
    pub(super) fn new(
        templates: Templates,
        special_tokens: BTreeMap<String, String>,
    ) -> Option<Self> {
        let mut sources = BTreeMap::new();
        let mut has_marks = false;
        for (name, source) in templates.by_name(DEFAULT)? {
            let (source, is_marked) = replace_tags(&source);
            has_marks |= is_marked;
            sources.insert(name, source);
        }
        let length = sources.values().map(String::len).max().unwrap_or(0);
        let has_tool_use = sources.contains_key(TOOL_USE);
        let mut environment = jinja::environment();
        environment.set_loader(move |name| Ok(sources.get(name).cloned()));
        Some(Self {
            environment,
            length,
            has_tool_use,
            has_marks,
            special_tokens,
            variables: OnceLock::new(),
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

    /// Whether the template marks what the assistant wrote.
    pub(super) fn has_marks(&self) -> bool {
        self.has_marks
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
        let render = || caught(|| self.render_here(messages, variables, add_generation_prompt));
        let rendered = on_deep_stack(render)
            .map_err(|source| Error::Memory { source })?
            .map_err(failed)?
            .map_err(|source| Error::ChatTemplate { source })?;
        take_marks(&rendered)
            .ok_or_else(|| failed("its `generation` tags do not come in pairs".to_owned()))
    }

    fn render_here(
        &self,
        messages: &[Message],
        variables: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String, minijinja::Error> {
        let name = match self.has_tool_use && variables.contains_key("tools") {
            true => TOOL_USE,
            false => DEFAULT,
        };
        let template = self.environment.get_template(name)?;
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

fn failed(reason: String) -> Error {
    let source = minijinja::Error::new(ErrorKind::InvalidOperation, reason);
    Error::ChatTemplate { source }
}
