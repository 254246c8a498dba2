//! The chat template of a model.

use std::collections::BTreeMap;

use minijinja::{Environment, context};

use super::jinja;
use crate::error::{Error, Result};
use crate::row::Message;

const TEMPLATE: &str = "chat_template";

/// A model's chat template. It is compiled at its first use.
#[derive(Debug, Clone)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// The texts of `bos_token`, `eos_token` and so on, which templates use by name.
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Does not compile the template, so that a model whose template fails can still be used with other rows.
    pub(super) fn new(source: String, special_tokens: BTreeMap<String, String>) -> Self {
        let mut environment = jinja::environment();
        environment.set_loader(move |name| Ok((name == TEMPLATE).then(|| source.clone())));
        Self {
            environment,
            special_tokens,
        }
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins.
    pub(super) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let render = || {
            self.environment.get_template(TEMPLATE)?.render(context! {
                messages,
                add_generation_prompt,
                // transformers defines these as none: some templates ask `tools is not none`.
                tools => (),
                documents => (),
                ..minijinja::Value::from_serialize(&self.special_tokens)
            })
        };
        render().map_err(|source| Error::ChatTemplate { source })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::test_support::CHAT_TEMPLATE;

    fn template(source: &str) -> ChatTemplate {
        let special_tokens = BTreeMap::from([("eos_token".to_owned(), "<|im_end|>".to_owned())]);
        ChatTemplate::new(source.to_owned(), special_tokens)
    }

    #[test]
    fn a_system_turn_is_supplied_where_the_template_supplies_one() {
        let rendered = template(CHAT_TEMPLATE)
            .render(&[Message::new("user", "Hi")], true)
            .expect("a good chat");
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
        let rendered = template(CHAT_TEMPLATE)
            .render(&messages, false)
            .expect("a good chat");
        assert_eq!(
            rendered,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>user\n\
             <tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        );
    }

    #[test]
    fn what_the_template_raises_reaches_the_user() {
        let error = template(CHAT_TEMPLATE)
            .render(&[Message::new("oracle", "Hi")], false)
            .expect_err("no such role");
        let source = error.source().expect("the engine's error is kept");
        assert!(
            source.to_string().contains("unknown role oracle"),
            "{source}"
        );
    }

    #[test]
    fn special_tokens_are_known_by_name() {
        let rendered = template("{{ messages[0]['content'] + eos_token }}")
            .render(&[Message::new("user", "Hi")], false);
        assert_eq!(rendered.expect("a good chat"), "Hi<|im_end|>");
    }

    #[test]
    fn a_template_that_does_not_compile_fails_when_it_is_used() {
        let broken = template("{% if %}");
        assert!(matches!(
            broken.render(&[], false),
            Err(Error::ChatTemplate { .. })
        ));
    }
}
