//! The keys of `tokenizer_config.json` that this crate reads.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The keys that are used. Unknown keys are ignored, since a file has about forty.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    pub(super) bos_token: Option<SpecialToken>,
    pub(super) eos_token: Option<SpecialToken>,
    pub(super) pad_token: Option<SpecialToken>,
    pub(super) unk_token: Option<SpecialToken>,
    pub(super) chat_template: Option<Templates>,
}

/// A special token: its text, or an object that contains its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SpecialToken {
    Plain(String),
    Described { content: String },
}

/// One chat template, or a list of named ones.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedTemplate {
    pub(super) name: String,
    pub(super) template: String,
}

impl TokenizerConfig {
    /// Returns the texts of the special tokens by their names, for chat templates.
    pub(super) fn special_tokens(&self) -> BTreeMap<String, String> {
        let named = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("pad_token", &self.pad_token),
            ("unk_token", &self.unk_token),
        ];
        let text = |(name, token): (&str, &Option<SpecialToken>)| {
            Some((name.to_owned(), token.as_ref()?.text().to_owned()))
        };
        named.into_iter().filter_map(text).collect()
    }
}

impl SpecialToken {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Described { content: text } => text,
        }
    }
}

impl Templates {
    /// Returns the template named `default`, as transformers does, or else the first.
    pub(super) fn chosen(self) -> Option<String> {
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
