//! `run.toml`: one run as typed values.
//!
//! `sections`, `task` and `train` declare the keys and their defaults; those of `[method]` are declared beside the methods in
//! burn-peft. This file joins the sections and writes the resolved configuration back; `load` reads
//! files and `--set` overrides, `document` says where a fault stands, `validate` checks values.

mod data;
mod document;
mod hints;
mod load;
mod lr_scheduler;
mod report_to;
mod sections;
mod steps;
mod task;
mod train;
mod validate;

pub use data::{DataFile, DataFiles, ExcessLengthStrategy, Supervise, ValidationSplit};
pub use load::Override;
pub use lr_scheduler::{LrSchedulerKwargs, LrSchedulerType};
pub use report_to::ReportTo;
pub use sections::{BaseDtype, DataConfig, ModelConfig, OutputConfig, SECTIONS, options_of};
pub use steps::{IntervalStrategy, SaveStrategy, Steps};
pub use task::{TaskConfig, Verbalizer};
pub use train::{GradientCheckpointing, OptimizerKind, TrainConfig};

use burn_peft::MethodConfig;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Everything that decides a run; the sections of `run.toml`.
///
/// `RunConfig::default()` is the run without any file or flag: the built-in model and task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// The frozen base.
    pub model: ModelConfig,
    /// The fine-tuning method.
    pub method: MethodConfig,
    /// What is learned of the rows.
    pub task: TaskConfig,
    /// Files, and how rows become batches.
    pub data: DataConfig,
    /// Optimisation, logging and saving.
    pub train: TrainConfig,
    /// Where the run leaves its files.
    pub output: OutputConfig,
}

impl RunConfig {
    /// Where the run leaves its files: `[output] dir`, or `runs/METHOD`.
    pub fn output_dir(&self) -> PathBuf {
        match &self.output.dir {
            Some(dir) => dir.clone(),
            None => Path::new("runs").join(self.method.name()),
        }
    }

    /// The configuration as TOML, with every default that was filled in.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where a value does not fit TOML (a seed of 2^63 or more).
    pub fn to_toml(&self) -> Result<String, Error> {
        self.resolved().to_toml_of(&self.method)
    }

    /// The configuration as TOML, with `method` in place of its own `[method]`.
    pub(crate) fn to_toml_of(&self, method: &impl Serialize) -> Result<String, Error> {
        let file = RunFile {
            model: &self.model,
            method,
            task: &self.task,
            data: &self.data,
            train: &self.train,
            output: &self.output,
        };
        toml::to_string(&file).map_err(|error| Error::OutOfRange {
            place: String::new(),
            key: "run.toml".into(),
            value: "not representable".into(),
            expected: error.to_string(),
        })
    }

    /// The same run with the defaults that depend on other values filled in. Reading a file leaves
    /// them open: a folder that was not chosen may still be.
    fn resolved(&self) -> Self {
        let mut resolved = self.clone();
        resolved.output.dir = Some(self.output_dir());
        resolved
    }
}

