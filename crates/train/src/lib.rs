//! Training and evaluation: loss, step, run configuration, and the learning strategy that plugs into
//! burn-train.
//!
//! [`RunConfig`] reads `run.toml`, and [`run`] does what it says, from rows to an adapter folder. [`run_method`] does
//! the same for a [`Method`] of your own. Underneath, [`Plan`] does the arithmetic of a run, and [`fit`] trains a model
//! step by step with burn-train's `Learner`, logs, evaluates, saves, and goes on from a [`Checkpoint`].
//!
//! # What it is not
//! It does not parse arguments or choose a backend, and its loop ([`fit`]) knows nothing of language models or
//! adapters: it trains whatever reports an [`LmOutput`].
//!
//! # The one decision
//! Everything counts optimizer *steps*. An item of the training loader is all the micro-batches of
//! one step, and the model returns their gradients already averaged over tokens. burn-train's own
//! strategies count epochs and micro-batches, and so cannot save or resume inside an epoch, step the
//! learning rate once an update, or average over tokens. With the data a pure function of the step
//! number, a run resumed at step N is the uninterrupted run, bit for bit on the same machine.
//!
//! # Example
//! ```
//! use burn_peft_train::{Override, Plan, RunConfig};
//!
//! # fn main() -> Result<(), burn_peft_train::Error> {
//! let text = "[train]\nper_device_train_batch_size = 4\nnum_train_epochs = 2\n";
//! let config = RunConfig::parse(text, "run.toml", &[Override::parse("train.seed=7")?])?;
//! let plan = Plan::new(&config.train, 10);
//! assert_eq!((plan.steps_per_epoch, plan.total_steps), (3, 6));
//!
//! let typo = RunConfig::parse("[train]\nlearnig_rate = 1e-3\n", "run.toml", &[]).unwrap_err();
//! assert_eq!(
//!     typo.to_string(),
//!     "run.toml:2: [train] has no key `learnig_rate`; did you mean `learning_rate`?",
//! );
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod bench;
mod checkpoint;
mod comparison;
mod complete;
mod config;
mod doctor;
mod error;
mod evaluate;
mod find_lr;
mod fit;
mod held_out;
mod identity;
mod intervals;
mod loss;
mod memory;
mod method;
mod metrics;
mod optimizer;
mod plan;
mod predictions;
mod ranks;
mod record;
mod render;
mod run;
mod schedule;
mod scoring;
mod start;
mod step;
mod stop;
mod strategy;
mod task;
mod tensorboard;
mod verbalizer;

pub use bench::{SyntheticBatch, time_decoding, time_steps};
pub use burn_train::Interrupter;
pub use checkpoint::{BestEval, Checkpoint, TrainerState};
pub use comparison::{ScoreLine, comparison};
pub use complete::{PromptRow, complete, left_padded, prompts_and_references, stop_ids};
pub use config::{
    BaseDtype, DataConfig, DataFile, DataFiles, ExcessLengthStrategy, GradientCheckpointing,
    IntervalStrategy, LrSchedulerKwargs, LrSchedulerType, ModelConfig, OptimizerKind, OutputConfig,
    Override, ReportTo, RunConfig, SECTIONS, SaveStrategy, Steps, Supervise, TaskConfig,
    TrainConfig, ValidationSplit, Verbalizer, options_of,
};
pub use doctor::{
    Bar, CheckOptions, DiskNeed, Estimate, FileCheck, LabelCount, Learning, Lengths, LongestBatch,
    Lost, MemoryCheck, PreviewRow, PreviewToken, Rehearsal, Repeats, RunCheck, Stretch,
    check_parts, check_run,
};
pub use error::Error;
pub use evaluate::{Evaluation, ExampleLoss, Logits, evaluate};
pub use find_lr::{LrCurve, LrPoint, find_lr};
pub use fit::{EvalScores, FitOptions, Scorer, TrainData, ValidData, Validation, fit};
pub use held_out::{HeldOut, HeldOutRows, Stage, Texts};
pub use identity::{Difference, RunIdentity};
pub use loss::{Losses, injected_losses, losses};
pub use memory::StepSize;
pub use method::{Method, Start};
pub use metrics::LmOutput;
pub use optimizer::{AnyOptimizer, RunOptimizer, clip_grad_norm, init_optimizer};
pub use plan::Plan;
pub use predictions::{Predicted, Prediction};
#[cfg(feature = "mpi")]
pub use ranks::join_mpi;
pub use ranks::{Group, Ranks};
pub use record::{EvalRecord, JsonLines, LogRecord, Observer, TrainRecord};
pub use render::RendererChoice;
pub use run::{RUN_FILE, RunInputs, RunOptions, RunReport, run, run_method};
pub use schedule::Schedule;
pub use scoring::{
    Answer, AnswerOptions, AnswerScores, AnswerWindow, ClassScores, ConfusionMatrix,
    MultiLabelScores, RegressionScores, Scored, SpanScore, SpanScores, TaskScores, TextScores,
    best_answer,
};
pub use step::{StepSeed, Trainee};
pub use stop::{Stop, Stopping};
pub use strategy::FitSummary;
pub use task::TaskSetup;
