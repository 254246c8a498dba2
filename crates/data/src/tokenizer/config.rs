//! The keys of `tokenizer_config.json` and its neighbours that this crate reads.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::AddedToken;

/// The keys that are used. Unknown keys are ignored, since a file has about forty.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(flatten)]
    pub(super) special: SpecialTokens,
    /// The tokens beside the vocabulary, by their ids.
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, DescribedToken>,
    pub(super) chat_template: Option<Templates>,
}

/// The special tokens that have names. They stand in `tokenizer_config.json`, and in `special_tokens_map.json` of
/// folders that older programs wrote.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SpecialTokens {
    pub(super) bos_token: Option<SpecialToken>,
    pub(super) eos_token: Option<SpecialToken>,
    pub(super) pad_token: Option<SpecialToken>,
    pub(super) unk_token: Option<SpecialToken>,
}

/// A special token: its text, or an object that contains its text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum SpecialToken {
    Plain(String),
    Described { content: String },
}

/// A token of `added_tokens_decoder`.
#[derive(Debug, Deserialize)]
struct DescribedToken {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// The ids of `config.json` or `generation_config.json` that name special tokens.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SpecialIds {
    eos_token_id: Option<Ids>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
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
    /// The tokens beside the vocabulary with their ids, in the order of these.
    pub(super) fn added_tokens(&self) -> Vec<(u32, AddedToken)> {
        let tokens = self.added_tokens_decoder.iter();
        let mut tokens: Vec<_> = tokens
            .filter_map(|(id, token)| Some((id.parse().ok()?, token.to_added())))
            .collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }
}

impl SpecialTokens {
    /// Takes from `other` the tokens that are not named here.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            pad_token: self.pad_token.or(other.pad_token),
            unk_token: self.unk_token.or(other.unk_token),
        }
    }

    /// Returns the texts of the special tokens by their names, for chat templates.
    pub(super) fn by_name(&self) -> BTreeMap<String, String> {
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

impl DescribedToken {
    fn to_added(&self) -> AddedToken {
        AddedToken::from(self.content.clone(), self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized)
    }
}

impl SpecialIds {
    /// The id of the eos, or the first of several.
    pub(super) fn eos(&self) -> Option<u32> {
        self.ends().first().copied()
    }

    /// All ids of the eos.
    pub(super) fn ends(&self) -> &[u32] {
        match &self.eos_token_id {
            None => &[],
            Some(Ids::One(id)) => std::slice::from_ref(id),
            Some(Ids::Many(ids)) => ids,
        }
    }
}

impl Templates {
    /// Returns the templates by their names, and the one named `default`, or else the first, under `default`. `None` if
    /// there is none.
    pub(super) fn by_name(self, default: &str) -> Option<BTreeMap<String, String>> {
        let list = match self {
            Self::One(template) => return Some([(default.to_owned(), template)].into()),
            Self::Named(list) => list,
        };
        let is_default = |entry: &&NamedTemplate| entry.name == "default";
        let chosen = list.iter().find(is_default).or(list.first())?;
        let chosen = (default.to_owned(), chosen.template.clone());
        let named = list.into_iter().map(|entry| (entry.name, entry.template));
        Some(named.chain([chosen]).collect())
    }
}
