//! The scores of held-out rows: how likely they are, and how good the texts that a model writes for them.

use std::{ops::Range, time::Instant};

use burn_peft::{Adapter, PeftModel};
use burn_peft_data::{Example, Padding, Rows, Task, Template, TextTokenizer};
use burn_peft_files::Checksum;
use burn_peft_ops::Ops;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Evaluation, ExampleLoss, Predicted, Prediction, Ranks, Scored, TaskScores, TaskSetup,
    TextScores,
    complete::{complete_until, prompts_of},
    evaluate::{eval_loader, evaluate_until},
    identity::checksum_of_rows,
    predictions::{predictions, sample_of, scores_of},
    prompts_and_references,
    verbalizer::word_predictions,
};

/// Texts that are written to be shown. They take time.
const SAMPLES: usize = 3;

/// Predictions of a head that are kept to be shown.
const SHOWN_PREDICTIONS: usize = 8;

/// Batches whose rows are sorted by length together before they are computed. More waste less padding, fewer give the
/// first results earlier.
const BATCHES_AT_ONCE: usize = 32;

/// What takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the base, in bytes.
    Loading,
    /// Tokenising, in rows.
    Tokenising,
    /// Looking for a learning rate, in steps.
    Training,
    /// Scoring the held-out rows, in rows.
    Evaluating,
    /// Writing texts for the held-out rows, in rows.
    Generating,
}

/// Which texts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// None.
    None,
    /// The first few, to be shown.
    Samples,
    /// One for each row, and all are scored.
    Scored,
}

/// Rows to be scored with any model.
#[derive(Debug)]
pub struct HeldOutRows<'a> {
    /// The rows.
    pub rows: &'a Rows,
    /// The rows, tokenised.
    pub examples: Vec<Example>,
    /// What is learned of them.
    pub task: &'a TaskSetup,
    /// Where virtual tokens stand in a prompt.
    pub template: Option<&'a Template>,
    /// The tokenizer of the model.
    pub tokenizer: &'a TextTokenizer,
    /// Ids that end a text.
    pub stop_ids: Vec<u32>,
    /// Rows computed at a time.
    pub batch_size: usize,
    /// Tokens that a row may have, where fewer than the model has room for.
    pub max_length: Option<usize>,
    /// The processes among which the rows are dealt out. All get all scores, which are those of one process.
    pub ranks: Ranks,
}

/// Scores of the held-out rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldOut {
    /// How likely the rows are.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// How good the predictions are, of a task that has any.
    #[serde(flatten)]
    pub scores: Option<TaskScores>,
    /// How good the texts are, where all were written.
    #[serde(flatten)]
    pub texts: Option<TextScores>,
    /// The first rows with what the model says of them.
    #[serde(skip)]
    pub samples: Vec<Scored>,
    /// The texts that were written, in the order of the rows: all, or the first few.
    #[serde(skip)]
    pub completions: Vec<Scored>,
    /// Wall time of the evaluation alone, in seconds.
    #[serde(skip)]
    pub eval_seconds: f64,
}

