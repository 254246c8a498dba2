//! The rows and the base of a run.

use anyhow::{Context, Result};
use burn_peft_data::{RowReader, Rows};
use burn_peft_train::{RunConfig, RunInputs};

use crate::{
    builtin::{self, Split},
    source::ModelSource,
};

/// The rows of a split of the run, if it has one; the built-in ones where it names no rows to train on. Rows that are
/// held out are still among those to train on.
pub(in crate::commands) fn rows(config: &RunConfig, split: Split) -> Result<Option<Rows>> {
    let reader = RowReader {
        columns: config.data.columns.as_ref(),
        task: None,
    };
    let path = match split {
        Split::Train => {
            return Ok(Some(match &config.data.train {
                Some(files) => files.read(&reader)?,
                None => builtin::rows(config.task.r#type.unwrap_or_default(), split)?,
            }));
        }
        Split::Valid => &config.data.valid,
        Split::Test => &config.data.test,
    };
    // Held-out rows take the place of the built-in ones.
    let is_split = split == Split::Valid && config.data.validation_split.is_some();
    match path {
        Some(path) => Ok(Some(reader.read(path)?)),
        None if config.data.train.is_none() && !is_split => {
            let task = config.task.r#type.unwrap_or_default();
            builtin::rows(task, split).map(Some)
        }
        None => Ok(None),
    }
}

pub(super) fn open(config: &RunConfig, source: &ModelSource) -> Result<RunInputs> {
    let train = rows(config, Split::Train)?.context("data.train is missing")?;
    let (train, held_out) = config.hold_out(train)?;
    Ok(RunInputs {
        train,
        valid: match held_out {
            Some(rows) => Some(rows),
            None => rows(config, Split::Valid)?,
        },
        test: rows(config, Split::Test)?,
        checkpoint: source.checkpoint()?,
        tokenizer: source.tokenizer()?,
        base_name: source.name(),
    })
}
