//! `[train]`: optimisation, logging and saving.
//!
//! Where transformers' `TrainingArguments` has the key, its name is theirs. Its default is, too, where the
//! source is "transformers".

use std::fmt;

use burn_peft::{Choice, OptionType, options};
use serde::{Deserialize, Serialize};

use super::{
    LrSchedulerKwargs, LrSchedulerType, ReportTo,
    steps::{IntervalStrategy, SaveStrategy, Steps},
};

options! {
    /// `[train]`: optimisation, logging and saving.
    ///
    /// A *step* is one update of the optimizer, over
    /// `per_device_train_batch_size · gradient_accumulation_steps` rows.
    pub struct TrainConfig {
        /// Rows of a micro-batch.
        pub per_device_train_batch_size: usize = 8,
            source "transformers";
        /// Rows of an evaluation batch.
        pub per_device_eval_batch_size: usize = 8,
            source "transformers";
        /// Micro-batches of a step.
        pub gradient_accumulation_steps: usize = 1,
            source "transformers";
        /// Passes over the training rows. May be a fraction.
        pub num_train_epochs: f64 = 3.0,
            source "transformers";
        /// Steps of the run, in place of `num_train_epochs`. -1 for none.
        pub max_steps: i64 = -1,
            source "transformers";
        /// The highest learning rate.
        // Prompts do not move at the rate of transformers (peft#2815).
        pub learning_rate: Option<f64> = None,
            shown as "what suits the method and the base",
            source "docs/methods/README.md. transformers has 5e-5, for whole models";
        /// The highest learning rate of a head. It rises and falls with `learning_rate`.
        pub head_learning_rate: Option<f64> = None,
            shown as "3e-3; for tags 1e-2; with linear-probe, `learning_rate`",
            source "docs/results.md. PEFT has one rate for all";
        /// The shape of the learning rate after the warm-up.
        pub lr_scheduler_type: LrSchedulerType = LrSchedulerType::Linear,
            source "transformers";
        /// Options of the shape, as in `{ min_lr_rate = 0.1 }`.
        pub lr_scheduler_kwargs: Option<LrSchedulerKwargs> = None,
            kind "table", source "transformers";
        /// Share of the run's steps over which the rate rises from 0.
        pub warmup_ratio: f64 = 0.0,
            source "transformers";
        /// Steps over which the rate rises from 0. Above 0 it goes before `warmup_ratio`.
        pub warmup_steps: Steps = Steps::Count(0),
            source "transformers";
        /// Each step takes this times the learning rate off a parameter, whatever its gradient.
        // AdamW's is decoupled by definition; Adafactor's is, too, in transformers.
        pub weight_decay: f64 = 0.0,
            source "transformers";
        /// The gradients are scaled down to this joint norm. 0 leaves them as they are.
        pub max_grad_norm: f64 = 1.0,
            source "transformers";
        /// Decay of AdamW's first moment.
        pub adam_beta1: f64 = 0.9,
            source "transformers; Kingma and Ba 2015, algorithm 1";
        /// Decay of AdamW's second moment.
        pub adam_beta2: f64 = 0.999,
            source "transformers; Kingma and Ba 2015, algorithm 1";
        /// A number added to the root of AdamW's second moment.
        // Burn's own default is 1e-5.
        pub adam_epsilon: f64 = 1e-8,
            source "transformers; Kingma and Ba 2015, algorithm 1";
        /// When records are logged.
        pub logging_strategy: IntervalStrategy = IntervalStrategy::Steps,
            source "transformers";
        /// Steps between two logged records. Each is the mean over them.
        pub logging_steps: Steps = Steps::Count(10),
            source "this project: adapters are often trained for fewer steps than the 500 of transformers";
        /// Whether the first step has a record of its own.
        pub logging_first_step: bool = false,
            source "transformers";
        /// When the validation rows are evaluated.
        pub eval_strategy: Option<IntervalStrategy> = None,
            shown as "`\"steps\"` where `eval_steps` is given, else `\"epoch\"`",
            source "this project. transformers has `\"no\"`";
        /// Steps between two evaluations. The end of the run always has one.
        pub eval_steps: Option<Steps> = None,
            shown as "the steps of an epoch; with `eval_strategy = \"steps\"`, `logging_steps`; with `load_best_model_at_end`, a given `save_steps`";
        /// The first evaluation is not before so many steps, or epochs with `eval_strategy = "epoch"`.
        pub eval_delay: f64 = 0.0,
            source "transformers";
        /// When checkpoints are saved. A run that is stopped always saves one.
        pub save_strategy: SaveStrategy = SaveStrategy::Steps,
            source "transformers";
        /// Steps between two checkpoints. The end of the run always has one.
        pub save_steps: Option<Steps> = None,
            shown as "500; with `load_best_model_at_end`, the steps between two evaluations",
            source "transformers";
        /// How many checkpoints are kept, the newest ones, and the best one with `load_best_model_at_end`.
        pub save_total_limit: Option<usize> = None,
            shown as "all",
            source "transformers";
        /// Whether the adapter of the best evaluation is the one that the run leaves, and not the last one. Its
        /// checkpoint is saved with the evaluation and never removed.
        pub load_best_model_at_end: bool = false,
            source "transformers";
        /// What makes an evaluation the best: `"loss"`, or another number that the evaluations report.
        pub metric_for_best_model: Option<String> = None,
            shown as "`\"loss\"`",
            source "transformers";
        /// Whether more of the metric is better.
        pub greater_is_better: Option<bool> = None,
            shown as "`false` for `perplexity` and where the metric's name ends in `loss`, else `true`",
            source "transformers";
        /// The run ends after so many evaluations in a row that are not better than the best one before.
        pub early_stopping_patience: Option<usize> = None,
            source "transformers (`EarlyStoppingCallback`)";
        /// By how much more than this an evaluation must be better for `early_stopping_patience` to count anew.
        pub early_stopping_threshold: f64 = 0.0,
            source "transformers (`EarlyStoppingCallback`)";
        /// Random seed: of the adapter's start, of the order of the rows, and of rows that are held out.
        pub seed: u64 = 42,
            source "transformers";
        /// Random seed of the order of the rows.
        pub data_seed: Option<u64> = None,
            shown as "`seed`",
            source "transformers";
        /// Whether texts are also generated and scored for the held-out rows, before and after.
        // On a large model that takes longer than the losses.
        pub predict_with_generate: bool = false,
            source "transformers (`Seq2SeqTrainingArguments`)";
        /// Whether rows of similar length are put into one batch.
        pub group_by_length: bool = false,
            source "transformers";
        /// Whether a step keeps only each layer's input and computes the layer again in the backward pass.
        // The gradients are the same up to rounding, so the choice is about memory only.
        pub gradient_checkpointing: GradientCheckpointing = GradientCheckpointing::Auto,
            source "this project. transformers has `true` and `false`";
        /// Programs that the curves are also written for, as one name or a list.
        pub report_to: ReportTo = ReportTo::default(),
            source "transformers";
        /// The optimizer.
        pub optim: OptimizerKind = OptimizerKind::AdamW,
            source "transformers, where it is `\"adamw_torch_fused\"`";
    }
}