impl HeldOutRows<'_> {
    /// A checksum of the rows, as they are and as they are tokenised.
    pub fn checksum(&self) -> String {
        let rows = self.rows.rows().iter();
        let rows = rows.map(|(_, row)| Checksum::of(format!("{row:?}").as_bytes()).to_string());
        let all = rows.chain([checksum_of_rows(&self.examples)]);
        Checksum::of(all.collect::<String>().as_bytes()).to_string()
    }

    /// Scores the rows with `model`. `progress` is called with what is being done, how much of it is done, and of how
    /// much.
    ///
    /// # Errors
    /// A batch size of 0, a text that cannot be tokenised, or a row that lacks a field of the template.
    pub fn score<B: Ops, A: Adapter<B>>(
        &self,
        model: &PeftModel<B, A>,
        texts: Texts,
        progress: &mut dyn FnMut(Stage, u64, u64),
    ) -> Result<HeldOut, Error> {
        let found = self.score_until(model, texts, progress, &|| false)?;
        Ok(found.unwrap_or_else(|| unreachable!("nothing stops it")))
    }

    /// [`score`](Self::score); `None` where `stop` said so before all of it was done.
    pub(crate) fn score_until<B: Ops, A: Adapter<B>>(
        &self,
        model: &PeftModel<B, A>,
        texts: Texts,
        progress: &mut dyn FnMut(Stage, u64, u64),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<HeldOut>, Error> {
        let began = Instant::now();
        let progress_of_rows = &mut |done, all| progress(Stage::Evaluating, done, all);
        let all = 0..self.examples.len();
        let Some(evaluation) = self.evaluate(model, all, progress_of_rows, stop)? else {
            return Ok(None);
        };
        let mut found = HeldOut {
            evaluation,
            scores: None,
            texts: None,
            samples: Vec::new(),
            completions: Vec::new(),
            eval_seconds: began.elapsed().as_secs_f64(),
        };
        if self.task.task != Task::CausalLm {
            let rows = 0..self.rows.rows().len();
            let losses = &found.evaluation.per_example;
            let predicted = self.predictions(model, rows, 0..self.examples.len(), losses)?;
            found.scores = scores_of(self.task, self.rows.rows(), &predicted);
            let shown = self.rows.rows().iter().zip(&predicted);
            let shown = shown.take(SHOWN_PREDICTIONS);
            found.samples = shown
                .map(|((_, row), predicted)| sample_of(self.task, row, predicted))
                .collect();
            return Ok(Some(found));
        }
        let mut rows = prompts_and_references(self.rows, self.template).unwrap_or_default();
        rows.truncate(match texts {
            Texts::None => 0,
            Texts::Samples => SAMPLES,
            Texts::Scored => usize::MAX,
        });
        let all = rows.len() as u64;
        let completions = complete_until(
            model,
            self.tokenizer,
            &rows,
            self.batch_size,
            &self.stop_ids,
            &self.ranks,
            &mut |done| progress(Stage::Generating, done as u64, all),
            stop,
        )?;
        let Some(completions) = completions else {
            return Ok(None);
        };
        found.completions = completions;
        found.texts = (texts == Texts::Scored)
            .then(|| TextScores::of(&found.completions))
            .flatten();
        found.samples = found.completions.iter().take(SAMPLES).cloned().collect();
        Ok(Some(found))
    }

    /// Calls `each` with what the model says of each row, in their order, some batches at a time.
    ///
    /// # Errors
    /// What `each` returns, and as [`score`](Self::score).
    pub fn predict<B: Ops, A: Adapter<B>, E: From<Error>>(
        &self,
        model: &PeftModel<B, A>,
        each: &mut dyn FnMut(Predicted) -> Result<(), E>,
    ) -> Result<(), E> {
        let all = self.rows.rows().len();
        let mut examples = 0;
        for first in (0..all).step_by(BATCHES_AT_ONCE * self.batch_size.max(1)) {
            let rows = first..all.min(first + BATCHES_AT_ONCE * self.batch_size.max(1));
            let rest = &self.examples[examples..];
            let own = rest.partition_point(|example| example.row < rows.end);
            let own = examples..examples + own;
            examples = own.end;
            let found = match self.task.head_kind() {
                Some(_) => {
                    let found = self.evaluate(model, own.clone(), &mut |_, _| (), &|| false)?;
                    found.map_or_else(Vec::new, |found| found.per_example)
                }
                None => Vec::new(),
            };
            for predicted in self.predictions(model, rows, own, &found)? {
                each(predicted)?;
            }
        }
        Ok(())
    }

    /// How likely some of the examples are; `None` where it was stopped.
    pub(crate) fn evaluate<B: Ops, A: Adapter<B>>(
        &self,
        model: &PeftModel<B, A>,
        examples: Range<usize>,
        progress: &mut dyn FnMut(u64, u64),
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Evaluation>, Error> {
        let all = examples.len() as u64;
        let padding = Padding::of(self.tokenizer);
        let device = model.base().device();
        let examples = self.examples[examples].to_vec();
        let loader = eval_loader(examples, self.batch_size, padding, &device)?;
        let progress = &mut |done| progress(done as u64, all);
        Ok(evaluate_until(model, &loader, &self.ranks, progress, stop))
    }

    /// What the model says of some rows, whose examples and their losses are given.
    fn predictions<B: Ops, A: Adapter<B>>(
        &self,
        model: &PeftModel<B, A>,
        rows: Range<usize>,
        examples: Range<usize>,
        found: &[ExampleLoss],
    ) -> Result<Vec<Predicted>, Error> {
        if self.task.words.is_some() {
            return word_predictions(self, model, &self.rows.part(rows));
        }
        let first = rows.start;
        let rows = &self.rows.rows()[rows];
        if self.task.head_kind().is_some() {
            let examples = &self.examples[examples];
            return Ok(predictions(self.task, rows, first, examples, found));
        }
        let rows = prompts_of(rows, self.template).ok_or_else(|| Error::NoPrompts {
            path: self.rows.path().to_owned(),
        })?;
        let (tokenizer, stop_ids) = (self.tokenizer, &self.stop_ids);
        let texts = complete_until(
            model,
            tokenizer,
            &rows,
            self.batch_size,
            stop_ids,
            &self.ranks,
            &mut |_| (),
            &|| false,
        )?;
        let predicted = texts.into_iter().flatten().map(|scored| Predicted {
            prediction: Prediction::Text(scored.text),
            scores: Value::Null,
        });
        Ok(predicted.collect())
    }
}
