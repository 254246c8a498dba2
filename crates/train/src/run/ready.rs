//! A run before its base is read.

use std::path::Path;

use burn::tensor::backend::Backend;

use super::{
    Machine, RunInputs, RunRows,
    resolve::{Known, identity, resolve},
    validation::{check_has_rows, check_metric},
};
use crate::{Checkpoint, Error, Method, RunConfig, RunIdentity, Stage};

/// A run of which everything is known and checked that can be before the base's weights are read. A run and its check
/// beforehand both begin with this, so the second sees what the first will do.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The configuration with every value that the run uses.
    pub(crate) config: RunConfig,
    /// Which run it is.
    pub(crate) identity: RunIdentity,
    pub(crate) rows: RunRows,
}

impl Ready {
    /// Reads the rows for a run that writes to `output_dir`, and goes on from `resume`. `notes` is told what became of
    /// the rows, and what the run may differ in from the one that it goes on with.
    #[expect(
        clippy::too_many_arguments,
        reason = "a run has that many parts, and two callers"
    )]
    pub(crate) fn new<B: Backend>(
        method: &impl Method,
        config: &RunConfig,
        inputs: &RunInputs,
        output_dir: &Path,
        resume: Option<&Checkpoint>,
        machine: Machine,
        device: &B::Device,
        progress: &mut dyn FnMut(Stage, u64, u64),
        notes: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        check_has_rows(config, inputs.valid.as_ref())?;
        let rows = RunRows::read(method, config, inputs, machine, progress, notes)?;
        if let Some(valid) = &inputs.valid {
            check_metric(config, &rows.task, valid)?;
        }
        if config.train.early_stopping_patience.is_some() && !config.train.load_best_model_at_end {
            notes(
                "warning: early stopping without train.load_best_model_at_end: the adapter will be the last one, not the best",
            );
        }
        let known = Known {
            dtype: machine.dtype,
            base: inputs.checkpoint.config(),
            learning_rate: rows.learning_rate,
            head: rows.task.head_kind(),
            plan: rows.plan,
            recompute: rows.recompute,
            ranks: machine.ranks,
            train: &rows.train,
            mix: &rows.mix,
            valid: rows.valid.as_deref(),
        };
        let mut config = resolve(config, method, known);
        config.task = rows.task.config.clone();
        config.output.dir = Some(output_dir.to_owned());
        let identity = identity::<B>(&config, method, inputs, known, device)?;
        if let Some(saved) = resume {
            notes(&format!(
                "resuming at step {} of {}",
                saved.state.step,
                saved.path.display()
            ));
            saved
                .check_run(&identity, &rows.plan)?
                .iter()
                .for_each(|note| notes(note));
        }
        Ok(Self {
            config,
            identity,
            rows,
        })
    }
}
