//! The hidden states of a prepared batch: those that predict cells, and those at cells.

use burn::tensor::{Int, Tensor, TensorData, backend::AutodiffBackend, backend::Backend};
use burn_peft_decoder::{Decoder, KvCache, Past, Recording};
use burn_peft_ops::Ops;

use crate::{Prepared, lead::Lead, prepared::Front};

/// The hidden states that predict some cells of a batch.
#[derive(Debug, Clone)]
pub struct Predictors<B: Backend> {
    /// The cells, of the row-major `[batch, seq]` of the batch as it was given.
    pub cells: Vec<usize>,
    /// The state after the last norm that predicts each, `[cells, d_model]`.
    pub hidden: Tensor<B, 2>,
}

/// A forward pass that kept only each layer's input, and computes the layers again for its gradient.
#[derive(Debug)]
pub struct Recorded<B: AutodiffBackend> {
    recording: Recording<B>,
    leaf: Tensor<B, 2>,
}

impl<B> Recorded<B>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    /// Carries on the gradients of a loss on the states of this pass: the gradients of all that was tracked
    /// before the pass.
    ///
    /// # Panics
    /// If the loss does not depend on the states.
    #[must_use]
    pub fn backward(self, loss: &B::Gradients) -> B::Gradients {
        let gradient = self.leaf.grad(loss);
        let gradient = gradient.expect("the loss depends on the states");
        self.recording.backward(gradient).backward()
    }
}

/// What predicts a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Predictor {
    /// A cell of the prepared batch, row-major.
    Cell(usize),
    /// The last token of a prompt that is not among the cells.
    Prompt,
}

/// What the decoder is asked for, so that every cell gets its predictor.
struct Question {
    /// The batch's own cells that something stands in front of.
    cells: Vec<usize>,
    /// For each, its predictor.
    predictors: Vec<Predictor>,
    /// What the decoder reads: the predicting cells and, if the prompt runs beside the rows and predicts something,
    /// its last token after them. At least one.
    read: Vec<usize>,
}

impl<B: Ops> Prepared<B> {
    /// The base that computes, with the adapter's biases where it has some.
    #[must_use]
    pub fn base(&self) -> &Decoder<B> {
        &self.base
    }

    /// The states that predict `cells`, of the row-major `[batch, seq]` of the batch as it was given, in
    /// ascending order. A cell is predicted by the last token in front of it: a real one, or a virtual one (as in
    /// PEFT). Those that nothing stands in front of are left out; `None` if none is left.
    #[must_use]
    pub fn predictors(&self, cells: &[usize]) -> Option<Predictors<B>> {
        let question = self.ask(cells)?;
        let mut cache = self.cache();
        let past = self.past(&mut cache);
        let hidden = self
            .base
            .decode(self.hidden.clone(), &self.mask, past, Some(&question.read));
        Some(self.answer(question, hidden))
    }

    /// The states after the last norm at `cells`, of the row-major `[batch, seq]` of the batch as it was given:
    /// `[cells, d_model]`. A head reads these; PEFT's heads read the cells of virtual tokens too, and take the wrong
    /// ones under padding (peft#764, peft#1974).
    ///
    /// # Panics
    /// If there are no cells.
    #[must_use]
    pub fn states(&self, cells: &[usize]) -> Tensor<B, 2> {
        let mut cache = self.cache();
        let past = self.past(&mut cache);
        self.base.decode(
            self.hidden.clone(),
            &self.mask,
            past,
            Some(&self.own(cells)),
        )
    }

    /// What a single row is to the decoder, `[tokens, d_model]`: the embeddings of its real tokens and, of a prompt, of the
    /// virtual ones among them.
    ///
    /// # Panics
    /// If there are several rows: these share a prompt that stands in front.
    #[must_use]
    pub fn row_embeddings(&self) -> Tensor<B, 2> {
        self.hidden.clone().squeeze_dim(0)
    }

    /// Where the batch's own cells are in the prepared batch, row-major.
    fn own(&self, cells: &[usize]) -> Vec<usize> {
        assert!(!cells.is_empty(), "states are asked for at some cells");
        let own_seq = self.cells.len() / self.mask.batch().max(1);
        let cells = cells.iter();
        cells
            .map(|cell| cell / own_seq * self.mask.seq() + self.cells[*cell])
            .collect()
    }

    /// Row-major `[batch, seq]`: the cell of [`hidden_states`](Self::hidden_states) that each of the batch's own
    /// cells went to.
    #[must_use]
    pub fn cells(&self) -> &[usize] {
        &self.cells
    }

