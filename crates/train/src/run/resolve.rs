//! What a run comes to: every value of its configuration, and which run it is.

use burn::tensor::{DType, backend::Backend};

use super::RunInputs;
use crate::{
    BaseDtype, Error, GradientCheckpointing, IntervalStrategy, Method, Plan, RunConfig,
    RunIdentity, SaveStrategy, Steps,
    identity::{checksum_of_mixed, checksum_of_rows},
    intervals::Intervals,
    strategy::BestRule,
};
use burn_peft::HeadKind;
use burn_peft_data::{Example, Message, Mix, TextTokenizer};
use burn_peft_decoder::DecoderConfig;
use burn_peft_files::Checksum;

/// The learning rate of a head beside an adapter. docs/results.md: the best of three for classes of rows, and a better one for
/// tags. For questions none was searched for.
fn head_learning_rate(kind: HeadKind) -> f64 {
    match kind {
        HeadKind::Sequence | HeadKind::Span => 3e-3,
        HeadKind::Token => 1e-2,
    }
}

/// What is known once the rows are tokenised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Type of the frozen base.
    pub(super) dtype: DType,
    pub(super) base: &'a DecoderConfig,
    pub(super) plan: Plan,
    /// The highest learning rate.
    pub(super) learning_rate: f64,
    /// What the head tells, where there is one.
    pub(super) head: Option<HeadKind>,
    /// Whether layers are computed again in the backward pass.
    pub(super) recompute: bool,
    /// Processes that share the run.
    pub(super) ranks: usize,
    pub(super) train: &'a [Example],
    pub(super) mix: &'a Mix,
    pub(super) valid: Option<&'a [Example]>,
}

/// The configuration with every value that the run uses.
pub(super) fn resolve(config: &RunConfig, method: &impl Method, known: Known<'_>) -> RunConfig {
    let mut config = config.clone();
    config.model.dtype = BaseDtype::of(known.dtype);
    let train = &mut config.train;
    train.gradient_checkpointing = GradientCheckpointing::from(known.recompute);
    let rate = *train.learning_rate.insert(known.learning_rate);
    if let Some(kind) = known.head {
        let alone = method.num_trainable(known.base) == Some(0);
        let default = match alone {
            true => rate,
            false => head_learning_rate(kind),
        };
        train.head_learning_rate.get_or_insert(default);
    }
    let [eval_steps, save_steps] = Intervals::new(train, &known.plan).eval_and_save_steps();
    let counts = matches!(train.eval_strategy, None | Some(IntervalStrategy::Steps));
    if known.valid.is_some() && counts {
        train.eval_steps = train.eval_steps.or(eval_steps.map(Steps::Count));
    }
    if train.save_strategy == SaveStrategy::Steps {
        train.save_steps = train.save_steps.or(save_steps.map(Steps::Count));
    }
    if train.needs_evaluations().is_some() {
        let rule = BestRule::new(train);
        train.greater_is_better = Some(rule.greater_is_better());
        train.metric_for_best_model = Some(rule.metric().to_owned());
    }
    config
}

/// A checksum of what the chat template makes of a short conversation; empty where there is none.
fn checksum_of_chat(tokenizer: &TextTokenizer) -> String {
    let messages = [Message::new("user", "a"), Message::new("assistant", "b")];
    let rendered = tokenizer.render_chat(&messages, true);
    rendered.map_or_else(
        |_| String::new(),
        |text| Checksum::of(text.as_bytes()).to_string(),
    )
}

/// Which run it is.
///
/// # Errors
/// A configuration that does not fit TOML, or weights that cannot be read.
pub(super) fn identity<B: Backend>(
    config: &RunConfig,
    method: &impl Method,
    inputs: &RunInputs,
    known: Known<'_>,
    device: &B::Device,
) -> Result<RunIdentity, Error> {
    Ok(RunIdentity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: B::name(device),
        base_fingerprint: inputs.checkpoint.fingerprint()?.to_string(),
        chat_template: checksum_of_chat(&inputs.tokenizer),
        train_rows: checksum_of_mixed(known.train, known.mix),
        valid_rows: known.valid.map_or_else(String::new, checksum_of_rows),
        ranks: known.ranks,
        config: config.to_toml_of(&method.settings(inputs.checkpoint.config()))?,
    })
}
