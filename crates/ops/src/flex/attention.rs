//! Attention a block of queries and a head at a time, over the keys that the block can see.

use std::borrow::Cow;

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use super::{
    element::Element,
    exp::exp,
    gemm::{Before, Matrix, multiply},
    storage::{from_heads, heads_tensor, narrow, rows_in_order, wide, zeros},
    vector::{largest, sum, vectorised},
};
use crate::Visibility;

/// Queries whose scores are held together.
const BLOCK: usize = 64;

/// States `[batch, heads, seq, head_dim]` as f32, wherever they stand in memory.
struct States<'a> {
    data: Cow<'a, [f32]>,
    dims: [usize; 4],
    offset: usize,
    strides: [usize; 3],
}

impl<'a> States<'a> {
    fn new<E: Element>(primitive: &'a FlexTensor, dims: [usize; 4]) -> Self {
        let layout = primitive.layout();
        let strides = layout.strides();
        Self {
            data: wide(primitive.storage::<E>()),
            dims,
            offset: layout.start_offset(),
            strides: [
                strides[0] as usize,
                strides[1] as usize,
                strides[2] as usize,
            ],
        }
    }

    /// The first `len` positions from `start` on of a head, `[len, head_dim]`.
    fn head(&self, row: usize, head: usize, start: usize, len: usize) -> Matrix<'_> {
        let [by_row, by_head, by_place] = self.strides;
        let at = self.offset + row * by_row + head * by_head + start * by_place;
        Matrix::new(&self.data[at..], [len, self.dims[3]], [by_place, 1])
    }
}

impl States<'_> {
    /// The first position of `len` heads from `head` on, `[len, head_dim]`.
    fn group(&self, row: usize, head: usize, len: usize) -> Matrix<'_> {
        let [by_row, by_head, _] = self.strides;
        let at = self.offset + row * by_row + head * by_head;
        Matrix::new(&self.data[at..], [len, self.dims[3]], [by_head, 1])
    }
}

/// Room for the scores of a block of queries, for any number of blocks.
struct Scores(Vec<f32>);

/// The probabilities of a block of queries, `[queries, keys]`.
struct Block<'s> {
    keys: usize,
    probabilities: &'s [f32],
}

impl Scores {
    /// For `queries` of them at a time.
    fn of(queries: usize, inputs: &Inputs<'_>) -> Self {
        Self(zeros(queries * inputs.key.dims[2]))
    }
}

/// What all blocks share.
struct Inputs<'a> {
    query: States<'a>,
    key: States<'a>,
    value: States<'a>,
    places: &'a Visibility,
    scale: f32,
    /// Query heads that share a key.
    group: usize,
}

impl Inputs<'_> {
    /// The softmax of the scores of `len` queries from `start` on.
    fn block<'s>(&self, [row, head, start, len]: [usize; 4], scores: &'s mut Scores) -> Block<'s> {
        let places = &self.places.queries(row)[start..start + len];
        let query = self.query.head(row, head, start, len);
        self.probabilities([row, head / self.group], query, places, scores)
    }

    /// The softmax of the scores of queries that stand at `queries`.
    fn probabilities<'s>(
        &self,
        [row, kv_head]: [usize; 2],
        query: Matrix<'_>,
        queries: &[i32],
        scores: &'s mut Scores,
    ) -> Block<'s> {
        let places = self.places.keys(row);
        let last = queries.iter().max();
        // Behind the last key that one of them sees there is nothing to compute.
        let keys = places.iter().rposition(|key| Some(key) <= last);
        let keys = keys.map_or(0, |last| last + 1);
        let probabilities = &mut scores.0[..queries.len() * keys];
        if keys > 0 {
            let key = self.key.head(row, kv_head, 0, keys).transposed();
            let before = Before::Ignored;
            multiply(probabilities, keys, query, key, self.scale, before);
            let places = &places[..keys];
            vectorised(
                #[inline(always)]
                || {
                    for (scores, query) in probabilities.chunks_exact_mut(keys).zip(queries) {
                        softmax(scores, places, *query);
                    }
                },
            );
        }
        Block {
            keys,
            probabilities,
        }
    }
}

/// Over the keys whose place is not behind `query`; all zero where there is none.
#[inline(always)]
fn softmax(scores: &mut [f32], places: &[i32], query: i32) {
    for (score, place) in scores.iter_mut().zip(places) {
        *score = if *place <= query {
            *score
        } else {
            f32::NEG_INFINITY
        };
    }
    let largest = largest(scores);
    if largest == f32::NEG_INFINITY {
        return scores.fill(0.0);
    }
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let scale = 1.0
        / sum(
            [&*scores],
            #[inline(always)]
            |[x]| x,
        );
    for score in scores.iter_mut() {
        *score *= scale;
    }
}

