//! The files of a run, as they are tokenised.

use burn_peft_data::{Example, IGNORE_INDEX, Rows, Task, tokenize_rows};
use serde::Serialize;

use super::{
    labels::{LabelCount, label_counts},
    lengths::Lengths,
    repeats::{Known, Repeats},
};
use crate::{
    RunInputs,
    run::{Cut, Ready, tokenize_options},
};

/// A file of rows, tokenised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileCheck {
    /// `train`, `valid` or `test`.
    pub split: &'static str,
    /// Its path.
    pub path: String,
    /// The format of its rows.
    pub format: String,
    /// The task that the rows are for.
    pub task: Task,
    /// Its rows.
    pub rows: usize,
    /// What they became: fewer where some are left out, more where long contexts are read in windows. 0 where they could
    /// not be tokenised.
    pub examples: usize,
    /// Rows that `max_length` cut.
    pub truncated: usize,
    /// Rows that it left out.
    pub dropped: usize,
    /// What that costs.
    pub lost: Option<Lost>,
    /// Tokens a row, virtual ones not counted.
    pub tokens: Option<Lengths>,
    /// Supervised tokens a row, of a task whose tokens have labels.
    pub supervised: Option<Lengths>,
    /// How often each class occurs.
    pub labels: Vec<LabelCount>,
    /// Rows in which nothing but the end of the text is learned.
    pub only_end: usize,
    /// Rows that occur twice.
    #[serde(flatten)]
    pub repeats: Repeats,
}

/// What a limit takes from rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Tokens that are not used.
    pub tokens: usize,
    /// Of so many.
    pub all_tokens: usize,
    /// Supervised tokens that are not learned.
    pub supervised: usize,
    /// Of so many.
    pub all_supervised: usize,
}

impl FileCheck {
    /// A file that is read and not tokenised.
    pub(super) fn of_rows(split: &'static str, rows: &Rows) -> Self {
        let formats: Vec<String> = rows.formats().iter().map(ToString::to_string).collect();
        Self {
            split,
            path: rows.path().to_owned(),
            format: formats.join(" and "),
            task: rows.task(),
            rows: rows.rows().len(),
            examples: 0,
            truncated: 0,
            dropped: 0,
            lost: None,
            tokens: None,
            supervised: None,
            labels: Vec::new(),
            only_end: 0,
            repeats: Repeats::default(),
        }
    }
}

/// The files that a run has.
pub(super) fn files(inputs: &RunInputs, ready: &Ready) -> Vec<FileCheck> {
    let rows = &ready.rows;
    let known = Known::of(&rows.train);
    let files = [
        ("train", Some(&inputs.train), Some(&rows.train)),
        ("valid", inputs.valid.as_ref(), rows.valid.as_ref()),
        ("test", inputs.test.as_ref(), rows.test.as_ref()),
    ];
    let files = files
        .into_iter()
        .filter_map(|(split, rows, examples)| Some((split, rows?, examples?)));
    let files = files.zip(&rows.cuts);
    files
        .map(|((split, file, examples), cut)| {
            let tokens = Lengths::of(examples.iter().map(Example::len));
            let supervised = supervised(examples);
            FileCheck {
                examples: examples.len(),
                truncated: cut.truncated,
                dropped: cut.dropped,
                lost: lost(
                    file,
                    ready,
                    *cut,
                    tokens.as_ref(),
                    supervised.as_ref(),
                    split,
                ),
                tokens,
                supervised,
                labels: label_counts(&rows.task, examples),
                only_end: only_end(examples, rows.tokenizer.eos_id()),
                repeats: Repeats::of(examples, (split != "train").then_some(&known)),
                ..FileCheck::of_rows(split, file)
            }
        })
        .collect()
}

/// Supervised tokens a row; `None` where rows have labels instead.
fn supervised(examples: &[Example]) -> Option<Lengths> {
    let count = |example: &Example| {
        let labels = example.labels.iter();
        labels.filter(|&&label| label != IGNORE_INDEX).count()
    };
    let of_rows = examples.iter().any(|example| example.row_label.is_some());
    (!of_rows)
        .then(|| Lengths::of(examples.iter().map(count)))
        .flatten()
}

/// Rows that learn the end of the text, and no text before it.
fn only_end(examples: &[Example], eos: Option<u32>) -> usize {
    let Some(eos) = eos else { return 0 };
    let is_end = |example: &&Example| {
        let mut labels = example
            .labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX);
        example.row_label.is_none()
            && labels.next() == Some(&i64::from(eos))
            && labels.next().is_none()
    };
    examples.iter().filter(is_end).count()
}

/// What `max_length` takes: the same rows without it are tokenised, and compared.
fn lost(
    file: &Rows,
    ready: &Ready,
    cut: Cut,
    tokens: Option<&Lengths>,
    supervised: Option<&Lengths>,
    split: &str,
) -> Option<Lost> {
    let rows = &ready.rows;
    // Contexts are not cut but read in windows.
    if cut.truncated + cut.dropped == 0 || rows.task.task == Task::Qa {
        return None;
    }
    let options = tokenize_options(&ready.config, &rows.task, None, split != "train");
    let whole = tokenize_rows(file, &rows.tokenizer, options, &mut |_, _| ()).ok()?;
    let total = |lengths: Option<&Lengths>| lengths.map_or(0, |lengths| lengths.total);
    let all_tokens = whole.examples.iter().map(Example::len).sum();
    let all_supervised = total(self::supervised(&whole.examples).as_ref());
    Some(Lost {
        tokens: all_tokens - total(tokens),
        all_tokens,
        supervised: all_supervised - total(supervised),
        all_supervised,
    })
}
