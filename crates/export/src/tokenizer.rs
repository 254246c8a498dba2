//! Names for virtual tokens in the files of a tokenizer.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use crate::Error;

mod post_processor;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const CHAT_TEMPLATES: &str = "additional_chat_templates";

/// The name of a virtual token, counted from 0.
#[must_use]
pub fn virtual_token(index: usize) -> String {
    format!("<|virtual_{index}|>")
}

/// What virtual tokens are put in front of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFront {
    /// Of every conversation, by the chat template.
    pub(crate) of_conversations: bool,
    /// Of every text, by the tokenizer.
    pub(crate) of_texts: bool,
}

/// The tokenizer of a checkpoint's folder, as its files say it.
pub(crate) struct TokenizerFiles<'a> {
    folder: &'a Path,
    tokenizer: Value,
}

impl<'a> TokenizerFiles<'a> {
    pub(crate) fn read(folder: &'a Path) -> Result<Self, Error> {
        let tokenizer = read_json(&folder.join(TOKENIZER))?;
        Ok(Self { folder, tokenizer })
    }

    /// `tokenizer.json`.
    pub(crate) fn json(&self) -> &Value {
        &self.tokenizer
    }

    /// Refuses a tokenizer that has virtual tokens already.
    pub(crate) fn refuse_virtual_tokens(&self) -> Result<(), Error> {
        let names = self.tokenizer["added_tokens"].as_array();
        let is_virtual = |token: &Value| token["content"] == json!(virtual_token(0));
        match names.is_some_and(|tokens| tokens.iter().any(is_virtual)) {
            false => Ok(()),
            true => Err(Error::File {
                path: self.folder.join(TOKENIZER),
                reason: format!(
                    "it has a token {} already: the model is an exported one",
                    virtual_token(0)
                ),
            }),
        }
    }

    /// The first id behind all tokens that it has.
    pub(crate) fn next_id(&self) -> usize {
        let of_vocabulary = self.tokenizer.pointer("/model/vocab");
        let ids = of_vocabulary.and_then(Value::as_object);
        let ids = ids.into_iter().flat_map(Map::values);
        let added = self.tokenizer["added_tokens"].as_array();
        let added = added.into_iter().flatten().map(|token| &token["id"]);
        let last = ids.chain(added).filter_map(Value::as_u64).max();
        last.map_or(0, |last| last as usize + 1)
    }

    /// Whether there is a chat template.
    pub(crate) fn has_chat_template(&self) -> Result<bool, Error> {
        let config = self.folder.join(TOKENIZER_CONFIG);
        let in_config = config.exists() && !read_json(&config)?["chat_template"].is_null();
        Ok(in_config || self.folder.join(CHAT_TEMPLATE).exists())
    }

