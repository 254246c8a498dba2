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
/// States whose scores are computed at once.
const CHUNK: usize = 32;

/// A head row that nothing is likely to choose, and how unlikely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct UnlikelyRow {
    /// `[d_model]`.
    pub row: Vec<f32>,
    /// The natural logarithm of the largest probability that one token with this row had.
    pub largest_log_probability: f64,
    /// In how many states.
    pub states: usize,
}

/// Finds a head row that points away from the states in which the model with its adapter ends: against their mean, as far as
/// it takes. A row of zeros would not do: where the model is sure of nothing, many zeros are likely.
///
/// The states are those of texts that the model itself writes, sampled at temperature 1.
#[must_use]
pub fn unlikely_row<B: Ops, A: Adapter<B>>(model: &PeftModel<B, A>, seed: u64) -> UnlikelyRow {
    let states = states(model, seed);
    let [count, width] = states.dims();
    let mean = states.clone().mean_dim(0); // [1, d_model]
    let length = mean
        .clone()
        .powi_scalar(2)
        .sum()
        .into_scalar()
        .elem::<f64>();
    // How far each state lies along the mean; 1 is as far as the mean itself.
    let along = states.clone().matmul(mean.clone().transpose()) / length;
    let along: Vec<f64> = along.into_data().iter::<f64>().collect();
    let mut totals = Vec::with_capacity(count);
    for first in (0..count).step_by(CHUNK) {
        let chunk = states.clone().narrow(0, first, CHUNK.min(count - first));
        let scores = model.base().logits(chunk.cast(model.base().dtype()));
        let largest = scores.clone().max_dim(1);
        let sum = (scores - largest.clone()).exp().sum_dim(1).log() + largest;
        totals.extend(sum.into_data().iter::<f64>());
    }
    let needed = along.iter().zip(&totals);
    let needed = needed.filter(|(along, _)| **along > 0.0);
    let needed = needed.map(|(along, total)| (MARGIN - total) / along);
    let push = RESERVE * needed.fold(MARGIN, f64::max);
    let row = mean * (-push / length);
    let scores = along.iter().zip(&totals);
    let largest = scores
        .map(|(along, total)| -push * along - total)
        .fold(f64::NEG_INFINITY, f64::max);
    UnlikelyRow {
        row: row.reshape([width]).into_data().iter::<f32>().collect(),
        largest_log_probability: largest,
        states: count,
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
