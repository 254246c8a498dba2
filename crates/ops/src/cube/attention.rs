//! Attention as batched products around a softmax of one pass: scores are f32, and nothing but the
//! probabilities stays between the products.

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::{
    CubeRuntime,
    cubecl::{self, prelude::*},
    ops::reshape,
    tensor::CubeTensor,
};

use super::{
    launch::{contiguous, empty, row_grid, vector_size},
    product::{product, transposed},
    reduce::{cube_max, cube_sum, vector_max, vector_sum},
    runtime::GpuRuntime,
};
use crate::mask::HIDDEN_SCORE;

/// Vectors of a row that a unit keeps, where cubes need not be larger than they can.
const VECTORS_EACH: usize = 4;

/// A row of scores is a query of a head of a row of the batch, in this order: `[batch, heads, seq]`.
#[cube(launch)]
fn softmax_kernel<F: Float, N: Size>(
    scores: &Array<Vector<f32, N>>,
    query_places: &Array<i32>,
    key_places: &Array<Vector<i32, N>>,
    output: &mut Array<Vector<F, N>>,
    scale: f32,
    len: u32,
    seq: u32,
    rows_each: u32,
    mask_rows: u32,
    hidden_score: f32,
    #[comptime] each: usize,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let (len, row) = (len as usize, CUBE_POS);
    let start = row * len;
    if start >= scores.len() {
        terminate!();
    }
    let seq = seq as usize;
    let mask_row = row / rows_each as usize % mask_rows as usize;
    let place = Vector::<i32, N>::new(query_places[mask_row * seq + row % seq]);
    let keys = mask_row * len;
    let scale = Vector::<f32, N>::new(scale);
    let hidden = Vector::<f32, N>::new(hidden_score);

    // A row is read once; a unit keeps its part.
    let mut part = Array::<Vector<f32, N>>::new(each);
    let mut largest = Vector::<f32, N>::new(f32::MIN);
    #[unroll]
    for k in 0..each {
        let i = UNIT_POS as usize + k * units as usize;
        part[k] = Vector::new(f32::MIN);
        if i < len {
            let seen = key_places[keys + i].less_equal(place);
            part[k] = select_many(seen, scores[start + i] * scale, hidden);
        }
        largest = max(largest, part[k]);
    }
    let largest = Vector::<f32, N>::new(cube_max(vector_max::<N>(largest), units));
    let mut total = Vector::<f32, N>::new(0.0);
    #[unroll]
    for k in 0..each {
        part[k] = (part[k] - largest).exp();
        total += part[k];
    }
    let share = Vector::<f32, N>::new(1.0 / cube_sum(vector_sum::<N>(total), units));
    #[unroll]
    for k in 0..each {
        let i = UNIT_POS as usize + k * units as usize;
        if i < len {
            output[start + i] = Vector::cast_from(part[k] * share);
        }
    }
}

/// The gradient of the unscaled scores, given that of the probabilities, `above`.
#[cube(launch)]
fn softmax_backward_kernel<F: Float, N: Size>(
    probabilities: &Array<Vector<F, N>>,
    above: &Array<Vector<f32, N>>,
    output: &mut Array<Vector<F, N>>,
    scale: f32,
    len: u32,
    #[comptime] units: u32,
    #[define(F)] _dtype: StorageType,
) {
    let len = len as usize;
    let start = CUBE_POS * len;
    if start >= above.len() {
        terminate!();
    }
    // p = softmax(s), so ds = p · (dp − Σ p · dp).
    let mut along = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < len {
        along += Vector::<f32, N>::cast_from(probabilities[start + i]) * above[start + i];
        i += units as usize;
    }
    let along = Vector::<f32, N>::new(cube_sum(vector_sum::<N>(along), units));
    let scale = Vector::<f32, N>::new(scale);
    let mut i = UNIT_POS as usize;
    while i < len {
        let probability = Vector::<f32, N>::cast_from(probabilities[start + i]);
        let gradient = probability * (above[start + i] - along) * scale;
        output[start + i] = Vector::cast_from(gradient);
        i += units as usize;
    }
}

/// Which keys are seen, on the device: [`Visibility`](crate::Visibility)'s places.
pub(crate) struct Places<R: CubeRuntime> {
    /// `[mask_rows, seq]`.
    pub(crate) queries: CubeTensor<R>,
    /// `[mask_rows, kv_len]`.
    pub(crate) keys: CubeTensor<R>,
}

/// Query, key and value, the queries that share a key stacked: `[batch · n_kv_heads, rows, head_dim]`.
struct Heads<R: CubeRuntime> {
    query: CubeTensor<R>,
    key: CubeTensor<R>,
    value: CubeTensor<R>,
    batch: usize,
    n_heads: usize,
    seq: usize,
    kv_len: usize,
    head_dim: usize,
}