    /// Hidden states after the last norm of every cell, those of virtual tokens among the rows included:
    /// `[batch, new_seq, d_model]`.
    #[must_use]
    pub fn hidden_states(&self) -> Tensor<B, 3> {
        let [batch, seq, d_model] = self.hidden.dims();
        let cells: Vec<usize> = (0..batch * seq).collect();
        let mut cache = self.cache();
        let past = self.past(&mut cache);
        let hidden = self.hidden.clone();
        let states = self.base.decode(hidden, &self.mask, past, Some(&cells));
        states.reshape([batch, seq, d_model])
    }

    /// Hidden state of the last token of each row, `[batch, d_model]`, and the cache of everything before the next
    /// one: where generation goes on.
    ///
    /// # Panics
    /// If a row has no token.
    #[must_use]
    pub fn generation_start(self) -> (Tensor<B, 2>, KvCache<B>) {
        let prepared = match self.front.clone() {
            // A prompt beside the rows leaves no cache behind, so it runs first.
            Front::Prompt(prompt) => {
                let lead = Lead::of(&self.base, prompt);
                self.with_lead(lead)
            }
            _ => self,
        };
        let mut cache = prepared.cache();
        let (mask, hidden) = (&prepared.mask, prepared.hidden);
        let last = mask.last_tokens().into_iter().enumerate();
        let cells: Vec<usize> = last.map(|(row, cell)| row * mask.seq() + cell).collect();
        let last = prepared.base.decode(hidden, mask, &mut cache, Some(&cells));
        (last, cache)
    }

    fn cache(&self) -> KvCache<B> {
        match &self.front {
            Front::Cache(cache) | Front::Lead { cache, .. } => cache.clone(),
            Front::Prompt(_) => KvCache::empty(self.base.config().num_hidden_layers, 0),
        }
    }

    fn past<'a>(&self, cache: &'a mut KvCache<B>) -> Past<'a, B> {
        match &self.front {
            Front::Prompt(prompt) => Past::Prompt(prompt.clone()),
            Front::Cache(_) | Front::Lead { .. } => Past::Cache(cache),
        }
    }

    fn ask(&self, cells: &[usize]) -> Option<Question> {
        let prompt = !matches!(self.front, Front::Cache(_));
        let before = predictors(self, prompt);
        let found = cells.iter().filter_map(|&cell| Some((cell, before[cell]?)));
        let (cells, predictors): (Vec<_>, Vec<_>) = found.unzip();
        let mut read: Vec<usize> = predictors
            .iter()
            .filter_map(|predictor| match predictor {
                Predictor::Cell(cell) => Some(*cell),
                Predictor::Prompt => None,
            })
            .collect();
        if let Front::Prompt(prompt) = &self.front
            && predictors.contains(&Predictor::Prompt)
        {
            read.push(self.mask.batch() * self.mask.seq() + prompt.dims()[0] - 1);
        }
        if read.is_empty() {
            // A prompt that has run predicts everything, and not every backend has tensors without rows.
            read.push(0);
        }
        (!cells.is_empty()).then_some(Question {
            cells,
            predictors,
            read,
        })
    }

    /// Gives each cell its predictor, of the states of [`Question::read`].
    fn answer(&self, question: Question, hidden: Tensor<B, 2>) -> Predictors<B> {
        let Question {
            cells, predictors, ..
        } = question;
        if !predictors.contains(&Predictor::Prompt) {
            return Predictors { cells, hidden };
        }
        let all = match &self.front {
            Front::Lead { last, .. } => Tensor::cat(vec![hidden, last.clone()], 0),
            Front::Cache(_) | Front::Prompt(_) => hidden,
        };
        let prompt = all.dims()[0] as i64 - 1;
        let mut next = 0..prompt;
        let rows: Vec<i64> = predictors
            .iter()
            .map(|predictor| match predictor {
                Predictor::Cell(_) => next.next().expect("a state for each cell"),
                Predictor::Prompt => prompt,
            })
            .collect();
        let rows = TensorData::new(rows, [cells.len()]);
        let rows = Tensor::<B, 1, Int>::from_data(rows, &all.device());
        Predictors {
            cells,
            hidden: all.select(0, rows),
        }
    }
}