/// Whether layers are computed again in the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BoolOrAuto", into = "BoolOrAuto")]
pub enum GradientCheckpointing {
    /// In every step.
    Always,
    /// In no step.
    Never,
    /// Where a step would not fit the memory otherwise. On a GPU, whose memory Burn does not tell, in no step.
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

impl From<bool> for GradientCheckpointing {
    fn from(always: bool) -> Self {
        match always {
            true => Self::Always,
            false => Self::Never,
        }
    }
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

impl OptionType for GradientCheckpointing {
    fn kind() -> String {
        "`true`, `false` or `\"auto\"`".into()
    }

    fn choices() -> Vec<Choice> {
        let help = "where a step would not fit the memory otherwise; on a GPU, whose memory Burn does not \
                    tell, in no step.";
        vec![Choice::new("auto", &[help])]
    }
}

options! {
    /// The optimizers.
    pub enum OptimizerKind {
        /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
        // Other programs' names for the same arithmetic in f32. Those with moments of 8 bits are not the same.
        AdamW = "adamw" | "adamw_torch" | "adamw_torch_fused" | "adamw_torch_xla" | "adamw_torch_npu_fused"
            | "adamw_apex_fused" | "adamw_hf" | "paged_adamw" | "paged_adamw_32bit",
        /// Adafactor with a given rate and no first moment (Shazeer and Stern 2018), as in Lester et al. 2021.
        // Its constants are the paper's and have no keys, as in transformers.
        Adafactor = "adafactor",
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