    /// The files in which `count` virtual tokens have the ids from `first` on: named as special tokens, kept from
    /// being written, and put `in_front`.
    pub(crate) fn with_tokens(
        &self,
        first: usize,
        count: usize,
        in_front: InFront,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        let flags = json!({"single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        let token = |index: usize| {
            let mut token = json!({"id": first + index, "content": virtual_token(index)});
            merge(&mut token, &flags);
            token
        };
        let mut tokenizer = self.tokenizer.clone();
        let path = || self.folder.join(TOKENIZER);
        let Some(added) = tokenizer["added_tokens"].as_array_mut() else {
            let reason = "it has no list `added_tokens`".to_owned();
            return Err(Error::File {
                path: path(),
                reason,
            });
        };
        added.extend((0..count).map(token));
        if in_front.of_texts {
            let found = &tokenizer["post_processor"];
            let found = post_processor::with_virtual_tokens(found, first, count);
            tokenizer["post_processor"] = found.map_err(|reason| Error::File {
                path: path(),
                reason: format!("its post-processor cannot put virtual tokens in front: {reason}"),
            })?;
        }
        files.insert(TOKENIZER.to_owned(), to_text(&tokenizer));

        let path = self.folder.join(TOKENIZER_CONFIG);
        let written: String = (0..count).map(virtual_token).collect();
        if path.exists() {
            let mut config = read_json(&path)?;
            // Only older readers look there; newer ones write no such list.
            let names = config.get_mut("added_tokens_decoder");
            if let Some(names) = names.and_then(Value::as_object_mut) {
                for index in 0..count {
                    let mut token = json!({"content": virtual_token(index)});
                    merge(&mut token, &flags);
                    names.insert((first + index).to_string(), token);
                }
            }
            if in_front.of_conversations {
                match &mut config["chat_template"] {
                    Value::String(template) => *template = with_front(template, &written),
                    Value::Array(templates) => {
                        for template in templates {
                            if let Value::String(text) = &mut template["template"] {
                                *text = with_front(text, &written);
                            }
                        }
                    }
                    _ => {}
                }
            }
            if config["chat_template"].is_null() {
                config
                    .as_object_mut()
                    .map(|map| map.remove("chat_template"));
            }
            files.insert(TOKENIZER_CONFIG.to_owned(), to_text(&config));
        }
        if in_front.of_conversations {
            for name in self.template_files() {
                let text = burn_peft_files::read_to_string(&self.folder.join(&name))?;
                files.insert(name, with_front(&text, &written).into_bytes());
            }
        }

        let path = self.folder.join(GENERATION_CONFIG);
        let mut generation = match path.exists() {
            true => read_json(&path)?,
            false => json!({}),
        };
        let suppressed = generation["suppress_tokens"].as_array().cloned();
        let mut suppressed = suppressed.unwrap_or_default();
        suppressed.extend((0..count).map(|index| json!(first + index)));
        generation["suppress_tokens"] = json!(suppressed);
        files.insert(GENERATION_CONFIG.to_owned(), to_text(&generation));
        Ok(files)
    }

    /// The chat templates by their names, the one for every conversation under no name. Files go before
    /// `tokenizer_config.json`.
    pub(crate) fn chat_templates(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut templates = BTreeMap::new();
        for file in self.template_files() {
            let text = burn_peft_files::read_to_string(&self.folder.join(&file))?;
            let name = file.strip_prefix(&format!("{CHAT_TEMPLATES}/"));
            let name = name.map_or("", |name| name.trim_end_matches(".jinja"));
            templates.insert(name.to_owned(), text);
        }
        let path = self.folder.join(TOKENIZER_CONFIG);
        if templates.contains_key("") || !path.exists() {
            return Ok(templates);
        }
        match &mut read_json(&path)?["chat_template"] {
            Value::String(text) => {
                templates.insert(String::new(), std::mem::take(text));
            }
            Value::Array(named) => {
                for template in named {
                    let [name, text] = ["name", "template"].map(|key| template[key].as_str());
                    let name = name.filter(|name| *name != "default").unwrap_or_default();
                    templates.insert(name.to_owned(), text.unwrap_or_default().to_owned());
                }
            }
            _ => {}
        }
        Ok(templates)
    }

    /// A value of a JSON file of the folder; null where there is none.
    pub(crate) fn value(&self, file: &str, key: &str) -> Result<Value, Error> {
        let path = self.folder.join(file);
        match path.exists() {
            true => Ok(read_json(&path)?[key].take()),
            false => Ok(Value::Null),
        }
    }

    fn template_files(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.folder.join(CHAT_TEMPLATE).exists() {
            names.push(CHAT_TEMPLATE.to_owned());
        }
        let more = std::fs::read_dir(self.folder.join(CHAT_TEMPLATES));
        for entry in more.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".jinja") {
                names.push(format!("{CHAT_TEMPLATES}/{name}"));
            }
        }
        names
    }
}

/// A chat template that writes `text` first. The names have no quotes in them.
fn with_front(template: &str, text: &str) -> String {
    format!("{{{{ '{text}' }}}}{template}")
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let text = burn_peft_files::read_to_string(path)?;
    serde_json::from_str(&text).map_err(|error| Error::File {
        path: path.to_owned(),
        reason: format!("it is not JSON: {error}"),
    })
}

fn to_text(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
