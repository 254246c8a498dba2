//! A row of the output head for tokens that are read and never written.

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft::{Adapter, Inputs, PeftModel, Placement};
use burn_peft_decoder::{AttentionMask, GenerationOptions};
use burn_peft_ops::Ops;

/// Texts that the model writes at a time, to see in which states it ends.
const TEXTS: usize = 16;
/// Tokens of each.
const TOKENS: usize = 64;
/// The score that the row should have below the sum of all others, in every state that was seen: e^-50 is a probability
/// of 2e-22.
const MARGIN: f64 = 50.0;
/// States that are not seen may lie elsewhere.
const RESERVE: f64 = 2.0;
/// Steps towards the middle of the states.
const STEPS: usize = 2000;
/// The state that lies the least along the middle lies so much of what the farthest one does, if a row is unlikely in all.
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

/// Finds a head row that points away from the states in which the model with its adapter ends, as far as it takes. A row of
/// zeros would not do: where the model is sure of nothing, many zeros are likely. Where states lie on all sides, as those of
/// a model of random weights do, it is a copy of the row that was the least likely one everywhere.
///
/// The states are those of texts that the model itself writes, sampled at temperature 1: half of them say where the row points,
/// all of them whether it serves.
#[must_use]
pub fn unlikely_row<B: Ops, A: Adapter<B>>(model: &PeftModel<B, A>, seed: u64) -> UnlikelyRow {
    let found = states(model, seed);
    let [count, width] = found.dims();
    let lengths = found.clone().powi_scalar(2).sum_dim(1).sqrt(); // [states, 1]
    let directions = found.clone() / lengths;
    let cosines = directions.clone().matmul(directions.clone().transpose());
    let numbers = |tensor: Tensor<B, 2>| tensor.into_data().iter::<f64>().collect::<Vec<f64>>();
    let weights = TensorData::new(middle(&numbers(cosines), count), [1, count]);
    let weights = weights.convert_dtype(directions.dtype());
    let weights = Tensor::<B, 2>::from_data(weights, &directions.device());
    let middle = weights.matmul(directions); // [1, width]
    // Where states lie on all sides, those that were looked at may still have a side of their own; others do not keep to it.
    let states = Tensor::cat(vec![found, states(model, seed.wrapping_add(1))], 0);
    let along = numbers(states.clone().matmul(middle.clone().transpose()));
    let seen = Seen::new(model, states, along);
    let row = |row: Tensor<B, 1>| row.into_data().iter::<f32>().collect();
    let states = seen.along.len();
    match seen.push() {
        Some(push) => UnlikelyRow {
            row: row((middle * -push).reshape([width])),
            largest_log_probability: seen.largest(push),
            states,
        },
        None => {
            let (id, largest) = seen.rarest();
            UnlikelyRow {
                row: row(model.base().head_row(id)),
                largest_log_probability: largest,
                states,
            }
        }
    }
}

/// How much of each direction is in the point of their convex hull that is nearest to the origin: of all directions, that
/// point's has the largest cosine with the one that lies farthest from it (Gilbert 1966). The cosines are `[count, count]`.
fn middle(cosines: &[f64], count: usize) -> Vec<f64> {
    let share = 1.0 / count as f64;
    let mut weights = vec![share; count];
    // The products of the point with each direction.
    let rows = cosines.chunks_exact(count);
    let mut along: Vec<f64> = rows.map(|row| share * row.iter().sum::<f64>()).collect();
    let mut square = share * along.iter().sum::<f64>();
    for _ in 0..STEPS {
        let Some(farthest) = (0..count).min_by(|a, b| along[*a].total_cmp(&along[*b])) else {
            break;
        };
        // Towards the farthest, as far as it comes nearer to the origin.
        let product = along[farthest];
        let step = (square - product) / (square - 2.0 * product + 1.0).max(f64::MIN_POSITIVE);
        let step = step.clamp(0.0, 1.0);
        if step == 0.0 {
            break;
        }
        let stay = 1.0 - step;
        square = stay * stay * square + 2.0 * stay * step * product + step * step;
        weights.iter_mut().for_each(|weight| *weight *= stay);
        weights[farthest] += step;
        let row = &cosines[farthest * count..(farthest + 1) * count];
        for (along, cosine) in along.iter_mut().zip(row) {
            *along = stay * *along + step * cosine;
        }
    }
    weights
}

/// What there is to know of the states.
struct Seen {
    /// The product of each with the middle of the directions.
    along: Vec<f64>,
    /// The logarithm of the sum of all scores' exponentials, of each.
    totals: Vec<f64>,
    /// The largest log-probability that each token has in any of them.
    largest: Vec<f32>,
}

impl Seen {
    fn new<B: Ops, A: Adapter<B>>(
        model: &PeftModel<B, A>,
        states: Tensor<B, 2>,
        along: Vec<f64>,
    ) -> Self {
        let count = along.len();
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
            along,
            totals,
            largest: largest.iter::<f32>().collect(),
        }
    }

    /// How often the middle has to be taken off for a row that is unlikely in every state; `None` where one lies so far
    /// from it that no row is.
    fn push(&self) -> Option<f64> {
        let least = self.along.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.along.iter().copied().fold(0.0, f64::max);
        if least < LEAST_ALONG * most {
            return None;
        }
        let needed = self.along.iter().zip(&self.totals);
        let needed = needed.map(|(along, total)| (MARGIN - total) / along);
        Some(RESERVE * needed.fold(MARGIN / most, f64::max))
    }

    /// The largest log-probability of the row that takes the middle off so often.
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
    fn the_middle_has_all_directions_on_its_side_if_one_has() {
        // Two directions near each other, and one nearly across: their mean leans to the two.
        let directions: [[f64; 2]; 3] = [[1.0, 0.0], [0.995, 0.0999], [-0.6, 0.8]];
        let dot = |a: &[f64; 2], b: &[f64; 2]| a[0] * b[0] + a[1] * b[1];
        let cosines = directions
            .iter()
            .flat_map(|a| directions.iter().map(move |b| dot(a, b)));
        let cosines: Vec<f64> = cosines.collect();
        let along = |cosines: &[f64]| {
            let weights = middle(cosines, cosines.len().isqrt());
            let rows = cosines.chunks_exact(weights.len());
            let product =
                |row: &[f64]| row.iter().zip(&weights).map(|(cosine, w)| cosine * w).sum();
            rows.map(product).collect::<Vec<f64>>()
        };
        // Halfway between the outer two: cos of half of 126.9 degrees, and the point's own length is the same.
        let expected = (126.87_f64 / 2.0).to_radians().cos().powi(2);
        let least = along(&cosines).into_iter().fold(f64::INFINITY, f64::min);
        assert!((least - expected).abs() < 1e-3, "{least} {expected}");
        // On all sides: none has.
        let across = along(&[1.0, -1.0, -1.0, 1.0]);
        assert!(across.iter().all(|along| along.abs() < 1e-9));
    }

    #[test]
    fn a_row_against_the_middle_is_unlikely_in_every_state_or_is_not_taken() {
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
