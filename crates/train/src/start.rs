//! The methods of `burn-peft` in a run: their number of virtual tokens and their initial values.

use std::path::Path;

use burn::{module::Module, tensor::backend::Backend};
use burn_peft::{AdapterPath, AnyAdapter, Head, InitTokens, MethodConfig, RateBasis, TokenCounts};
use burn_peft_data::{Template, TextTokenizer};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_format::{
    AdapterFolder, BaseIdentity, Landing, MethodOptions, adapter_from_folder, head_from_folder,
    method_options,
};
use burn_peft_ops::Ops;
use serde::Serialize;

use crate::{Error, Method, RunConfig, RunInputs, Start};

/// The configuration with the number of virtual tokens that the template, or the text or folder to start from,
/// decides.
pub(crate) fn settled(config: &RunConfig, tokenizer: &TextTokenizer) -> Result<RunConfig, Error> {
    let mut config = config.clone();
    let text = match (config.method.init_text(), config.method.init_from()) {
        // PEFT's tokenizer adds the BOS, too.
        (Some(text), _) => Some(tokenizer.encode_start(text)?.len()),
        (None, Some(dir)) => virtual_tokens_of(&AdapterFolder::load(dir.folder())?),
        (None, None) => None,
    };
    if let Some(dir) = config.method.init_from() {
        // The outputs of its head are in this order.
        let folder = AdapterFolder::load(dir.folder())?;
        let labels = folder.labels();
        if folder.head().is_some() && !labels.is_empty() {
            config.task.labels.get_or_insert(labels);
        }
    }
    let template = config.data.template.as_ref();
    let template = template.map(Template::num_virtual_tokens);
    config.method.settle_tokens(TokenCounts {
        template: template.filter(|tokens| *tokens > 0),
        text,
    })?;
    Ok(config)
}

/// Refuses an adapter to start from that cannot be used on this base, and returns what is to be said of one that
/// can.
pub(crate) fn check_init_from(
    config: &RunConfig,
    inputs: &RunInputs,
) -> Result<Vec<String>, Error> {
    let Some(start) = config.method.init_from() else {
        return Ok(Vec::new());
    };
    let dir = start.name();
    let output = config.output.dir.as_deref().map(Path::canonicalize);
    if let (Some(Ok(output)), Ok(start)) = (output, start.folder().canonicalize())
        && output == start
    {
        let reason = "it is the output folder, too; the run would write over what it starts from";
        return Err(Error::InitFrom {
            path: dir.to_owned(),
            reason: reason.into(),
        });
    }
    let (folder, base) = (AdapterFolder::load(start.folder())?, &inputs.checkpoint);
    folder.check(base.config(), dir)?;
    folder.check_values(dir)?;
    let mut notes = folder.config.notes();
    let fingerprint = match folder.config.base_fingerprint {
        Some(_) => Some(base.fingerprint()?),
        None => None,
    };
    notes.extend(folder.config.other_base(BaseIdentity {
        name: inputs.base_name.as_deref(),
        revision: config.model.revision.as_deref(),
        fingerprint,
    }));
    let named = |note| format!("method.init_from: {}: {note}", dir.display());
    Ok(notes.into_iter().map(named).collect())
}

fn virtual_tokens_of(folder: &AdapterFolder) -> Option<usize> {
    let tokens = folder.config.method.virtual_tokens()?;
    Some(tokens.num_virtual_tokens)
}

impl Method for MethodConfig {
    type Adapter<B: Backend> = AnyAdapter<B>;

    fn name(&self) -> &str {
        self.name()
    }

    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64 {
        self.default_learning_rate(base)
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens()
    }

    fn num_trainable(&self, base: &DecoderConfig) -> Option<usize> {
        Some(self.num_trainable(base))
    }

    fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        Ok(self.check_base(base)?)
    }

    fn check_memory(&self, base: &DecoderConfig, memory: u64) -> Result<(), Error> {
        Ok(self.check_memory(base, memory)?)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings()
    }

    /// New, or from an adapter folder.
    fn init<B: Ops>(&self, start: Start<'_, B>) -> Result<AnyAdapter<B>, Error> {
        let Start {
            base,
            tokenizer,
            seed,
        } = start;
        match self.init_from() {
            Some(start) => init_from(self, start, base),
            None => Ok(self.init(base, &init_tokens(self, tokenizer)?, seed)?),
        }
    }

    fn head<B: Ops>(&self, base: &Decoder<B>) -> Result<Option<Head<B>>, Error> {
        let Some(start) = self.init_from() else {
            return Ok(None);
        };
        let folder = AdapterFolder::load(start.folder())?;
        Ok(head_from_folder(
            &folder,
            base.config(),
            start.name(),
            &base.device(),
        )?)
    }

    fn describe(&self, landing: Landing<'_>, base_name: Option<&str>) -> MethodOptions {
        method_options(self, landing, base_name)
    }

    fn settings(&self, base: &DecoderConfig) -> impl Serialize {
        self.filled_in(base)
    }
}

fn init_tokens(method: &MethodConfig, tokenizer: &TextTokenizer) -> Result<InitTokens, Error> {
    let text_ids = match method.init_text() {
        Some(text) => tokenizer.encode_start(text)?,
        None => Vec::new(),
    };
    let labels = method.init_labels().iter();
    let label_ids = labels.map(|label| tokenizer.encode(label));
    Ok(InitTokens {
        text_ids,
        label_ids: label_ids.collect::<Result<_, _>>()?,
        known_ids: tokenizer.vocab_size(),
    })
}

/// The adapter of the folder `start`, which must be of the kind and the length that `method` trains.
fn init_from<B: Ops>(
    method: &MethodConfig,
    start: &AdapterPath,
    base: &Decoder<B>,
) -> Result<AnyAdapter<B>, Error> {
    let (folder, dir) = (AdapterFolder::load(start.folder())?, start.name());
    let found = adapter_from_folder(&folder, base.config(), dir, &base.device())?;
    let mismatch = |reason| Error::InitFrom {
        path: dir.to_owned(),
        reason,
    };
    if !method.trains(&found) {
        return Err(mismatch(format!(
            "it holds an adapter of {}, and this run trains {}",
            folder.config.method.name(),
            method.name()
        )));
    }
    let decided = method.decided_by_folder();
    let (own, asked) = (found.num_params(), method.num_trainable(base.config()));
    if !decided.is_empty() && own != asked {
        return Err(mismatch(format!(
            "it has {own} parameters, and with {} this run has {asked}; leave that out to train what the folder has",
            decided.join(" and ")
        )));
    }
    let asked = method.num_virtual_tokens();
    match virtual_tokens_of(&folder) {
        Some(own) if own != asked => Err(mismatch(format!(
            "it has {own} virtual tokens, and this run {asked}"
        ))),
        _ => Ok(found),
    }
}