impl<B> Prepared<B>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    /// [`predictors`](Self::predictors) without a graph; the gradient is computed layer by layer
    /// ([`Recorded::backward`]), which takes less memory and more time.
    ///
    /// # Panics
    /// If the batch was prepared by a model whose prompt has run already ([`Injected`](crate::Injected)).
    #[must_use]
    pub fn record_predictors(&self, cells: &[usize]) -> Option<(Predictors<B>, Recorded<B>)> {
        let question = self.ask(cells)?;
        let (hidden, recorded) = self.record(&question.read);
        Some((self.answer(question, hidden), recorded))
    }

    /// [`states`](Self::states) without a graph, as [`record_predictors`](Self::record_predictors).
    ///
    /// # Panics
    /// As both of them.
    #[must_use]
    pub fn record_states(&self, cells: &[usize]) -> (Tensor<B, 2>, Recorded<B>) {
        self.record(&self.own(cells))
    }

    fn record(&self, read: &[usize]) -> (Tensor<B, 2>, Recorded<B>) {
        assert!(
            !matches!(self.front, Front::Lead { .. }),
            "a recorded pass is of one batch: prepare it with `PeftModel::prepare`"
        );
        let mut cache = self.cache();
        let past = self.past(&mut cache);
        let recording = self
            .base
            .record(self.hidden.clone(), &self.mask, past, read);
        let leaf = recording.leaf();
        (leaf.clone(), Recorded { recording, leaf })
    }
}

/// For each of the batch's own cells, row-major, what predicts it. `prompt`: in front of the rows is a prompt
/// that is not among the cells.
fn predictors<B: Backend>(prepared: &Prepared<B>, prompt: bool) -> Vec<Option<Predictor>> {
    let Prepared { mask, cells, .. } = prepared;
    of_cells(mask.batch(), mask.seq(), |row| mask.row(row), cells, prompt)
}

/// See [`predictors`]; `is_token` gives the cells of a row that hold tokens.
fn of_cells<'a>(
    batch: usize,
    seq: usize,
    is_token: impl Fn(usize) -> &'a [bool],
    cells: &[usize],
    prompt: bool,
) -> Vec<Option<Predictor>> {
    let own_seq = cells.len() / batch.max(1);
    let mut predictors = Vec::with_capacity(cells.len());
    for row in 0..batch {
        let mut before = prompt.then_some(Predictor::Prompt);
        // The predictor of each cell of the row.
        let of_row: Vec<_> = is_token(row)
            .iter()
            .enumerate()
            .map(|(cell, is_token)| match is_token {
                true => before.replace(Predictor::Cell(row * seq + cell)),
                false => before,
            })
            .collect();
        let own = &cells[row * own_seq..(row + 1) * own_seq];
        predictors.extend(own.iter().map(|cell| of_row[*cell]));
    }
    predictors
}

#[cfg(test)]
mod tests {
    use burn_peft_decoder::AttentionMask;

    use super::*;

    fn found(mask: &AttentionMask, cells: &[usize], prompt: bool) -> Vec<Option<usize>> {
        let is_token = |row| mask.row(row);
        of_cells(mask.batch(), mask.seq(), is_token, cells, prompt)
            .into_iter()
            .map(|predictor| match predictor {
                Some(Predictor::Cell(cell)) => Some(cell),
                Some(Predictor::Prompt) => Some(usize::MAX),
                None => None,
            })
            .collect()
    }

    #[test]
    fn the_last_token_of_a_shared_prompt_predicts_the_first_of_every_row() {
        let mask = AttentionMask::new(2, 2, vec![true, true, false, true]);
        let prompt = Some(usize::MAX);
        assert_eq!(
            found(&mask, &[0, 1, 0, 1], true),
            [prompt, Some(0), prompt, prompt]
        );
    }

    #[test]
    fn without_a_prompt_nothing_predicts_the_first_token() {
        let mask = AttentionMask::full(1, 3);
        assert_eq!(found(&mask, &[0, 1, 2], false), [None, Some(0), Some(1)]);
    }

    #[test]
    fn the_last_virtual_token_predicts_the_first_real_one() {
        let mask = AttentionMask::full(1, 5);
        let expected = [Some(1), Some(2), Some(3)];
        assert_eq!(found(&mask, &[2, 3, 4], false), expected);
    }

    #[test]
    fn a_virtual_token_in_the_middle_predicts_what_follows_it() {
        let mask = AttentionMask::full(1, 4);
        let expected = [None, Some(0), Some(2)];
        assert_eq!(found(&mask, &[0, 1, 3], false), expected);
    }

    #[test]
    fn left_padding_between_prompt_and_text_is_skipped() {
        let mask = AttentionMask::new(1, 5, vec![true, true, false, true, true]);
        let expected = [Some(1), Some(1), Some(3)];
        assert_eq!(found(&mask, &[2, 3, 4], false), expected);
    }
}
