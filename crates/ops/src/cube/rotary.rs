//! Rotary position embedding: a unit for each vector of the first half of a head, and its partner.

use burn::tensor::TensorMetadata;
use burn_cubecl::{
    CubeRuntime,
    cubecl::{self, prelude::*},
    tensor::CubeTensor,
};

use super::launch::{contiguous, elementwise_grid, empty_like, vector_size};

/// `strides` of the input in vectors, but for the last dimension, whose is 1; `heads`, `seq` and `half` (a
/// head's half in vectors) of the output, which is row-major.
#[cube(launch)]
fn rotary_kernel<F: Float, N: Size>(
    states: &Array<Vector<F, N>>,
    cos: &Array<Vector<F, N>>,
    sin: &Array<Vector<F, N>>,
    output: &mut Array<Vector<F, N>>,
    stride_batch: u32,
    stride_head: u32,
    stride_seq: u32,
    heads: u32,
    seq: u32,
    half: u32,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= output.len() / 2 {
        terminate!();
    }
    let (heads, seq, half) = (heads as usize, seq as usize, half as usize);
    let i = ABSOLUTE_POS % half;
    let row = ABSOLUTE_POS / half;
    let position = row % seq;
    let head = row / seq % heads;
    let batch = row / seq / heads;
    let from = batch * stride_batch as usize
        + head * stride_head as usize
        + position * stride_seq as usize
        + i;
    // One table stands for all rows of a batch, or there is one each.
    let angle = (batch * seq + position) % (cos.len() / half) * half + i;
    let cos = Vector::<f32, N>::cast_from(cos[angle]);
    let sin = Vector::<f32, N>::cast_from(sin[angle]);
    let first = Vector::<f32, N>::cast_from(states[from]);
    let second = Vector::<f32, N>::cast_from(states[from + half]);
    let to = row * half * 2 + i;
    output[to] = Vector::cast_from(first * cos - second * sin);
    output[to + half] = Vector::cast_from(second * cos + first * sin);
}

/// Whether these are vectors of `size` without gaps, in whatever order: heads swapped with positions, say.
fn is_permuted<R: CubeRuntime>(states: &CubeTensor<R>, size: usize) -> bool {
    let (shape, strides) = (states.meta.shape(), states.meta.strides());
    let last: usize = (0..4).map(|d| (shape[d] - 1) * strides[d]).sum();
    strides[3] == 1
        && strides[..3]
            .iter()
            .all(|stride| stride.is_multiple_of(size))
        && last + 1 == shape.num_elements()
}

pub(crate) fn rotary<R: CubeRuntime>(
    states: CubeTensor<R>,
    cos: CubeTensor<R>,
    sin: CubeTensor<R>,
) -> CubeTensor<R> {
    let [cos, sin] = [cos, sin].map(contiguous);
    let [_, heads, seq, head_dim] = states.meta.shape().dims();
    let size = vector_size(&states, states.dtype, head_dim / 2);
    let states = if is_permuted(&states, size) {
        states
    } else {
        contiguous(states)
    };
    let strides = states.meta.strides();
    let [stride_batch, stride_head, stride_seq] =
        [strides[0], strides[1], strides[2]].map(|stride| (stride / size) as u32);
    let output = empty_like(&states);
    let vectors = output.shape().num_elements() / 2 / size;
    let (count, dim) = elementwise_grid(&output, vectors);
    rotary_kernel::launch(
        &output.client,
        count,
        dim,
        size,
        states.into_array_arg(),
        cos.into_array_arg(),
        sin.into_array_arg(),
        output.clone().into_array_arg(),
        stride_batch,
        stride_head,
        stride_seq,
        heads as u32,
        seq as u32,
        (head_dim / 2 / size) as u32,
        output.dtype.into(),
    );
    output
}
