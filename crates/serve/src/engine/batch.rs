//! One step over all rows.

use std::{ops::Range, sync::atomic::Ordering};

use burn::tensor::{Int, Tensor, TensorData, s};
use burn_peft_decoder::Piece;
use burn_peft_ops::Ops;

use super::{
    adapters::Front,
    row::{Row, Token},
    steps::Worker,
};

/// The tokens of a step.
#[derive(Default)]
struct Step {
    pieces: Vec<Piece>,
    /// The row of each piece.
    rows: Vec<usize>,
    /// Pieces with which all that is known of their row is computed.
    complete: Vec<bool>,
    tokens: Vec<Token>,
}

/// The states of a step that are read.
#[derive(Default)]
struct Read {
    /// Their tokens in the step.
    tokens: Vec<usize>,
    /// Rows whose next token comes now, and which of the states it comes from.
    last: Vec<(usize, usize)>,
    /// The same of rows that a head reads.
    heads: Vec<(usize, usize)>,
    /// Rows whose prompt is scored, and the states of this step's piece of it.
    prompts: Vec<(usize, Range<usize>)>,
}

impl<B: Ops> Worker<B> {
    /// Computes the next token of every row whose prompt is done, and pieces of the prompts of others.
    pub(super) fn step(&mut self) {
        let step = self.choose();
        let adapters: Vec<_> = step
            .pieces
            .iter()
            .zip(&step.rows)
            .flat_map(|(piece, row)| piece.places.iter().map(|_| self.rows[*row].id))
            .collect();
        let hidden = self.embed(&step);
        let biases = self.adapters.biases(&adapters);
        let biases = biases.as_ref().map(|(tables, sets)| (*tables, &sets[..]));
        let read = self.read(&step);
        let asked = match read.tokens.is_empty() {
            // The decoder is asked for something; nobody looks at it.
            true => &[0][..],
            false => &read.tokens,
        };
        let slots = &mut self.slots;
        let states = self.base.step(hidden, &step.pieces, biases, slots, asked);
        self.counters.steps.fetch_add(1, Ordering::Relaxed);
        for (row, own) in read.prompts {
            let first = self.rows[row].computed;
            self.note_prompt(row, first, states.clone().slice(s![own, ..]));
        }
        for (piece, row) in step.pieces.iter().zip(&step.rows) {
            self.rows[*row].computed += piece.places.len();
        }
        let mut ended = Vec::new();
        for (row, state) in read.heads {
            self.read_by_head(row, states.clone().slice(s![state..state + 1, ..]));
            ended.push(row);
        }
        if !read.last.is_empty() {
            self.go_on(&read.last, states, read.tokens.len(), &mut ended);
        }
        // From behind: taking one out moves the last one to its place.
        ended.sort_unstable();
        for row in ended.into_iter().rev() {
            self.end(row);
        }
    }

    /// Chooses the next tokens of rows from the states that `last` names among the `all` of `states`.
    fn go_on(
        &mut self,
        last: &[(usize, usize)],
        states: Tensor<B, 2>,
        all: usize,
        ended: &mut Vec<usize>,
    ) {
        let states = match last.len() == all {
            true => states,
            false => {
                let own = last.iter().map(|(_, state)| *state as i64);
                let own = TensorData::new(own.collect::<Vec<_>>(), [last.len()]);
                states.select(0, Tensor::from_data(own, &self.base.device()))
            }
        };
        let scores = self.base.logits(states).into_data();
        let scores: Vec<f32> = scores.iter::<f32>().collect();
        let vocab = scores.len() / last.len();
        for ((row, _), scores) in last.iter().zip(scores.chunks_exact(vocab)) {
            if self.accept(*row, scores) {
                ended.push(*row);
            }
        }
    }

    /// Which states of a step are read: of a complete row the last, of prompts whose tokens are scored all.
    fn read(&self, step: &Step) -> Read {
        let mut read = Read::default();
        let mut end = 0;
        let pieces = step.pieces.iter().zip(&step.rows).zip(&step.complete);
        for ((piece, row), complete) in pieces {
            let first = end;
            end += piece.places.len();
            let is_scored = self.rows[*row].prompt_logprobs.is_some();
            if is_scored {
                let start = read.tokens.len();
                read.tokens.extend(first..end);
                read.prompts.push((*row, start..read.tokens.len()));
            } else if *complete {
                read.tokens.push(end - 1);
            }
            if *complete {
                let state = (*row, read.tokens.len() - 1);
                match self.rows[*row].head {
                    true => read.heads.push(state),
                    false => read.last.push(state),
                }
            }
        }
        read
    }

    /// Which tokens are next: one of each row that goes on, and of prompts as many as a step takes.
    fn choose(&self) -> Step {
        let mut step = Step::default();
        let mut budget = self.limits.prefill_tokens.max(1);
        for (index, row) in self.rows.iter().enumerate() {
            let rest = row.tokens.len() - row.computed;
            let is_prompt = row.generated == 0;
            let count = if is_prompt { rest.min(budget) } else { rest };
            if count == 0 {
                continue;
            }
            if is_prompt {
                budget -= count;
                let prompt = &self.counters.prompt_tokens;
                prompt.fetch_add(count as u64, Ordering::Relaxed);
            }
            let tokens = row.computed..row.computed + count;
            step.pieces.push(Piece {
                slot: row.slot,
                places: row.prefix.places_of(tokens.clone()),
            });
            step.rows.push(index);
            step.complete.push(count == rest);
            step.tokens.extend(&row.tokens[tokens]);
        }
        step
    }

    /// The inputs of the step's tokens, `[tokens, d_model]`.
    fn embed(&self, step: &Step) -> Tensor<B, 2> {
        let device = self.base.device();
        let count = step.tokens.len();
        let ids = step.tokens.iter().map(|token| match token {
            Token::Id(id) => i64::from(*id),
            Token::Virtual(_) => 0,
        });
        let ids = TensorData::new(ids.collect::<Vec<_>>(), [1, count]);
        let ids = Tensor::<B, 2, Int>::from_data(ids, &device);
        let hidden = self.base.embed(ids).squeeze_dim(0);
        let is_virtual = |token: &Token| matches!(token, Token::Virtual(_));
        if !step.tokens.iter().any(is_virtual) {
            return hidden;
        }
        // A table of the tokens' own embeddings and, behind them, the prompts of the rows that have some here.
        let mut parts = vec![hidden];
        let mut order = Vec::with_capacity(count);
        let mut behind = count;
        let mut first = 0;
        for (piece, row) in step.pieces.iter().zip(&step.rows) {
            let tokens = &step.tokens[first..first + piece.places.len()];
            let prompt = embeddings(&self.rows[*row]).filter(|_| tokens.iter().any(is_virtual));
            for (token, index) in tokens.iter().zip(first..) {
                order.push(match token {
                    Token::Id(_) => index as i64,
                    Token::Virtual(token) => (behind + token) as i64,
                });
            }
            if let Some(prompt) = prompt {
                behind += prompt.dims()[0];
                parts.push(prompt);
            }
            first += piece.places.len();
        }
        let order = Tensor::<B, 1, Int>::from_data(TensorData::new(order, [count]), &device);
        Tensor::cat(parts, 0).select(0, order)
    }
}

/// The prompt of a row's adapter.
fn embeddings<B: Ops>(row: &Row<B>) -> Option<Tensor<B, 2>> {
    match &row.adapter.front {
        Front::Prompt { embeddings, .. } => Some(embeddings.clone()),
        Front::Nothing | Front::Prefix(_) => None,
    }
}
