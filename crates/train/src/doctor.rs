//! A run, checked before it starts.
//!
//! [`check_run`] does what [`run`](crate::run) does up to its first steps, with the same functions, and keeps what they
//! found instead of saving anything. One failed check does not hide others that do not depend on it.

mod files;
mod labels;
mod lengths;
mod needs;
mod parts;
mod preview;
mod rehearsal;
mod repeats;
mod settings;

use std::path::PathBuf;

use burn::tensor::{DType, backend::AutodiffBackend};
use burn_peft_data::Task;
use burn_peft_ops::Ops;
use serde::Serialize;

use self::{
    files::files,
    preview::preview,
    settings::{warning_of_memory, warnings_of_rehearsal, warnings_of_rows, warnings_of_settings},
};
pub use self::{
    files::{FileCheck, Lost},
    labels::LabelCount,
    lengths::{Bar, Lengths},
    needs::{DiskNeed, MemoryCheck},
    parts::check_parts,
    preview::{PreviewRow, PreviewToken, Stretch},
    rehearsal::{Estimate, LongestBatch, Rehearsal},
    repeats::Repeats,
};
use crate::{
    Checkpoint, Error, RunConfig, RunInputs, Stage,
    run::{Machine, Ready, look},
    start::{check_init_from, settled},
};

/// Options of a check.
pub struct CheckOptions {
    /// Type of the frozen base.
    pub dtype: DType,
    /// Bytes of memory that the device has, where that is known.
    pub memory: Option<u64>,
    /// Whether the run is to go on from a checkpoint.
    pub resume: bool,
    /// Rows that are shown.
    pub rows: usize,
    /// Whether the base is read and steps are measured.
    pub measure: bool,
    /// Told of everything that takes a while, as in a run.
    pub progress: Box<dyn FnMut(Stage, u64, u64)>,
}

impl std::fmt::Debug for CheckOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckOptions")
            .field("dtype", &self.dtype)
            .field("memory", &self.memory)
            .field("resume", &self.resume)
            .field("rows", &self.rows)
            .field("measure", &self.measure)
            .finish_non_exhaustive()
    }
}

/// What a check found. What could not be found out is empty.
#[derive(Debug, Default, Serialize)]
pub struct RunCheck {
    /// Where the run would write.
    pub output_dir: Option<PathBuf>,
    /// What is learned.
    pub learning: Option<Learning>,
    /// The files, as they are tokenised: those to learn from, to evaluate on and to score, as far as there are any.
    pub files: Vec<FileCheck>,
    /// The first rows to learn from.
    pub preview: Vec<PreviewRow>,
    /// What a step takes of memory.
    pub memory: Option<MemoryCheck>,
    /// What the run leaves on the disk.
    pub disk: Option<DiskNeed>,
    /// The first steps.
    pub rehearsal: Option<Rehearsal>,
    /// What would make the run worse, a sentence each.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// What would keep it from starting.
    #[serde(skip)]
    pub errors: Vec<Error>,
}

/// What a run learns, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Learning {
    /// The task.
    pub task: Task,
    /// The task and its classes on a line; `None` of text to write.
    #[serde(skip)]
    pub task_line: Option<String>,
    /// The method.
    pub method: String,
    /// Virtual tokens of the adapter.
    pub virtual_tokens: usize,
    /// Parameters of the adapter. A head is not counted.
    pub adapter_params: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Whether the rate is the one that suits method and base, and not given.
    pub suited_rate: bool,
    /// The highest rate of the head, where there is one.
    pub head_learning_rate: Option<f64>,
    /// The optimizer.
    pub optim: String,
    /// Rows of a step.
    pub rows_per_step: usize,
    /// Steps of the run.
    pub total_steps: usize,
    /// Steps of one pass over the rows.
    pub steps_per_epoch: usize,
    /// Steps over which the rate rises.
    pub warmup_steps: usize,
    /// Steps that are done, of a run that goes on.
    pub done_steps: usize,
}

/// Checks a run as `config` says, without changing anything on the disk.
#[must_use]
pub fn check_run<B>(
    config: &RunConfig,
    inputs: &RunInputs,
    options: CheckOptions,
    device: &B::Device,
) -> RunCheck
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    let mut found = RunCheck::default();
    found.check::<B>(config, inputs, options, device);
    found
}