/// What is written: [`RunConfig`] with the options of any method.
#[derive(Serialize)]
struct RunFile<'a, M> {
    model: &'a ModelConfig,
    method: &'a M,
    task: &'a TaskConfig,
    data: &'a DataConfig,
    train: &'a TrainConfig,
    output: &'a OutputConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &str) -> Result<RunConfig, Error> {
        RunConfig::load(None, &[Override::parse(set).unwrap()])
    }

    #[test]
    fn the_default_run_is_valid_and_survives_a_round_trip() {
        let config = RunConfig::load(None, &[]).unwrap();
        config.validate().unwrap();
        let again = RunConfig::parse(&config.to_toml().unwrap(), "run.toml", &[]).unwrap();
        assert_eq!(again, config.resolved());
        assert_eq!(again.train.learning_rate, None);
        assert_eq!(again.output_dir(), config.output_dir());
    }

    #[test]
    fn a_full_run_survives_a_round_trip() {
        let text = r#"
            [model]
            path = "Qwen/Qwen2.5-1.5B-Instruct"
            revision = "main"
            dtype = "bf16"
            [method]
            type = "prompt-tuning"
            num_virtual_tokens = 7
            prompt_tuning_init = "TEXT"
            prompt_tuning_init_text = "classify the \"text\""
            [data]
            train = "train.jsonl"
            valid = "valid.jsonl"
            pad_to_multiple_of = 64
            template = "{prompt:7} {input}\\n{completion}"
            [train]
            num_train_epochs = 1
            learning_rate = 3e-2
            lr_scheduler_type = "constant_with_warmup"
            warmup_steps = 5
            save_total_limit = 2
            eval_steps = 3
            [output]
            dir = "runs/x"
        "#;
        let config = RunConfig::parse(text, "run.toml", &[]).unwrap();
        assert_eq!(config.train.lr_scheduler_type, LrSchedulerType::Constant);
        assert_eq!(config.train.num_train_epochs, 1.0);
        assert_eq!(
            RunConfig::parse(&config.to_toml().unwrap(), "again", &[]).unwrap(),
            config
        );
    }

    #[test]
    fn values_out_of_range_are_refused_in_one_line_that_names_the_key() {
        for (set, key) in [
            (
                "train.per_device_train_batch_size=0",
                "train.per_device_train_batch_size is 0",
            ),
            ("train.learning_rate=-1e-3", "train.learning_rate is -0.001"),
            ("train.learning_rate=nan", "train.learning_rate is NaN"),
            ("train.warmup_ratio=1.5", "train.warmup_ratio is 1.5"),
            ("train.max_steps=0", "train.max_steps is 0"),
            ("train.adam_beta2=1.0", "train.adam_beta2 is 1"),
            ("train.logging_steps=0", "train.logging_steps is 0"),
            ("train.save_total_limit=0", "train.save_total_limit is 0"),
            ("method.num_virtual_tokens=0", "method.num_virtual_tokens: "),
            (
                "method.prompt_tuning_init=TEXT",
                "method.prompt_tuning_init_text: ",
            ),
            ("data.max_length=1", "data.max_length is 1"),
            (
                "data.template={prompt:3} {input}",
                "--set: data.template: template \"{prompt:3} {input}\", column 19: one of",
            ),
            (
                "data.template={promt:3}{completion}",
                "column 1: `{promt:3}` is no field",
            ),
            ("model.revision=main", "model.revision is main"),
        ] {
            let message = with(set).expect_err(set).to_string();
            assert!(message.contains(key), "{set}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn options_of_every_method_are_read_and_checked() {
        for (method, set, key) in [
            (
                "bitfit",
                "method.target_modules=[\"q_prj\"]",
                "method.target_modules",
            ),
            ("bitfit", "method.layers=[1]", "method.layers"),
            (
                "bitfit",
                "method.num_virtual_tokens=3",
                "has no key `num_virtual_tokens`",
            ),
            (
                "p-tuning",
                "method.encoder_dropout=1.0",
                "method.encoder_dropout",
            ),
            (
                "p-tuning",
                "method.encoder_num_layers=0",
                "method.encoder_num_layers",
            ),
            (
                "prefix-tuning",
                "method.init_weights=text",
                "method.prefix_init_text",
            ),
            (
                "prefix-tuning",
                "method.prefix_heads=all",
                "method.prefix_heads",
            ),
            (
                "p-tuning-v2",
                "method.prefix_dropout=-0.1",
                "method.prefix_dropout",
            ),
        ] {
            let overrides = [format!("method.type={method}"), set.to_owned()];
            let overrides = overrides.map(|text| Override::parse(&text).unwrap());
            let message = RunConfig::load(None, &overrides)
                .expect_err(set)
                .to_string();
            assert!(message.contains(key), "{set}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn every_method_survives_a_round_trip() {
        for name in MethodConfig::NAMES {
            let config = with(&format!("method.type={name}")).unwrap();
            assert_eq!(config.method.name(), *name);
            let again = RunConfig::parse(&config.to_toml().unwrap(), "run.toml", &[]).unwrap();
            assert_eq!(again, config.resolved());
        }
    }
}
