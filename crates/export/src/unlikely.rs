//! A row of the output head for tokens that are read and never written.

use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use burn_peft::{Adapter, Inputs, PeftModel, Placement};
use burn_peft_decoder::{AttentionMask, GenerationOptions};
use burn_peft_ops::Ops;

/// Texts that the model writes to see in which states it ends.
const TEXTS: usize = 16;
/// Tokens of each.
const TOKENS: usize = 64;
/// The score that the row should have below the sum of all others, in every state that was seen: e^-50 is a probability
/// of 2e-22.
const MARGIN: f64 = 50.0;
/// States that are not seen may lie elsewhere.
const RESERVE: f64 = 2.0;
/// A state has to lie so far along the mean of all for a row against the mean to be unlikely in it.
const LEAST_ALONG: f64 = 0.02;
/// States whose scores are computed at once.
const CHUNK: usize = 32;

/// A head row that nothing is likely to choose, and how unlikely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct UnlikelyRow {
    /// `[d_model]`.
    pub row: Vec<f32>,
    /// The natural logarithm of the largest probability that a token with this row had.
    pub largest_log_probability: f64,
    /// In how many states.
    pub states: usize,
}

/// Finds a head row that points away from the states in which the model with its adapter ends: against their mean, as far as
/// it takes. A row of zeros would not do: where the model is sure of nothing, many zeros are likely. Where states lie on
/// both sides, as those of a model of random weights do, it is a copy of the row that was the least likely one everywhere.
///
/// The states are those of texts that the model itself writes, sampled at temperature 1.
#[must_use]
pub fn unlikely_row<B: Ops, A: Adapter<B>>(model: &PeftModel<B, A>, seed: u64) -> UnlikelyRow {
    let states = states(model, seed);
    let [count, width] = states.dims();
    let seen = Seen::new(model, &states);
    let mean = states.mean_dim(0); // [1, d_model]
    let length = mean
        .clone()
        .powi_scalar(2)
        .sum()
        .into_scalar()
        .elem::<f64>();
    let row = |row: Tensor<B, 1>| row.into_data().iter::<f32>().collect();
    match seen.push() {
        Some(push) => UnlikelyRow {
            row: row((mean * (-push / length)).reshape([width])),
            largest_log_probability: seen.largest(push),
            states: count,
        },
        None => {
            let (id, largest) = seen.rarest();
            UnlikelyRow {
                row: row(model.base().head_row(id)),
                largest_log_probability: largest,
                states: count,
            }
        }
    }
}

/// What there is to know of the states.
struct Seen {
    /// How far each lies along their mean; 1 is as far as the mean itself.
    along: Vec<f64>,
    /// The logarithm of the sum of all scores' exponentials, of each.
    totals: Vec<f64>,
    /// The largest log-probability that each token has in any of them.
    largest: Vec<f32>,
}

impl Seen {
    fn new<B: Ops, A: Adapter<B>>(model: &PeftModel<B, A>, states: &Tensor<B, 2>) -> Self {
        let count = states.dims()[0];
        let mean = states.clone().mean_dim(0);
        let length = mean
            .clone()
            .powi_scalar(2)
            .sum()
            .into_scalar()
            .elem::<f64>();
        let along = states.clone().matmul(mean.transpose()) / length;
        let mut totals = Vec::with_capacity(count);
        let mut largest: Option<Tensor<B, 2>> = None;
        for first in (0..count).step_by(CHUNK) {
            let chunk = states.clone().narrow(0, first, CHUNK.min(count - first));
            let scores = model.base().logits(chunk.cast(model.base().dtype()));
            let top = scores.clone().max_dim(1);
            let total = (scores.clone() - top.clone()).exp().sum_dim(1).log() + top;
            let here = (scores - total.clone()).max_dim(0); // [1, vocab]
            totals.extend(total.into_data().iter::<f64>());
            largest = Some(match largest {
                Some(before) => before.max_pair(here),
                None => here,
            });
        }
        let largest = largest.expect("a state").into_data();
        Self {
            along: along.into_data().iter::<f64>().collect(),
            totals,
            largest: largest.iter::<f32>().collect(),
        }
    }

    /// How far against the mean a row has to point, in units of one over the mean's length; `None` where a state lies so
    /// little along the mean that this would not do.
    fn push(&self) -> Option<f64> {
        let mut push = MARGIN;
        for (along, total) in self.along.iter().zip(&self.totals) {
            if *along < LEAST_ALONG {
                return None;
            }
            push = f64::max(push, (MARGIN - total) / along);
        }
        Some(RESERVE * push)
    }

    /// The largest log-probability of a row that points so far against the mean.
    fn largest(&self, push: f64) -> f64 {
        let states = self.along.iter().zip(&self.totals);
        let largest = states.map(|(along, total)| -push * along - total);
        largest.fold(f64::NEG_INFINITY, f64::max)
    }

    /// The token whose largest log-probability is the least, and that.
    fn rarest(&self) -> (usize, f64) {
        let tokens = self.largest.iter().enumerate();
        let (id, largest) = tokens
            .min_by(|a, b| a.1.total_cmp(b.1))
            .expect("a vocabulary");
        (id, f64::from(*largest))
    }
}

/// The states of every token of some texts, `[states, d_model]`, in f32.
fn states<B: Ops, A: Adapter<B>>(model: &PeftModel<B, A>, seed: u64) -> Tensor<B, 2> {
    let device = model.base().device();
    let vocab = model.base().config().vocab_size;
    // Any first tokens, far apart.
    let mut rows: Vec<Vec<u32>> = (0..TEXTS)
        .map(|text| vec![((text * vocab / TEXTS) as u64 + seed).rem_euclid(vocab as u64) as u32])
        .collect();
    let options = GenerationOptions {
        temperature: 1.0,
        seed,
        ..GenerationOptions::greedy(TOKENS, vec![])
    };
    let inputs = |rows: &[Vec<u32>]| {
        let seq = rows[0].len();
        let ids: Vec<i64> = rows.iter().flatten().map(|id| i64::from(*id)).collect();
        let ids = TensorData::new(ids, [rows.len(), seq]);
        Inputs {
            input_ids: Tensor::<B, 2, Int>::from_data(ids, &device),
            attention_mask: AttentionMask::full(rows.len(), seq),
            placement: Placement::Front,
        }
    };
    let texts = model.generate(inputs(&rows), &options, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    });
    for (row, text) in rows.iter_mut().zip(texts) {
        row.extend(text.token_ids);
    }
    let cells: Vec<usize> = (0..rows.len() * rows[0].len()).collect();
    let states = model.prepare(inputs(&rows)).states(&cells);
    states.cast(burn::tensor::DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_against_the_mean_is_unlikely_in_every_state_or_is_not_taken() {
        let seen = |along: &[f64]| Seen {
            along: along.to_vec(),
            totals: vec![3.0; along.len()],
            largest: vec![-2.0, -9.0, -1.0],
        };
        let push = seen(&[1.0, 0.1]).push().expect("all lie along it");
        assert!(seen(&[1.0, 0.1]).largest(push) <= -MARGIN);
        assert_eq!(seen(&[1.0, -0.1]).push(), None);
        assert_eq!(seen(&[1.0]).rarest(), (1, -9.0));
    }
}