impl RunCheck {
    fn check<B>(
        &mut self,
        config: &RunConfig,
        inputs: &RunInputs,
        mut options: CheckOptions,
        device: &B::Device,
    ) where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let asked = config;
        let config = self.kept(settled(asked, &inputs.tokenizer));
        let config = config.as_ref().unwrap_or(asked);
        let method = &config.method;
        for warning in self
            .kept(check_init_from(config, inputs))
            .unwrap_or_default()
        {
            self.warnings.push(warning);
        }
        let dir = look(config.output.dir.as_deref(), method.name(), options.resume);
        self.output_dir = self.kept(dir);
        let resumed = self.resumed(options.resume);
        let machine = Machine {
            dtype: options.dtype,
            memory: options.memory,
            ranks: 1,
        };
        let mut notes = Vec::new();
        let ready = Ready::new::<B::InnerBackend>(
            method,
            config,
            inputs,
            self.output_dir.as_deref().unwrap_or("".as_ref()),
            resumed.as_ref(),
            machine,
            device,
            &mut options.progress,
            &mut |note| notes.push(note.to_owned()),
        );
        let warnings = notes
            .iter()
            .filter_map(|note| note.strip_prefix("warning: "));
        self.warnings.extend(warnings.map(str::to_owned));
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                let tokenizer = inputs.tokenizer.clone();
                let tokenizer = tokenizer.for_table(inputs.checkpoint.config().vocab_size);
                let files = [
                    ("train", Some(&inputs.train)),
                    ("valid", inputs.valid.as_ref()),
                    ("test", inputs.test.as_ref()),
                ];
                let files = files
                    .into_iter()
                    .filter_map(|(split, rows)| Some((split, rows?)));
                let files: Vec<_> = files.collect();
                self.error(error);
                self.check_rows(config, Some(&tokenizer), &files, options.rows);
                return;
            }
        };
        self.facts(asked, inputs, &ready, resumed.as_ref(), &options);
        self.warnings.extend(warnings_of_settings(&ready, inputs));
        self.warnings.extend(warnings_of_rows(&self.files, &ready));
        self.warnings
            .extend(self.memory.as_ref().and_then(warning_of_memory));
        if options.measure && self.errors.is_empty() {
            let rehearsal = rehearsal::rehearse::<B, _>(
                method,
                &inputs.checkpoint,
                &mut ready,
                resumed.as_ref(),
                device,
                &mut options.progress,
            );
            self.rehearsal = self.kept(rehearsal);
            let rehearsal = self.rehearsal.iter();
            let warnings = rehearsal.flat_map(|found| warnings_of_rehearsal(found, &ready));
            let warnings: Vec<String> = warnings.collect();
            self.warnings.extend(warnings);
        }
    }

    /// The value; an error is kept.
    fn kept<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.error(error)).ok()
    }

    /// Keeps an error. Two checks may stumble over the same.
    fn error(&mut self, error: Error) {
        let text = error.to_string();
        if self.errors.iter().all(|known| known.to_string() != text) {
            self.errors.push(error);
        }
    }

    /// The checkpoint to go on from.
    fn resumed(&mut self, resume: bool) -> Option<Checkpoint> {
        let dir = self.output_dir.clone().filter(|_| resume)?;
        let mut damaged = Vec::new();
        let newest = Checkpoint::newest(&dir, &mut |error| {
            damaged.push(format!("{error}; an older checkpoint is taken"));
        });
        self.warnings.extend(damaged);
        self.kept(newest)
    }

    fn facts(
        &mut self,
        asked: &RunConfig,
        inputs: &RunInputs,
        ready: &Ready,
        resumed: Option<&Checkpoint>,
        options: &CheckOptions,
    ) {
        let (rows, train, base) = (&ready.rows, &ready.config.train, inputs.checkpoint.config());
        let method = &ready.config.method;
        self.learning = Some(Learning {
            task: rows.task.task,
            task_line: rows.task.describe(),
            method: method.name().to_owned(),
            virtual_tokens: method.num_virtual_tokens(),
            adapter_params: method.num_trainable(base),
            learning_rate: rows.learning_rate,
            suited_rate: asked.train.learning_rate.is_none(),
            head_learning_rate: rows.task.head_kind().and(train.head_learning_rate),
            optim: train.optim.to_string(),
            rows_per_step: train.per_device_train_batch_size * train.gradient_accumulation_steps,
            total_steps: rows.plan.total_steps,
            steps_per_epoch: rows.plan.steps_per_epoch,
            warmup_steps: rows.plan.warmup_steps,
            done_steps: resumed.map_or(0, |saved| saved.state.step),
        });
        self.files = files(inputs, ready);
        self.preview = preview(
            &inputs.train,
            &rows.train,
            &rows.task,
            &rows.tokenizer,
            method.num_virtual_tokens(),
            options.rows,
        );
        self.memory = Some(MemoryCheck::new(
            rows.size,
            base,
            asked.train.gradient_checkpointing,
            rows.recompute,
            options.memory,
        ));
        let head = rows.task.head_kind();
        let head = head.map_or(0, |_| rows.task.outputs() * base.hidden_size);
        let parameters = method.num_trainable(base) + head;
        self.disk = Some(DiskNeed::new(train, rows.plan, parameters));
    }
}
