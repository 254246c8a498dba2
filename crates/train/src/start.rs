//! What trains, before the first step: how long it is, and what it starts from.

use std::path::Path;

use burn_peft::{AnyAdapter, InitTokens, TokenCounts};
use burn_peft_data::{Template, TextTokenizer};
use burn_peft_decoder::Decoder;
use burn_peft_format::{AdapterFolder, adapter_from_folder};
use burn_peft_ops::Ops;

use crate::{Error, RunConfig};

/// The configuration with the number of virtual tokens that template, and text or folder to start from,
/// settle.
pub(crate) fn settled(config: &RunConfig, tokenizer: &TextTokenizer) -> Result<RunConfig, Error> {
    let mut config = config.clone();
    let text = match (config.method.init_text(), config.method.init_from()) {
        (Some(text), _) => Some(tokenizer.encode(text)?.len()),
        (None, Some(dir)) => virtual_tokens_of(&AdapterFolder::load(Path::new(dir))?),
        (None, None) => None,
    };
    config.method.settle_tokens(TokenCounts {
        template: config
            .data
            .template
            .as_ref()
            .map(Template::num_virtual_tokens)
            .filter(|tokens| *tokens > 0),
        text,
    })?;
    Ok(config)
}

fn virtual_tokens_of(folder: &AdapterFolder) -> Option<usize> {
    let tokens = folder.config.method.virtual_tokens()?;
    Some(tokens.num_virtual_tokens)
}

/// What trains, before the first step: new, or from an adapter folder.
pub(crate) fn init_adapter<B: Ops>(
    config: &RunConfig,
    tokenizer: &TextTokenizer,
    base: &Decoder<B>,
) -> Result<AnyAdapter<B>, Error> {
    let encode = |text: &String| tokenizer.encode(text);
    let tokens = InitTokens {
        text_ids: match config.method.init_text() {
            Some(text) => tokenizer.encode(text)?,
            None => Vec::new(),
        },
        label_ids: config
            .method
            .init_labels()
            .iter()
            .map(encode)
            .collect::<Result<_, _>>()?,
        known_ids: tokenizer.vocab_size(),
    };
    let new = config.method.init(base, &tokens, config.train.seed)?;
    let Some(dir) = config.method.init_from().map(Path::new) else {
        return Ok(new);
    };
    let folder = AdapterFolder::load(dir)?;
    let found = adapter_from_folder(&folder, base.config(), dir, &base.device())?;
    let mismatch = |reason| Error::InitFrom {
        path: dir.to_owned(),
        reason,
    };
    if std::mem::discriminant(&found) != std::mem::discriminant(&new) {
        return Err(mismatch(format!(
            "it holds an adapter of {}, and this run trains {}",
            folder.config.method.name(),
            config.method.name()
        )));
    }
    let asked = config.method.num_virtual_tokens();
    match virtual_tokens_of(&folder) {
        Some(own) if own != asked => Err(mismatch(format!(
            "it has {own} virtual tokens, and this run {asked}"
        ))),
        _ => Ok(found),
    }
}