/// The primitive, copied where it is a view of more than it shows and all of that would be converted.
fn viewed<E: Element>(primitive: FlexTensor) -> FlexTensor {
    let shown = primitive.layout().num_elements() * size_of::<E>();
    match E::as_f32(&[]).is_none() && primitive.bytes().len() > shown {
        true => primitive.to_contiguous(),
        false => primitive,
    }
}

/// See [`Kernels::grouped_attention`](crate::Kernels::grouped_attention). The output stands in memory as `[batch,
/// seq, heads, head_dim]`.
pub(super) fn forward<E: Element>(
    query: Tensor<Flex, 4>,
    key: Tensor<Flex, 4>,
    value: Tensor<Flex, 4>,
    places: &Visibility,
) -> Tensor<Flex, 4> {
    let shape @ [batch, heads, seq, head_dim] = query.dims();
    let (key_dims, value_dims) = (key.dims(), value.dims());
    let [query, key, value] = [query, key, value].map(rows_in_order).map(viewed::<E>);
    let inputs = Inputs {
        query: States::new::<E>(&query, shape),
        key: States::new::<E>(&key, key_dims),
        value: States::new::<E>(&value, value_dims),
        places,
        scale: (head_dim as f32).powf(-0.5),
        group: heads / key_dims[1],
    };
    let width = heads * head_dim;
    let mut output = zeros::<f32>(batch * seq * width);
    if seq == 1 {
        inputs.one_query(&mut output);
        return heads_tensor(narrow::<E>(output), shape);
    }
    let rows = output.chunks_exact_mut((seq * width).max(1)).enumerate();
    let blocks: Vec<_> = rows
        .flat_map(|(row, output)| {
            let blocks = output.chunks_mut(BLOCK * width).enumerate();
            blocks.map(move |(index, output)| (row, index * BLOCK, output))
        })
        .collect();
    blocks.into_par_iter().for_each(|(row, start, output)| {
        let len = output.len() / width;
        let mut scores = Scores::of(len, &inputs);
        for head in 0..heads {
            let Block {
                keys,
                probabilities,
            } = inputs.block([row, head, start, len], &mut scores);
            let value = inputs.value.head(row, head / inputs.group, 0, keys);
            let probabilities = Matrix::dense(probabilities, [len, keys]);
            let output = &mut output[head * head_dim..];
            multiply(output, width, probabilities, value, 1.0, Before::Ignored);
        }
    });
    heads_tensor(narrow::<E>(output), shape)
}

/// See [`Kernels::grouped_attention_backward`](crate::Kernels::grouped_attention_backward). The gradients stand in memory
/// as `[batch, seq, heads, head_dim]`.
pub(super) fn backward<E: Element>(
    query: Tensor<Flex, 4>,
    key: Tensor<Flex, 4>,
    value: Tensor<Flex, 4>,
    places: &Visibility,
    above: Tensor<Flex, 4>,
) -> [Tensor<Flex, 4>; 3] {
    let shape @ [batch, heads, seq, head_dim] = query.dims();
    let kv_shape @ [_, kv_heads, kv_len, _] = key.dims();
    let [query, key, value, above] = [query, key, value, above].map(rows_in_order);
    let inputs = Inputs {
        query: States::new::<E>(&query, shape),
        key: States::new::<E>(&key, kv_shape),
        value: States::new::<E>(&value, kv_shape),
        places,
        scale: (head_dim as f32).powf(-0.5),
        group: heads / kv_heads,
    };
    let above = States::new::<E>(&above, shape);
    let (query_len, kv_len_all) = (seq * head_dim, kv_len * head_dim);
    // A head of the batch is a task, with keys' and values' gradients of its own.
    let mut query_gradients = zeros::<f32>(batch * heads * query_len);
    let mut key_gradients = zeros::<f32>(batch * heads * kv_len_all);
    let mut value_gradients = zeros::<f32>(batch * heads * kv_len_all);
    query_gradients
        .par_chunks_exact_mut(query_len.max(1))
        .zip(key_gradients.par_chunks_exact_mut(kv_len_all.max(1)))
        .zip(value_gradients.par_chunks_exact_mut(kv_len_all.max(1)))
        .enumerate()
        .for_each(|(task, ((query, key), value))| {
            let (row, head) = (task / heads, task % heads);
            let mut scores = [(); 2].map(|()| Scores::of(BLOCK.min(seq), &inputs));
            for start in (0..seq).step_by(BLOCK) {
                let block = [row, head, start, BLOCK.min(seq - start)];
                let query = &mut query[start * head_dim..];
                inputs.block_backward(&above, block, &mut scores, query, key, value);
            }
        });
    let query_gradients = from_heads(
        shape,
        #[inline(always)]
        |[row, head, place], unwritten| {
            let at = (row * heads + head) * query_len + place * head_dim;
            let gradient = &query_gradients[at..][..head_dim];
            unwritten.put(gradient.iter().map(
                #[inline(always)]
                |x| E::store(*x),
            ));
        },
    );
    let sum_group = |gradients: Vec<f32>| {
        from_heads(
            kv_shape,
            #[inline(always)]
            |[row, kv_head, place], unwritten| {
                let first = row * heads + kv_head * inputs.group;
                let gradients = &gradients[first * kv_len_all + place * head_dim..];
                unwritten.put((0..head_dim).map(
                    #[inline(always)]
                    |i| {
                        let heads = (0..inputs.group).map(|head| head * kv_len_all + i);
                        E::store(heads.map(|at| gradients[at]).sum())
                    },
                ));
            },
        )
    };
    [
        query_gradients,
        sum_group(key_gradients),
        sum_group(value_gradients),
    ]
}

