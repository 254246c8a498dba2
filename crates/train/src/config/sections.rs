//! `[model]`, `[data]`, `[train]` and `[output]`: their keys, and the defaults beside them.
//!
//! Where Hugging Face's `TrainingArguments` has the key, its name is theirs, and so is its default
//! unless a comment says otherwise ("HF" below).

use std::fmt;
use std::path::PathBuf;

use burn::tensor::DType;
use burn_peft_data::Template;
use serde::{Deserialize, Serialize};

use super::section::section;

section! {
    /// `[model]`: the frozen base.
    pub struct ModelConfig {
        /// A folder in Hugging Face layout or a hub id; absent: the built-in model.
        pub path: Option<String> = None,
        /// Branch, tag or commit of a hub id.
        pub revision: Option<String> = None,
        /// Element type in which the base is loaded; absent: bf16 on CUDA, f32 elsewhere.
        pub dtype: Option<BaseDtype> = None,
    }
}

/// Element types of the frozen base. What trains is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
}

impl BaseDtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// As it is written in run.toml and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl From<BaseDtype> for DType {
    fn from(dtype: BaseDtype) -> Self {
        match dtype {
            BaseDtype::F32 => Self::F32,
            BaseDtype::Bf16 => Self::BF16,
            BaseDtype::F16 => Self::F16,
        }
    }
}

section! {
    /// `[data]`: the files and how rows become batches.
    pub struct DataConfig {
        /// Training rows (JSON Lines); absent: the built-in task.
        pub train: Option<PathBuf> = None,
        /// Rows to evaluate on while training.
        pub valid: Option<PathBuf> = None,
        /// Rows to evaluate on once, after training.
        pub test: Option<PathBuf> = None,
        /// Tokens a row may have; longer ones are cut.
        // TRL's SFTConfig.
        pub max_length: usize = 1024,
        /// Pads the width of a batch to a multiple of this many tokens.
        // A few widths keep a GPU from tuning its kernels for every length; a CPU only pays for the padding.
        pub pad_to_multiple_of: Option<usize> = None,
        /// The order of a row's fields, and where virtual tokens stand between them; absent: in front.
        pub template: Option<Template> = None,
    }
}

