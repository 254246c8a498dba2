//! What is read of `tokenizer_config.json`.

use serde::Deserialize;

/// The keys of `tokenizer_config.json` that are used; a file has some forty.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    pub(crate) bos_token: Option<SpecialToken>,
    pub(crate) eos_token: Option<SpecialToken>,
    pub(crate) pad_token: Option<SpecialToken>,
    pub(crate) unk_token: Option<SpecialToken>,
    pub(crate) chat_template: Option<Templates>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SpecialToken {
    Plain(String),
    Described { content: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
pub(crate) struct NamedTemplate {
    pub(crate) name: String,
    pub(crate) template: String,
}

impl SpecialToken {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Described { content: text } => text,
        }
    }
}

impl Templates {
    /// The template called `default`, as transformers chooses, or else the first.
    pub(crate) fn chosen(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(mut list) => {
                let index = list
                    .iter()
                    .position(|entry| entry.name == "default")
                    .unwrap_or(0);
                (index < list.len()).then(|| list.swap_remove(index).template)
            }
        }
    }
}
