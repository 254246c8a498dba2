use std::path::PathBuf;

use burn_peft::HeadKind;
use burn_peft_data::Task;

use crate::identity::Difference;

/// What can go wrong in a run. Messages are one line: where, what, and what to do.
///
/// `place` is `run.toml:7: ` or `--set: `, or empty where a value came from neither.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] burn_peft_files::Error),

    /// `run.toml` is not TOML.
    #[error("{place}{message}")]
    ConfigSyntax {
        /// File and line.
        place: String,
        /// What the parser expected.
        message: String,
    },

    /// A section that `run.toml` does not have.
    #[error("{place}there is no section [{name}]; {hint}")]
    UnknownSection {
        /// File and line, or flag.
        place: String,
        /// The name that was found.
        name: String,
        /// What to write in its place.
        hint: String,
    },

    /// A key that its section does not have.
    #[error("{place}{section} has no key `{key}`{}", behind(hint))]
    UnknownKey {
        /// File and line, or flag.
        place: String,
        /// The section, in brackets.
        section: String,
        /// The key that was found.
        key: String,
        /// What to write in its place; may be empty.
        hint: String,
    },

    /// A method that does not exist.
    #[error("{place}there is no method `{found}`; known: {known}")]
    UnknownMethod {
        /// File and line, or flag.
        place: String,
        /// The name that was found.
        found: String,
        /// The names that exist.
        known: String,
    },

    /// A value of the wrong type, or one that its method refuses.
    #[error("{place}{key}: {message}")]
    BadValue {
        /// File and line, or flag.
        place: String,
        /// `section.key`.
        key: String,
        /// What was found and what was expected.
        message: String,
    },

    /// A value of the right type that makes no sense.
    #[error("{place}{key} is {value}, expected {expected}")]
    OutOfRange {
        /// File and line, or flag.
        place: String,
        /// `section.key`.
        key: String,
        /// The value.
        value: String,
        /// What would do.
        expected: String,
    },

    /// An override that is not `section.key=value`.
    #[error("--set {text}: expected section.key=value, as in train.learning_rate=5e-3")]
    BadOverride {
        /// The text given.
        text: String,
    },

    /// Rows that are made for another task.
    #[error("{path}: these rows are for {found}, and the task is {task}")]
    OtherTask {
        /// The file.
        path: String,
        /// What they are made for.
        found: Task,
        /// What was asked for.
        task: Task,
    },

    /// An option of `[task]` that the task does not have.
    #[error("task.{option}: {task} has no such option")]
    NotOfTask {
        /// The option.
        option: &'static str,
        /// The task.
        task: Task,
    },

    /// A head to start from that is for something else.
    #[error(
        "method.init_from: its head, {kind:?} with {outputs} outputs, is not one for this run of {task}"
    )]
    OtherHead {
        /// The number of its outputs.
        outputs: usize,
        /// What it reads.
        kind: HeadKind,
        /// The task.
        task: Task,
    },

    /// A method that trains nothing, with a task that has no head.
    #[error(
        "method.type is {method}, which trains the head of a task alone, and there is no head: {why}"
    )]
    NothingTrains {
        /// The method.
        method: String,
        /// Why there is none.
        why: &'static str,
    },

    /// Rows without a prompt to go on from.
    #[error(
        "{path}: these rows have no prompt to go on from; rows with prompt and completion, or instruction and output, do"
    )]
    NoPrompts {
        /// The file.
        path: String,
    },

    /// `--resume` without anything to resume.
    #[error("{}: no complete checkpoint; leave out --resume to start from the beginning", dir.display())]
    NoCheckpoint {
        /// Where checkpoints were looked for.
        dir: PathBuf,
    },

    /// A new run into the folder of another.
    #[error(
        "{}: holds the checkpoints of a run; add --resume to go on with it, or choose another output folder",
        dir.display()
    )]
    OutputInUse {
        /// The folder of the checkpoints.
        dir: PathBuf,
    },

    /// `method.init_from` names a folder that this run cannot start from.
    #[error("method.init_from: {}: {reason}", path.display())]
    InitFrom {
        /// The folder.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },

    /// A checkpoint of another run.
    #[error(
        "{}: this would be another run: {}; give it what it had, or choose another output folder",
        path.display(),
        sentences(differences)
    )]
    ResumeMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// All that differs.
        differences: Vec<Difference>,
    },

    /// A part of a checkpoint that cannot be encoded or decoded.
    #[error("{}: {message}", path.display())]
    BadCheckpoint {
        /// The part.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// The checkpoint of the best evaluation, which the run is to end with, cannot be read.
    #[error(
        "the checkpoint of step {step}, the best so far, cannot be read: {reason}; \
         --resume --set train.load_best_model_at_end=false goes on without it"
    )]
    BestLost {
        /// Its step.
        step: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// A setting that can do nothing without evaluations, and no rows for them.
    #[error(
        "{key} needs validation rows, and there are none: give data.valid (--valid FILE) or data.validation_split"
    )]
    NoValidation {
        /// The setting.
        key: String,
    },

    /// The run diverged. The step's update was not applied.
    #[error(
        "the {what} of step {step} is {value} at learning rate {learning_rate:e}: \
         {advice}; {checkpoint}"
    )]
    NotFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The step, counted from 1.
        step: usize,
        /// Its learning rate.
        learning_rate: f64,
        /// What to do about it.
        advice: &'static str,
        /// What can be resumed.
        checkpoint: String,
    },

    /// Processes that cannot train together.
    #[error("rank {rank} (on {host}) differs from rank 0 in {what}: {found}, not {first}")]
    RanksDiffer {
        /// The process, counted from 0.
        rank: usize,
        /// Its machine.
        host: String,
        /// What it has another of.
        what: String,
        /// What the first process has.
        first: String,
        /// What it has.
        found: String,
    },

    /// The run was stopped before its first step.
    #[error("stopped before the first step; nothing is saved")]
    NotBegun,

    /// The training data ended before the run.
    #[error("the training data ended before step {step} of {total_steps}")]
    DataExhausted {
        /// The step without data, counted from 1.
        step: usize,
        /// Steps of the run.
        total_steps: usize,
    },

    /// Validation rows without a supervised token.
    #[error("data.valid has no supervised token: there is nothing to evaluate")]
    NothingToEvaluate,

    /// The base.
    #[error(transparent)]
    Model(#[from] burn_peft_decoder::Error),

    /// The method's options.
    #[error(transparent)]
    Method(#[from] burn_peft::Error),

    /// The rows or the tokenizer.
    #[error(transparent)]
    Data(#[from] burn_peft_data::Error),

    /// The adapter's folder.
    #[error(transparent)]
    Format(#[from] burn_peft_format::Error),
}

fn behind(hint: &str) -> String {
    match hint {
        "" => String::new(),
        hint => format!("; {hint}"),
    }
}

fn sentences(differences: &[Difference]) -> String {
    let sentences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}