impl Inputs<'_> {
    /// Attention of one query a row, as in generation: the heads that share a key are the block.
    fn one_query(&self, output: &mut [f32]) {
        let [_, heads, _, head_dim] = self.query.dims;
        let kv_heads = heads / self.group;
        output
            .par_chunks_exact_mut(self.group * head_dim)
            .enumerate()
            .for_each(|(task, output)| {
                let (row, kv_head) = (task / kv_heads, task % kv_heads);
                let places = vec![self.places.queries(row)[0]; self.group];
                let query = self.query.group(row, kv_head * self.group, self.group);
                let mut scores = Scores::of(self.group, self);
                let Block {
                    keys,
                    probabilities,
                } = self.probabilities([row, kv_head], query, &places, &mut scores);
                let weights = Matrix::dense(probabilities, [self.group, keys]);
                let value = self.value.head(row, kv_head, 0, keys);
                let before = Before::Ignored;
                multiply(output, head_dim, weights, value, 1.0, before);
            });
    }

    /// Writes the gradient of a block of queries, and adds those of a head's keys and values.
    fn block_backward(
        &self,
        above: &States<'_>,
        block @ [row, head, start, len]: [usize; 4],
        [scores, above_scores]: &mut [Scores; 2],
        query_gradient: &mut [f32],
        key_gradient: &mut [f32],
        value_gradient: &mut [f32],
    ) {
        let head_dim = self.query.dims[3];
        let Block {
            keys,
            probabilities,
        } = self.block(block, scores);
        if keys == 0 {
            return;
        }
        let above = above.head(row, head, start, len);
        let query = self.query.head(row, head, start, len);
        let key = self.key.head(row, head / self.group, 0, keys);
        let value = self.value.head(row, head / self.group, 0, keys);
        let weights = Matrix::dense(probabilities, [len, keys]);
        multiply(
            value_gradient,
            head_dim,
            weights.transposed(),
            above,
            1.0,
            Before::Kept,
        );
        let scores = &mut above_scores.0[..len * keys];
        multiply(
            scores,
            keys,
            above,
            value.transposed(),
            1.0,
            Before::Ignored,
        );
        vectorised(
            #[inline(always)]
            || {
                let rows = scores.chunks_exact_mut(keys);
                for (scores, weights) in rows.zip(probabilities.chunks_exact(keys)) {
                    // p = softmax(s), so ds = p · (dp − Σ p · dp).
                    let along = sum(
                        [&*scores, weights],
                        #[inline(always)]
                        |[score, weight]| score * weight,
                    );
                    for (score, weight) in scores.iter_mut().zip(weights) {
                        *score = weight * (*score - along);
                    }
                }
            },
        );
        let scores = Matrix::dense(scores, [len, keys]);
        multiply(
            query_gradient,
            head_dim,
            scores,
            key,
            self.scale,
            Before::Ignored,
        );
        multiply(
            key_gradient,
            head_dim,
            scores.transposed(),
            query,
            self.scale,
            Before::Kept,
        );
    }
}