section! {
    /// `[train]`: optimisation, logging and saving.
    ///
    /// A *step* is one optimizer update, over
    /// `per_device_train_batch_size · gradient_accumulation_steps` rows.
    pub struct TrainConfig {
        /// Rows of a micro-batch.
        // HF.
        pub per_device_train_batch_size: usize = 8,
        /// Rows of an evaluation batch.
        // HF.
        pub per_device_eval_batch_size: usize = 8,
        /// Micro-batches of a step.
        // HF.
        pub gradient_accumulation_steps: usize = 1,
        /// Passes over the training rows; a part of one is allowed.
        // HF.
        pub num_train_epochs: f64 = 3.0,
        /// Steps of the run, in place of `num_train_epochs`; -1: not set.
        // HF.
        pub max_steps: i64 = -1,
        /// The highest learning rate; absent: [`MethodConfig::default_learning_rate`](burn_peft::MethodConfig::default_learning_rate).
        // HF's 5e-5 is meant for full fine-tuning; prompts do not move at that rate (peft#2815).
        pub learning_rate: Option<f64> = None,
        /// The shape of the learning rate after the warm-up.
        // HF.
        pub lr_scheduler_type: LrSchedulerType = LrSchedulerType::Linear,
        /// Share of the run's steps over which the rate rises from 0.
        // HF.
        pub warmup_ratio: f64 = 0.0,
        /// Steps over which the rate rises from 0; above 0 it goes before `warmup_ratio`.
        // HF.
        pub warmup_steps: usize = 0,
        /// Weight decay: each step takes this times the learning rate off a parameter, whatever its
        /// gradient.
        // HF. AdamW's is decoupled by definition; Adafactor's is, too, in transformers.
        pub weight_decay: f64 = 0.0,
        /// Gradients are scaled down to this global norm; 0: they are not.
        // HF.
        pub max_grad_norm: f64 = 1.0,
        /// Decay of AdamW's first moment.
        // HF; Kingma & Ba 2015, algorithm 1.
        pub adam_beta1: f64 = 0.9,
        /// Decay of AdamW's second moment.
        // HF; Kingma & Ba 2015, algorithm 1.
        pub adam_beta2: f64 = 0.999,
        /// Added to the root of AdamW's second moment.
        // HF; Kingma & Ba 2015, algorithm 1. Burn's own default is 1e-5.
        pub adam_epsilon: f64 = 1e-8,
        /// Steps between two logged records, each the mean over them.
        // HF has 500: a run of an adapter is often shorter than that.
        pub logging_steps: usize = 10,
        /// Steps between two evaluations; absent: at the end of each epoch. The end of the run always has one.
        pub eval_steps: Option<usize> = None,
        /// Steps between two checkpoints. The end of the run always has one.
        // HF.
        pub save_steps: usize = 500,
        /// Checkpoints kept, the newest ones; absent: all.
        // HF.
        pub save_total_limit: Option<usize> = None,
        /// Seed of the adapter's start and of the order of the rows.
        // HF.
        pub seed: u64 = 42,
        /// Also writes texts for the held-out rows before and after, and scores them.
        // HF's Seq2SeqTrainingArguments. On a large model that takes longer than the losses.
        pub predict_with_generate: bool = false,
        /// Puts rows of like length into one batch.
        // HF.
        pub group_by_length: bool = false,
        /// Whether only each layer's input is kept for the backward pass and the layer is computed again
        /// there: `true`, `false`, or `"auto"`, where a step would not fit the memory otherwise.
        // HF has true and false. The gradients are the same up to rounding, so the choice is about memory only.
        pub gradient_checkpointing: GradientCheckpointing = GradientCheckpointing::Auto,
        /// The optimizer.
        // HF's default, by its short name.
        pub optim: OptimizerKind = OptimizerKind::AdamW,
    }
}

/// The shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedulerType {
    /// Straight down to 0 at the last step.
    Linear,
    /// Half a cosine down to 0 at the last step.
    Cosine,
    /// Stays.
    #[serde(alias = "constant_with_warmup")]
    Constant,
}

/// When layers are computed again in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BoolOrAuto", into = "BoolOrAuto")]
pub enum GradientCheckpointing {
    /// `true`.
    Always,
    /// `false`.
    Never,
    /// `"auto"`: where a step's estimate exceeds the memory; on a GPU, whose memory Burn does not tell, never.
    Auto,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"auto\"")]
enum BoolOrAuto {
    Bool(bool),
    Auto(Auto),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

impl From<BoolOrAuto> for GradientCheckpointing {
    fn from(written: BoolOrAuto) -> Self {
        match written {
            BoolOrAuto::Bool(true) => Self::Always,
            BoolOrAuto::Bool(false) => Self::Never,
            BoolOrAuto::Auto(Auto::Auto) => Self::Auto,
        }
    }
}

impl From<GradientCheckpointing> for BoolOrAuto {
    fn from(when: GradientCheckpointing) -> Self {
        match when {
            GradientCheckpointing::Always => Self::Bool(true),
            GradientCheckpointing::Never => Self::Bool(false),
            GradientCheckpointing::Auto => Self::Auto(Auto::Auto),
        }
    }
}

/// The optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    #[serde(alias = "adamw_torch")]
    AdamW,
    /// Adafactor with a given rate and no first moment (Shazeer & Stern 2018), as in Lester et al. 2021.
    // Its constants are the paper's and have no keys, as in HF.
    Adafactor,
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AdamW => "adamw",
            Self::Adafactor => "adafactor",
        })
    }
}

section! {
    /// `[output]`: where the run leaves its files.
    pub struct OutputConfig {
        /// The folder of the adapter, its checkpoints and its curves; absent: `runs/METHOD`, or
        /// whatever the one who starts the run chooses.
        pub dir: Option<PathBuf> = None,
    }
}
