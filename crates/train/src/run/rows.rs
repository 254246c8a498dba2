//! From rows to batches.

use burn::{
    data::dataset::InMemDataset,
    tensor::{DType, backend::AutodiffBackend},
};
use burn_peft::{RateBasis, room_for_rows};
use burn_peft_data::{
    BatchOrder, Example, ExcessLength, IGNORE_INDEX, Mix, Padding, Rows, StepLoader, Targets, Task,
    Template, TextTokenizer, TokenizeOptions, Tokenized, tokenize_rows,
};
use burn_peft_decoder::DecoderConfig;

use super::{RunInputs, model::check_trains};
use crate::{
    Error, ExcessLengthStrategy, Method, Plan, Ranks, RunConfig, Stage, StepSize, Supervise,
    TaskSetup,
};

/// What a run computes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Type of the frozen base.
    pub(crate) dtype: DType,
    /// Bytes of memory, where that is known.
    pub(crate) memory: Option<u64>,
    /// Processes that share the run.
    pub(crate) ranks: usize,
}

/// The rows of a run, tokenised, and what follows from them before the base is read.
#[derive(Debug)]
pub(crate) struct RunRows {
    pub(crate) task: TaskSetup,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) train: Vec<Example>,
    /// How often an epoch has each of them.
    pub(crate) mix: Mix,
    pub(crate) valid: Option<Vec<Example>>,
    pub(crate) test: Option<Vec<Example>>,
    /// For each of these files that there is, in this order, its rows that `max_length` cut and left out.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) padding: Padding,
    /// The highest learning rate: the one of the configuration, or the method's for this base.
    pub(crate) learning_rate: f64,
    pub(crate) plan: Plan,
    /// Whether layers are computed again in the backward pass.
    pub(crate) recompute: bool,
    /// What decides a step's memory.
    pub(crate) size: StepSize,
}

/// The rows of a file that are longer than `max_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Those that were cut.
    pub(crate) truncated: usize,
    /// Those that were left out.
    pub(crate) dropped: usize,
}

impl RunRows {
    /// Checks the method and the task, and tokenises the rows. `notes` is told what became of them.
    pub(crate) fn read(
        method: &impl Method,
        config: &RunConfig,
        inputs: &RunInputs,
        machine: Machine,
        progress: &mut dyn FnMut(Stage, u64, u64),
        notes: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let Machine { dtype, memory, .. } = machine;
        let base = inputs.checkpoint.config();
        let limit = longest_row(method, config, base)?;
        let tokenizer = inputs.tokenizer.clone().for_table(base.vocab_size);
        if let Some(memory) = memory {
            // What the base leaves.
            let weights = base.num_parameters() * dtype.size();
            method.check_memory(base, memory.saturating_sub(weights as u64))?;
        }
        let task = TaskSetup::settle(&config.task, &inputs.train)?;
        let suited = two_digits(method.default_learning_rate(RateBasis {
            config: base,
            embedding_rms: inputs.checkpoint.embedding_rms()?,
            with_head: task.head_kind().is_some(),
        }));
        let learning_rate = config.train.learning_rate.unwrap_or(suited);
        let warnings = method.warnings().into_iter();
        for warning in warnings.chain(rate_warning(learning_rate, suited)) {
            notes(&format!("warning: {warning}"));
        }
        check_trains(method, &task, base)?;
        task.describe().iter().for_each(|text| notes(text));
        if config.train.head_learning_rate.is_some() && task.head_kind().is_none() {
            notes("warning: train.head_learning_rate has no effect: there is no head");
        }
        check_supervise(config, &task)?;
        let mut cuts = Vec::new();
        let mut tokenise = |rows: &Rows, scored: bool| -> Result<Tokenized, Error> {
            let longest = config.data.max_length.min(limit);
            let tokenize = tokenize_options(config, &task, Some(longest), scored);
            let tokenized = tokenize_rows(rows, &tokenizer, tokenize, &mut |done, all| {
                progress(Stage::Tokenising, done as u64, all as u64);
            })?;
            cuts.push(Cut {
                truncated: tokenized.truncated,
                dropped: tokenized.dropped,
            });
            describe(rows, &tokenized, tokenize.excess_length)
                .iter()
                .for_each(|text| notes(text));
            for note in &tokenized.notes {
                notes(&format!("warning: {note}"));
            }
            Ok(tokenized)
        };
        let tokenized = tokenise(&inputs.train, false)?;
        let mut tokenise = |rows: &Option<Rows>| {
            let rows = rows.as_ref().map(|rows| tokenise(rows, true));
            Ok::<_, Error>(rows.transpose()?.map(|tokenized| tokenized.examples))
        };
        let (valid, test) = (tokenise(&inputs.valid)?, tokenise(&inputs.test)?);
        let files = inputs.train.files().zip(&tokenized.files);
        let mix = Mix::new(files.map(|(file, tokenized)| (tokenized.examples, file.weight)));
        if !mix.is_once() {
            notes(&format!("an epoch has {} rows", mix.len()));
        }
        let train = tokenized.examples;
        let padding = Padding {
            multiple_of: config.data.pad_to_multiple_of,
            ..Padding::of(&tokenizer)
        };
        let valid_rows = valid.as_deref().unwrap_or_default();
        padding.check(longest(&train).max(longest(valid_rows)), limit)?;
        let size = StepSize {
            dtype,
            batch: config.train.per_device_train_batch_size.min(mix.len()),
            seq: longest(&train) + method.num_virtual_tokens(),
        };
        let checkpointing = config.train.gradient_checkpointing;
        Ok(Self {
            learning_rate,
            plan: Plan::of_ranks(&config.train, mix.len(), machine.ranks),
            recompute: checkpointing.decide(size, base, memory),
            task,
            tokenizer,
            train,
            mix,
            valid,
            test,
            cuts,
            padding,
            size,
        })
    }

