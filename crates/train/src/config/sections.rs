//! The sections, and of `[model]`, `[data]` and `[output]` the keys with the defaults beside them.

use std::path::PathBuf;

use burn::tensor::DType;
use burn_peft::{MethodConfig, OptionDoc, options};
use burn_peft_data::{ColumnNames, Template};

use super::{DataFiles, ExcessLengthStrategy, Supervise, TaskConfig, TrainConfig, ValidationSplit};

/// The sections of run.toml.
pub const SECTIONS: [&str; 6] = ["model", "method", "task", "data", "train", "output"];

/// What there is to say about each key of a section, in the order in which they are declared. `[method]` has those
/// of `method`. `None` for an unknown section.
#[must_use]
pub fn options_of(section: &str, method: &MethodConfig) -> Option<Vec<OptionDoc>> {
    Some(match section {
        "model" => ModelConfig::options(),
        "method" => [vec![MethodConfig::type_option()], method.options()].concat(),
        "task" => TaskConfig::options(),
        "data" => DataConfig::options(),
        "train" => TrainConfig::options(),
        "output" => OutputConfig::options(),
        _ => return None,
    })
}

options! {
    /// `[model]`: the frozen base.
    pub struct ModelConfig {
        /// A folder in Hugging Face layout or a hub id.
        pub path: Option<String> = None,
            shown as "the built-in model";
        /// Branch, tag or commit of a hub id. Only beside `path`.
        pub revision: Option<String> = None,
            shown as "`\"main\"`";
        /// Element type in which the base is loaded. What trains is always f32.
        pub dtype: Option<BaseDtype> = None,
            shown as "`\"bf16\"` on CUDA, `\"f32\"` elsewhere";
    }
}

options! {
    /// Element types of the frozen base. What trains is always f32.
    pub enum BaseDtype {
        /// 32-bit floats.
        F32 = "f32",
        /// bfloat16.
        Bf16 = "bf16",
        /// 16-bit floats.
        F16 = "f16",
    }
}

impl BaseDtype {
    /// The type that is this one; `None` for types that a base is not loaded in by configuration.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| DType::from(*known) == dtype)
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

options! {
    /// `[data]`: the files, and how rows become batches.
    pub struct DataConfig {
        /// Rows to train on: a file of JSON, JSON lines, CSV or Parquet, or several, mixed by their weights.
        pub train: Option<DataFiles> = None,
            shown as "the built-in task";
        /// Rows to evaluate on while training.
        pub valid: Option<PathBuf> = None;
        /// Rows that are taken out of the training rows, by the seed, in place of `valid`.
        pub validation_split: Option<ValidationSplit> = None;
        /// Rows to score before and after training. Without them, `valid` is scored.
        pub test: Option<PathBuf> = None;
        /// Columns of the files that have names of their own: for a field of a row, the column that is it, as in
        /// `{ prompt = "frage", completion = "antwort" }`.
        pub columns: Option<ColumnNames> = None,
            shown as "columns are recognised by their names",
            kind "table";
        /// Tokens that a row may have.
        pub max_length: usize = 1024,
            source "TRL's `SFTConfig`";
        /// What becomes of a longer row.
        pub excess_length_strategy: ExcessLengthStrategy = ExcessLengthStrategy::Truncate,
            source "TRL. The key is axolotl's, which has `\"drop\"`";
        /// What is learned of a row.
        pub supervise: Supervise = Supervise::Assistant,
            source "TRL, where conversations are learned whole";
        /// Rounds the width of a batch up to a multiple of so many tokens, so that a GPU meets few shapes.
        // A few widths keep a GPU from tuning its kernels for every length; a CPU only pays for the padding.
        pub pad_to_multiple_of: Option<usize> = None;
        /// The order of a row's fields and of virtual tokens between them, as in
        /// `"{prompt:3} {input} {prompt:3} {completion}"`.
        pub template: Option<Template> = None,
            shown as "virtual tokens in front of the row",
            kind "text";
    }
}

options! {
    /// `[output]`: where the run leaves its files.
    pub struct OutputConfig {
        /// The folder of the adapter, its checkpoints and its curves.
        pub dir: Option<PathBuf> = None,
            shown as "`runs/METHOD`, or the first free of `runs/METHOD-2`, …";
    }
}
