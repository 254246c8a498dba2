//! Virtual tokens in the forms of vLLM and mlx-lm: what has to compute with the model.

use std::fs;

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use burn::tensor::{DType, backend::AutodiffBackend};
use burn_peft::{Adapter, PeftModel};
use burn_peft_data::Template;
use burn_peft_export::{CacheLayout, TorchType, save_prompt_cache, save_prompt_embeds};
use burn_peft_format::{AdapterFolder, Landing, adapter_from_folder};
use burn_peft_ops::Ops;
use burn_peft_train::left_padded;
use serde_json::json;

use super::{Args, Base, report};
use crate::{backend::Job, commands::shared::display, source};

/// The file that vLLM takes.
const EMBEDS_FILE: &str = "prompt_embeds.pt";
/// A request that has it in it.
const REQUEST_FILE: &str = "request.json";
/// The file that mlx-lm takes.
const CACHE_FILE: &str = "prompt_cache.safetensors";

/// `--to vllm`.
pub(super) fn vllm(args: &Args, folder: AdapterFolder) -> Result<()> {
    match folder.config.method.landing() {
        Landing::Prompt(_) => folder.prompt_table(&args.adapter).map(|_| ())?,
        Landing::Prefix(_) => bail!(
            "{}: vLLM takes embeddings, and this is keys and values; mlx-lm takes them, with --to mlx-cache",
            display(&args.adapter)
        ),
        Landing::Biases(_) => bail!(
            "{}: vLLM takes embeddings, and these are biases; it loads what --to checkpoint writes",
            display(&args.adapter)
        ),
    }
    folder.refuse_head("a bare prompt", &args.adapter)?;
    let base = args.base(&folder)?;
    refuse_full(args)?;
    args.compute.backend.run(VllmJob { args, folder, base })
}

/// `--to mlx-cache`.
pub(super) fn mlx_cache(args: &Args, folder: AdapterFolder) -> Result<()> {
    if folder.config.method.virtual_tokens().is_none() {
        bail!(
            "{}: its biases are no part of a prompt cache; mlx-lm loads what --to checkpoint writes",
            display(&args.adapter)
        );
    }
    folder.refuse_head("a prompt cache", &args.adapter)?;
    if let Some(template) = &folder.config.template
        && !is_in_front(template)?
    {
        bail!(
            "{}: a prompt cache stands in front of a text, and the virtual tokens stand elsewhere: {template:?}",
            display(&args.adapter)
        );
    }
    let base = args.base(&folder)?;
    refuse_full(args)?;
    args.compute.backend.run(CacheJob { args, folder, base })
}

/// Whether all virtual tokens of a template stand in front.
fn is_in_front(template: &str) -> Result<bool> {
    let template = Template::parse(template)?;
    Ok(template.is_in_front())
}

/// Refuses an output folder that has something in it, before anything is computed.
pub(super) fn refuse_full(args: &Args) -> Result<()> {
    let mut entries = match fs::read_dir(&args.output) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => bail!("{}: cannot be written: {error}", display(&args.output)),
    };
    if entries.next().is_some() {
        bail!(
            "{}: the folder is not empty; give one that is, or a new one",
            display(&args.output)
        );
    }
    Ok(())
}

struct VllmJob<'a> {
    args: &'a Args,
    folder: AdapterFolder,
    base: Base,
}

impl Job for VllmJob<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self { args, folder, base } = self;
        let table = folder.prompt_table(&args.adapter)?;
        let [tokens, width] = [table.shape()[0], table.shape()[1]];
        let mut values = table.values().to_vec();
        let mut rows = tokens;
        if let Some(text) = &args.prompt {
            let tokenizer = base.source.tokenizer()?;
            let tokenizer = tokenizer.for_table(base.checkpoint.config().vocab_size);
            let template = folder.config.template.as_deref().map(Template::parse);
            let prompt = match template.transpose()? {
                Some(template) => template
                    .prompt_ids_of_text(text, &tokenizer)
                    .context("--prompt")?,
                None => tokenizer.encode_start(text)?.into(),
            };
            let decoder = source::load::<B::InnerBackend>(&base.checkpoint, DType::F32, &device)?;
            let adapter = adapter_from_folder(&folder, decoder.config(), &args.adapter, &device)?;
            let row = left_padded(std::slice::from_ref(&prompt), &device);
            let row = PeftModel::new(decoder, adapter)
                .prepare(row)
                .row_embeddings();
            rows = row.dims()[0];
            values = row.into_data().iter::<f32>().collect();
        }
        let dtype = match DType::from(args.compute.dtype(None)) {
            DType::BF16 => TorchType::Bf16,
            _ => TorchType::F32,
        };
        let file = args.output_file(EMBEDS_FILE);
        save_prompt_embeds(&file, &values, [rows, width], dtype)?;
        let encoded = BASE64_STANDARD.encode(burn_peft_files::read(&file)?);
        let name = base.name();
        let request = match args.prompt {
            Some(_) => json!({"model": name, "prompt_embeds": encoded}),
            None => json!({"model": name, "messages": [{"role": "user", "content": [
                {"type": "prompt_embeds", "prompt_embeds": encoded},
                {"type": "text", "text": "…"},
            ]}]}),
        };
        let request_file = args.output_file(REQUEST_FILE);
        burn_peft_files::write(&request_file, format!("{request:#}\n").as_bytes())?;
        report(&file, &format!("a tensor [{rows}, {width}]"))?;
        let route = match args.prompt {
            Some(_) => "/v1/completions",
            None => "/v1/chat/completions",
        };
        report(
            &request_file,
            &format!("a request for {route} of `vllm serve --enable-prompt-embeds`"),
        )
    }
}

struct CacheJob<'a> {
    args: &'a Args,
    folder: AdapterFolder,
    base: Base,
}

impl Job for CacheJob<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self { args, folder, base } = self;
        let dtype: DType = args.compute.dtype(None).into();
        let decoder = source::load::<B::InnerBackend>(&base.checkpoint, dtype, &device)?;
        let config = decoder.config().clone();
        let adapter =
            adapter_from_folder::<B::InnerBackend>(&folder, &config, &args.adapter, &device)?;
        let layers = adapter.inject().keys_and_values(&decoder);
        let heads = layers.first().map_or(0, |layer| layer.key.dims()[0]);
        if heads != config.num_key_value_heads {
            bail!(
                "{}: its keys have {heads} heads, one for each query, and mlx-lm's cache has the model's {}",
                display(&args.adapter),
                config.num_key_value_heads
            );
        }
        let name = base.name();
        let layout = match args.old_layout {
            true => CacheLayout::V0_31,
            false => CacheLayout::V0_32,
        };
        let file = args.output_file(CACHE_FILE);
        save_prompt_cache(&file, &layers, name, layout)?;
        report(
            &file,
            "for `mlx_lm.generate --prompt-cache-file F --ignore-chat-template --prompt TEXT`, without --model",
        )
    }
}
