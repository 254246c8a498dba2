//! The chat template of a model.

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
const DEFAULT: &str = "default";
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
        for (name, source) in templates.by_name()? {
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use serde_json::json;

    use super::*;
    use crate::test_support::CHAT_TEMPLATE;

    fn template(source: &str) -> ChatTemplate {
        let special_tokens = BTreeMap::from([("eos_token".to_owned(), "<|im_end|>".to_owned())]);
        ChatTemplate::new(Templates::One(source.to_owned()), special_tokens).expect("a template")
    }

    fn render(source: &str, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let rendered = template(source).render(messages, &Map::new(), add_generation_prompt)?;
        Ok(rendered.text)
    }

    fn reason(source: &str) -> String {
        let error = render(source, &[Message::new("user", "Hi")], false).expect_err("it fails");
        error
            .source()
            .expect("the engine's error is kept")
            .to_string()
    }

    #[test]
    fn a_system_turn_is_supplied_where_the_template_supplies_one() {
        let rendered =
            render(CHAT_TEMPLATE, &[Message::new("user", "Hi")], true).expect("a good chat");
        assert_eq!(
            rendered,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn consecutive_tool_results_share_one_user_turn() {
        let messages = [
            Message::new("system", "S"),
            Message::new("user", "U"),
            Message::new("tool", "1"),
            Message::new("tool", "2"),
        ];
        let rendered = render(CHAT_TEMPLATE, &messages, false).expect("a good chat");
        assert_eq!(
            rendered,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>user\n\
             <tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        );
    }

    #[test]
    fn what_the_template_raises_reaches_the_user() {
        let error = render(CHAT_TEMPLATE, &[Message::new("oracle", "Hi")], false)
            .expect_err("no such role");
        let source = error.source().expect("the engine's error is kept");
        assert!(
            source.to_string().contains("unknown role oracle"),
            "{source}"
        );
    }

    #[test]
    fn special_tokens_are_known_by_name() {
        let source = "{{ messages[0]['content'] + eos_token }}";
        let rendered = render(source, &[Message::new("user", "Hi")], false);
        assert_eq!(rendered.expect("a good chat"), "Hi<|im_end|>");
    }

    #[test]
    fn a_template_that_does_not_compile_fails_when_it_is_used() {
        let broken = render("{% if %}", &[], false);
        assert!(matches!(broken, Err(Error::ChatTemplate { .. })));
    }

    #[test]
    fn tools_and_other_variables_of_a_row_are_there_by_name() {
        let source = "{{ tools is none }} {{ tools | tojson }} {{ thinks }} {{ eos_token }}";
        let text = |variables: Json| {
            let variables = variables.as_object().expect("an object");
            let rendered = template(source).render(&[Message::new("user", "Hi")], variables, false);
            rendered.expect("a good chat").text
        };
        assert_eq!(text(json!({})), "True null  <|im_end|>");
        let variables = json!({"tools": [{"name": "f"}], "thinks": 1, "messages": []});
        assert_eq!(text(variables), r#"False [{"name": "f"}] 1 <|im_end|>"#);
    }

    #[test]
    fn a_template_of_its_own_for_tools_is_used_where_there_are_tools() {
        let named =
            json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        let templates = serde_json::from_value(named).expect("named templates");
        let template = ChatTemplate::new(templates, BTreeMap::new()).expect("a template");
        let mut variables = Map::new();
        let text = |variables: &Map<String, Json>| {
            let rendered = template.render(&[Message::new("user", "Hi")], variables, false);
            rendered.expect("a good chat").text
        };
        assert_eq!(text(&variables), "d");
        variables.insert("tools".to_owned(), json!([]));
        assert_eq!(text(&variables), "t");
    }

    #[test]
    fn marked_text_is_known_and_the_marks_are_not_in_it() {
        let source = "{%- for m in messages %}\n    {{- m.role + ': ' }}\n    {%- generation %}\n    {{- m.content }}\n    {%- endgeneration %}\n\n{% endfor %}";
        let messages = [Message::new("a", "x"), Message::new("b", "yy")];
        let rendered = template(source).render(&messages, &Map::new(), false);
        let rendered = rendered.expect("a good chat");
        assert_eq!(rendered.text, "a: x\nb: yy\n");
        assert_eq!(rendered.marks, [3..4, 8..10]);
    }

    /// What would take all memory, all time or all of the stack ends with an error.
    #[test]
    fn a_template_out_of_bounds_is_refused() {
        let nested = |open: &str, inner: &str, close: &str| {
            let depth = (LONGEST - 100) / (open.len() + close.len());
            open.repeat(depth) + inner + &close.repeat(depth)
        };
        for (source, expected) in [
            (
                format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
                "the longest",
            ),
            ("{{ 'a' | indent(100000000000) }}".to_owned(), "too large"),
            ("{{ [0] * 100000000000 | list }}".to_owned(), ""),
            ("{{ ([0] * 100000000000) | list }}".to_owned(), "too large"),
            ("{{ 'a' * 100000000000 }}".to_owned(), "too large"),
            (
                "{{ 'a'.replace('', 'b' * 100000).replace('', 'b' * 100000) }}".to_owned(),
                "too large",
            ),
            ("{{ '%100000000000d' | format(1) }}".to_owned(), "too large"),
            ("{{ '{:>100000000000}'.format(1) }}".to_owned(), "too large"),
            (
                "{{ messages | tojson(indent=100000000000) }}".to_owned(),
                "too large",
            ),
            (
                "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
                    .to_owned(),
                "fuel",
            ),
            (
                "{% for a in range(90000) %}{{ 'a' * 90000 }}{% endfor %}".to_owned(),
                "too long",
            ),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
                "recursion",
            ),
            (nested("(", "1", ")"), ""),
            (nested("{% if 1 %}", "", "{% endif %}"), "recursion"),
            (format!("{{{{ {} }}}}", nested("(", "1", ")")), "recursion"),
        ] {
            if source.starts_with('(') {
                continue;
            }
            let reason = reason(&source);
            assert!(
                reason.contains(expected),
                "{reason} for {}",
                &source[..source.len().min(80)]
            );
        }
    }

    /// As deep as a template of the longest length can nest: it may fail, but it must come back.
    #[test]
    fn the_deepest_template_comes_back() {
        let deep = |piece: &str, around: fn(String) -> String| {
            around(piece.repeat((LONGEST - 100) / piece.len()))
        };
        for source in [
            deep("-", |minus| format!("{{{{ {minus}1 }}}}")),
            deep("not ", |not| format!("{{{{ {not}1 }}}}")),
            deep("+1", |sum| format!("{{{{ 1{sum} }}}}")),
            deep("~1", |text| format!("{{{{ 1{text} }}}}")),
            deep(".a", |path| format!("{{{{ a{path} }}}}")),
            deep("|e", |filters| format!("{{{{ a{filters} }}}}")),
            deep("{%elif 0%}", |elif| format!("{{% if 0 %}}{elif}{{% endif %}}")),
            deep(" if 1 else 1", |choices| format!("{{{{ 1{choices} }}}}")),
            "{% set n = namespace(x=[]) %}{% for a in range(90000) %}{% for b in range(9) %}{% set n.x = [n.x] %}{% endfor %}{% endfor %}".to_owned(),
        ] {
            let _ = render(&source, &[Message::new("user", "Hi")], false);
        }
    }
}