    /// The rows that are scored before and after, if there are any.
    pub(crate) fn held_out(&self) -> Option<Vec<Example>> {
        let examples = self.test.as_ref().or(self.valid.as_ref())?;
        Some(comparable(self.task.task, examples))
    }
}

/// The rows as they are scored before and after.
pub(super) fn comparable(task: Task, examples: &[Example]) -> Vec<Example> {
    match task {
        Task::CausalLm => same_tokens(examples),
        _ => examples.to_vec(),
    }
}

/// The batches of every step, or of those of them that are this rank's.
pub(crate) fn step_loader<B: AutodiffBackend>(
    config: &RunConfig,
    examples: Vec<Example>,
    mix: Mix,
    padding: Padding,
    plan: Plan,
    ranks: &Ranks,
    device: &B::Device,
) -> Result<StepLoader<B>, Error> {
    let train = &config.train;
    let order = BatchOrder {
        group_by_length: train.group_by_length,
        ..BatchOrder::new(
            train.data_seed.unwrap_or(train.seed),
            train.per_device_train_batch_size,
            train
                .gradient_accumulation_steps
                .saturating_mul(ranks.size()),
        )
    };
    let dataset = InMemDataset::new(examples);
    let loader = StepLoader::new(dataset, order, padding, plan.total_steps, device.clone())?;
    Ok(loader.mixed(mix).share(ranks.rank(), ranks.size()))
}

/// Only texts to write have parts that are learned or not.
fn check_supervise(config: &RunConfig, task: &TaskSetup) -> Result<(), Error> {
    let supervise = config.data.supervise;
    match task.task {
        Task::CausalLm => Ok(()),
        _ if supervise == Supervise::Assistant => Ok(()),
        task => Err(Error::BadValue {
            place: String::new(),
            key: "data.supervise".into(),
            message: format!(
                "it is {:?}, which is for texts to write, and the task is {task}",
                supervise.name()
            ),
        }),
    }
}

/// How `[data]` has rows tokenised, to learn from or to score.
pub(crate) fn tokenize_options<'a>(
    config: &'a RunConfig,
    task: &'a TaskSetup,
    max_length: Option<usize>,
    scored: bool,
) -> TokenizeOptions<'a> {
    let targets = task.targets(scored);
    TokenizeOptions {
        max_length,
        template: config.data.template.as_ref(),
        supervise: config.data.supervise.into(),
        excess_length: excess_length(config, targets, scored),
        targets,
    }
}

