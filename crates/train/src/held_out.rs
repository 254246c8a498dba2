//! The scores of held-out rows: how likely they are, and how good the texts that a model writes for them.

use burn_peft::{Adapter, PeftModel};
use burn_peft_data::{Example, Padding, Rows, Template, TextTokenizer};
use burn_peft_ops::Ops;
use serde::Serialize;

use crate::{
    Error, Evaluation, Scored, TextScores, complete, evaluate, evaluate::eval_loader,
    prompts_and_references,
};

/// Texts that are kept to be shown.
const SAMPLES: usize = 3;

/// What takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the base, in bytes.
    Loading,
    /// Tokenising, in rows.
    Tokenising,
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
    /// Where virtual tokens stand in a prompt.
    pub template: Option<&'a Template>,
    /// The tokenizer of the model.
    pub tokenizer: &'a TextTokenizer,
    /// Ids that end a text.
    pub stop_ids: Vec<u32>,
    /// Rows computed at a time.
    pub batch_size: usize,
}

/// Scores of the held-out rows.
#[derive(Debug, Clone, Serialize)]
pub struct HeldOut {
    /// How likely the rows are.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// How good the texts are, where all were written.
    #[serde(flatten)]
    pub texts: Option<TextScores>,
    /// The first texts, where some were written.
    #[serde(skip)]
    pub samples: Vec<Scored>,
}

impl HeldOutRows<'_> {
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
        let all = self.examples.len() as u64;
        let padding = Padding::of(self.tokenizer);
        let device = model.base().device();
        let loader = eval_loader(self.examples.clone(), self.batch_size, padding, &device)?;
        let evaluation = evaluate(model, &loader, &mut |done| {
            progress(Stage::Evaluating, done as u64, all);
        });
        let mut rows = prompts_and_references(self.rows, self.template).unwrap_or_default();
        rows.truncate(match texts {
            Texts::None => 0,
            Texts::Samples => SAMPLES,
            Texts::Scored => usize::MAX,
        });
        let all = rows.len() as u64;
        let mut samples = complete(
            model,
            self.tokenizer,
            &rows,
            self.batch_size,
            &self.stop_ids,
            &mut |done| progress(Stage::Generating, done as u64, all),
        )?;
        let scores = (texts == Texts::Scored).then(|| TextScores::of(&samples));
        samples.truncate(SAMPLES);
        Ok(HeldOut {
            evaluation,
            texts: scores.flatten(),
            samples,
        })
    }
}
