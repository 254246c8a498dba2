//! The files of a model folder that tell of its tokenizer.

use std::path::Path;

use serde::de::DeserializeOwned;
use tokenizers::AddedToken;

use super::config::{NamedTemplate, SpecialIds, SpecialTokens, Templates, TokenizerConfig};
use super::facts::Ends;
use crate::error::{Error, Result};

/// The contents of the files. What a folder lacks is empty.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) tokenizer: Vec<u8>,
    pub(super) config: Vec<u8>,
    pub(super) chat_template: Option<String>,
    /// The template for rows with tools, where it has a file of its own.
    pub(super) tool_template: Option<String>,
    pub(super) special_tokens_map: Vec<u8>,
    /// `config.json` and `generation_config.json`.
    pub(super) models: [Vec<u8>; 2],
}

/// What they say.
pub(super) struct Config {
    pub(super) special: SpecialTokens,
    pub(super) added_tokens: Vec<(u32, AddedToken)>,
    /// The eos, where it has no name.
    pub(super) eos_id: Option<u32>,
    /// What each file names as the end of a text.
    pub(super) ends: Ends,
    pub(super) templates: Option<Templates>,
}

impl Files {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let bytes = |name: &str| read_if_present(&dir.join(name));
        let text = |name: &str| {
            let path = dir.join(name);
            let not_utf8 = |error| Error::Read {
                path: path.clone(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
            };
            let bytes = read_if_present(&path)?;
            bytes
                .map(|bytes| String::from_utf8(bytes).map_err(not_utf8))
                .transpose()
        };
        Ok(Self {
            tokenizer: read_if_present(&path)?.ok_or(Error::MissingTokenizer { path })?,
            config: bytes("tokenizer_config.json")?.unwrap_or_default(),
            chat_template: text("chat_template.jinja")?,
            tool_template: text("additional_chat_templates/tool_use.jinja")?,
            special_tokens_map: bytes("special_tokens_map.json")?.unwrap_or_default(),
            models: [
                bytes("config.json")?.unwrap_or_default(),
                bytes("generation_config.json")?.unwrap_or_default(),
            ],
        })
    }

    pub(super) fn config(&self, dir: &Path) -> Result<Config> {
        let config: TokenizerConfig = parse(dir, "tokenizer_config.json", &self.config)?;
        let map: SpecialTokens = parse(dir, "special_tokens_map.json", &self.special_tokens_map)?;
        // Whoever loads the weights checks these two.
        let models = self.models.each_ref();
        let models = models.map(|json| serde_json::from_slice::<SpecialIds>(json).ok());
        let ends = Ends::of(&config.special, &map, &models);
        let added_tokens = config.added_tokens();
        let named = |name: &str, template: &String| NamedTemplate {
            name: name.to_owned(),
            template: template.clone(),
        };
        let templates = match (&self.chat_template, &self.tool_template) {
            (Some(default), Some(tools)) => Some(Templates::Named(vec![
                named("default", default),
                named("tool_use", tools),
            ])),
            (Some(default), None) => Some(Templates::One(default.clone())),
            (None, _) => config.chat_template,
        };
        Ok(Config {
            ends,
            special: config.special.or(map),
            added_tokens,
            eos_id: models.iter().flatten().find_map(SpecialIds::eos),
            templates,
        })
    }
}

fn parse<T: DeserializeOwned + Default>(dir: &Path, name: &str, json: &[u8]) -> Result<T> {
    if json.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(json).map_err(|source| Error::TokenizerConfig {
        path: dir.join(name),
        source,
    })
}

fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>> {
    match burn_peft_files::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Read {
            path: error.path,
            source: error.source,
        }),
    }
}
