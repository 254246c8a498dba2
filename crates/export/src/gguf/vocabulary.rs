//! The tokenizer: tokens, merges, special tokens, chat templates.

use std::path::Path;

use burn_peft_data::{TextTokenizer, TokenEntry, TokenKind};
use serde_json::Value as Json;

use super::{
    cannot,
    file::{Header, Value},
    pre_tokenizer,
};
use crate::{Error, tokenizer::TokenizerFiles};

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The ends of a text that a file can name.
const ENDS: [&str; 3] = ["eos", "eot", "eom"];

/// Writes the tokenizer in `folder` to the header, for an embedding table of `rows` rows. Returns what its user has to
/// know, a sentence each.
///
/// # Errors
/// A tokenizer that llama.cpp does not have.
pub(super) fn describe(
    rows: usize,
    folder: &Path,
    virtual_tokens_first: bool,
    header: &mut Header,
) -> Result<Vec<String>, Error> {
    let files = TokenizerFiles::read(folder)?;
    let path = folder.join("tokenizer.json");
    let unlike = |what: &str| {
        cannot(
            &path,
            &format!("llama.cpp has no tokenizer like this one: {what}"),
        )
    };
    let pre = pre_tokenizer::name(files.json()).map_err(|what| unlike(&what))?;
    let tokenizer = TextTokenizer::load(folder)?;
    let entries = tokenizer.entries();
    if let Some(entry) = entries.last().filter(|entry| entry.id as usize >= rows) {
        let id = entry.id;
        return Err(unlike(&format!(
            "it has an id {id}, and the embedding table {rows} rows"
        )));
    }
    let (texts, kinds) = tokens(&entries, rows);
    header.set("tokenizer.ggml.model", Value::text("gpt2"));
    header.set("tokenizer.ggml.pre", Value::text(pre));
    header.set("tokenizer.ggml.tokens", Value::Texts(texts));
    header.set("tokenizer.ggml.token_type", Value::I32s(kinds));
    header.set("tokenizer.ggml.merges", Value::Texts(merges(files.json())));

    let facts = tokenizer.facts();
    let named_bos = facts.bos.and_then(|token| token.id);
    let named_bos = match named_bos {
        Some(id) => Some(id),
        None => id_in(&files.value("config.json", "bos_token_id")?),
    };
    let [before, after] = tokenizer.ids_around_text();
    let eos = facts.eos.and_then(|token| token.id);
    let (bos, adds_bos) = match before {
        [] => (named_bos, false),
        [id] => (Some(*id), !virtual_tokens_first),
        _ => {
            return Err(unlike(&format!(
                "it puts {} tokens in front of a text",
                before.len()
            )));
        }
    };
    let adds_eos = match after {
        [] => false,
        [id] if Some(*id) == eos => true,
        _ => return Err(unlike("it puts something else than an eos behind a text")),
    };
    header.set("tokenizer.ggml.add_bos_token", Value::Bool(adds_bos));
    header.set("tokenizer.ggml.add_eos_token", Value::Bool(adds_eos));
    let ids = |key: &str, id: Option<u32>| Some((key.to_owned(), id?));
    let mut ends: Vec<u32> = eos.into_iter().collect();
    let of_file = |name: &str| facts.ends.iter().find(|(file, _)| *file == name);
    let named = of_file("generation_config.json").or(of_file("config.json"));
    if let Some((_, named)) = named {
        ends.extend(named.iter().filter(|id| Some(**id) != eos));
    }
    let with_names = ENDS.iter().zip(&ends);
    let special = with_names
        .filter_map(|(name, id)| ids(name, Some(*id)))
        .chain(ids("bos", bos))
        .chain(ids("padding", facts.pad.and_then(|token| token.id)));
    for (name, id) in special {
        header.set(&format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
    }
    let suppressed = files.value("generation_config.json", "suppress_tokens")?;
    let suppressed: Vec<i32> = suppressed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|id| id.as_i64().map(|id| id as i32))
        .collect();
    if !suppressed.is_empty() {
        header.set("tokenizer.ggml.suppress_tokens", Value::I32s(suppressed));
    }
    chat_templates(&files, header)?;
    let mut notes = notes(&entries, &ends);
    if let (Some(id), true) = (before.first(), virtual_tokens_first) {
        notes.push(format!(
            "llama.cpp adds no `{}` to this model, because training had it behind the virtual tokens: write it there",
            tokenizer.piece(*id)
        ));
    }
    Ok(notes)
}

/// Text and kind of every row of the table. llama.cpp wants a text of its own for each.
fn tokens(entries: &[TokenEntry], rows: usize) -> (Vec<String>, Vec<i32>) {
    let mut texts: Vec<_> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; rows];
    for entry in entries {
        let id = entry.id as usize;
        texts[id].clone_from(&entry.text);
        kinds[id] = match entry.kind {
            TokenKind::Vocabulary => NORMAL,
            TokenKind::Added => USER_DEFINED,
            TokenKind::Special => CONTROL,
        };
    }
    (texts, kinds)
}

/// The merges, two tokens with a space between. Newer files have them as pairs.
fn merges(tokenizer: &Json) -> Vec<String> {
    let merges = tokenizer["model"]["merges"].as_array();
    let text = |merge: &Json| match merge {
        Json::Array(pair) => {
            let pair: Vec<&str> = pair.iter().filter_map(Json::as_str).collect();
            pair.join(" ")
        }
        one => one.as_str().unwrap_or_default().to_owned(),
    };
    merges.into_iter().flatten().map(text).collect()
}

fn id_in(value: &Json) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn chat_templates(files: &TokenizerFiles<'_>, header: &mut Header) -> Result<(), Error> {
    const KEY: &str = "tokenizer.chat_template";
    let templates = files.chat_templates()?;
    let names: Vec<_> = templates.keys().filter(|name| !name.is_empty()).collect();
    if !names.is_empty() {
        let names = names.into_iter().cloned().collect();
        header.set("tokenizer.chat_templates", Value::Texts(names));
    }
    for (name, text) in templates {
        let key = match name.as_str() {
            "" => KEY.to_owned(),
            name => format!("{KEY}.{name}"),
        };
        header.set(&key, Value::Text(text));
    }
    Ok(())
}

/// What of a tokenizer llama.cpp does otherwise.
fn notes(entries: &[TokenEntry], ends: &[u32]) -> Vec<String> {
    let mut notes = Vec::new();
    let looks_around = entries.iter().filter(|entry| entry.looks_around);
    let texts: Vec<_> = looks_around
        .map(|entry| format!("`{}`", entry.text))
        .collect();
    if !texts.is_empty() {
        notes.push(format!(
            "llama.cpp does not look at the white space beside {}",
            texts.join(", ")
        ));
    }
    if let Some(left) = ends.get(ENDS.len()..).filter(|left| !left.is_empty()) {
        notes.push(format!(
            "a GGUF file has no place for so many ends of a text; these are left out: {left:?}"
        ));
    }
    notes
}