/// What becomes of rows that are too long. Each row with labels that is scored has a prediction, so none is dropped.
fn excess_length(config: &RunConfig, targets: Targets<'_>, scored: bool) -> ExcessLength {
    match (config.data.excess_length_strategy, targets) {
        (ExcessLengthStrategy::Drop, Targets::Text) => ExcessLength::Drop,
        (ExcessLengthStrategy::Drop, _) if scored => ExcessLength::Truncate,
        (strategy, _) => strategy.into(),
    }
}

/// The most tokens that a row can have: virtual tokens take positions too.
fn longest_row(
    method: &impl Method,
    config: &RunConfig,
    base: &DecoderConfig,
) -> Result<usize, Error> {
    method.check_base(base)?;
    let tokens = method.num_virtual_tokens();
    let placed = config.data.template.as_ref();
    let placed = placed.map_or(0, Template::num_virtual_tokens);
    if placed != 0 && placed != tokens {
        let (name, reason) = (
            "num_virtual_tokens",
            format!("it is {tokens}, and the template places {placed}"),
        );
        return Err(burn_peft::Error::Option { name, reason }.into());
    }
    Ok(room_for_rows(tokens, base)?)
}

/// What is known of a rate far from the one that suits method and base.
fn rate_warning(rate: f64, suited: f64) -> Option<String> {
    // docs/results.md: Prefix Tuning diverges at ten times its best rate. PEFT's comparison on MetaMathQA has 34.3 % for
    // prompts at 1e-3 and 5.7 % at 1e-4, where the rate for that base is 6e-3.
    const TOO_HIGH: f64 = 10.0;
    const TOO_LOW: f64 = 1.0 / 20.0;
    let what = match rate / suited {
        times if times >= TOO_HIGH => "too high: training was seen to diverge at such rates",
        times if times <= TOO_LOW => "too low: adapters were seen to stay where they start",
        _ => return None,
    };
    Some(format!(
        "the learning rate {rate:e} is far from {suited:e}, which suits this method and base, and may be {what}"
    ))
}

/// A number that is short to read.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

/// Tokens of the longest row.
fn longest(examples: &[Example]) -> usize {
    examples.iter().map(Example::len).max().unwrap_or(0)
}

/// The rows without a label on their first token. Behind virtual tokens it can be predicted, by the base alone it
/// cannot, and scores before and after training are to be of the same tokens.
fn same_tokens(examples: &[Example]) -> Vec<Example> {
    let mut examples = examples.to_vec();
    for example in &mut examples {
        if let Some(first) = example.labels.first_mut() {
            *first = IGNORE_INDEX;
        }
    }
    examples
}

/// What became of the rows of each file.
fn describe(rows: &Rows, tokenized: &Tokenized, excess: ExcessLength) -> Vec<String> {
    let (mut rest, single) = (tokenized.examples.as_slice(), tokenized.files.len() == 1);
    let files = rows.files().zip(&tokenized.files);
    let texts = files.map(|(file, found)| {
        let (own, behind) = rest.split_at(found.examples);
        rest = behind;
        let (examples, all) = (found.examples, file.rows.len());
        let path = if single { rows.path() } else { file.path };
        let mut text = format!("{path}: ");
        text += &match examples > all {
            true => format!("{all} rows in {examples} windows"),
            false => format!("{examples} rows"),
        };
        if file.weight != 1.0 {
            text += &format!(" with weight {}", file.weight);
        }
        text += &format!(", longest row: {} tokens", longest(own));
        text += &match (excess, found.truncated, found.dropped) {
            (_, 0, 0) => String::new(),
            (ExcessLength::Drop, _, dropped) => {
                format!("; {dropped} dropped because they are longer than data.max_length")
            }
            (_, truncated, dropped) => format!(
                "; {truncated} cut to data.max_length, {dropped} dropped because no supervised token was left"
            ),
        };
        text
    });
    texts.collect()
}