impl<R: GpuRuntime> Heads<R> {
    fn new(query: CubeTensor<R>, key: CubeTensor<R>, value: CubeTensor<R>) -> Self {
        let [batch, n_heads, seq, head_dim] = query.meta.shape().dims();
        let [_, n_kv_heads, kv_len, _] = key.meta.shape().dims();
        let stack = |states| stack_heads(states, batch * n_kv_heads);
        Self {
            query: stack(query),
            key: stack(key),
            value: stack(value),
            batch,
            n_heads,
            seq,
            kv_len,
            head_dim,
        }
    }

    fn scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    fn rows(&self) -> usize {
        self.batch * self.n_heads * self.seq
    }

    fn probabilities(&self, places: &Places<R>) -> CubeTensor<R> {
        let scores = product(&self.query, &transposed(&self.key), None, DType::F32);
        let dtype = self.key.dtype;
        let output = empty(&scores, scores.shape(), dtype);
        let size = vector_size(&scores, DType::F32, self.kv_len);
        let vectors = self.kv_len / size;
        let (count, dim, units) = row_grid(&scores, self.rows(), vectors.div_ceil(VECTORS_EACH));
        let [queries, keys] = [&places.queries, &places.keys].map(|p| contiguous(p.clone()));
        let mask_rows = keys.meta.shape()[0];
        softmax_kernel::launch(
            &output.client,
            count,
            dim,
            size,
            scores.into_array_arg(),
            queries.into_array_arg(),
            keys.into_array_arg(),
            output.clone().into_array_arg(),
            self.scale(),
            vectors as u32,
            self.seq as u32,
            (self.n_heads * self.seq) as u32,
            mask_rows as u32,
            HIDDEN_SCORE as f32,
            vectors.div_ceil(units as usize),
            units,
            dtype.into(),
        );
        output
    }

    fn scores_gradient(&self, probabilities: CubeTensor<R>, above: CubeTensor<R>) -> CubeTensor<R> {
        let dtype = probabilities.dtype;
        let output = empty(&above, above.shape(), dtype);
        let size = vector_size(&above, DType::F32, self.kv_len);
        let (count, dim, units) = row_grid(&above, self.rows(), self.kv_len / size);
        softmax_backward_kernel::launch(
            &output.client,
            count,
            dim,
            size,
            probabilities.into_array_arg(),
            above.into_array_arg(),
            output.clone().into_array_arg(),
            self.scale(),
            (self.kv_len / size) as u32,
            units,
            dtype.into(),
        );
        output
    }

    fn attend(&self, places: &Places<R>) -> CubeTensor<R> {
        let probabilities = self.probabilities(places);
        product(&probabilities, &self.value, None, self.value.dtype)
    }

    fn gradients(&self, places: &Places<R>, above: CubeTensor<R>) -> [CubeTensor<R>; 3] {
        let dtype = self.key.dtype;
        let above = stack_heads(above, self.key.meta.shape()[0]);
        let probabilities = self.probabilities(places);
        let value = product(&transposed(&probabilities), &above, None, dtype);
        let above = product(&above, &transposed(&self.value), None, DType::F32);
        let scores = self.scores_gradient(probabilities, above);
        let query = product(&scores, &self.key, None, dtype);
        let key = product(&transposed(&scores), &self.query, None, dtype);
        [query, key, value]
    }
}

fn stack_heads<R: CubeRuntime>(states: CubeTensor<R>, heads: usize) -> CubeTensor<R> {
    let head_dim = states.meta.shape()[3];
    let rows = states.shape().num_elements() / heads / head_dim;
    reshape(contiguous(states), Shape::new([heads, rows, head_dim]))
}

pub(crate) fn attention<R: GpuRuntime>(
    query: CubeTensor<R>,
    key: CubeTensor<R>,
    value: CubeTensor<R>,
    places: &Places<R>,
) -> CubeTensor<R> {
    let shape = query.shape();
    reshape(Heads::new(query, key, value).attend(places), shape)
}

pub(crate) fn attention_backward<R: GpuRuntime>(
    query: CubeTensor<R>,
    key: CubeTensor<R>,
    value: CubeTensor<R>,
    places: &Places<R>,
    above: CubeTensor<R>,
) -> [CubeTensor<R>; 3] {
    let shapes = [query.shape(), key.shape(), value.shape()];
    let gradients = Heads::new(query, key, value).gradients(places, above);
    let mut shapes = shapes.into_iter();
    gradients.map(|gradient| reshape(gradient, shapes.next().expect("three shapes")))
}
