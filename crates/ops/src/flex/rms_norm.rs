//! Root-mean-square normalisation, a row at a time.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    storage::{contiguous, for_rows, tensor, zeros},
    vector::sum,
};

/// One over the root mean square of a row.
#[inline(always)]
fn scale<E: Element>(row: &[E], epsilon: f32) -> f32 {
    let squares = sum(row.len(), |i| row[i].load() * row[i].load());
    1.0 / (squares / row.len() as f32 + epsilon).sqrt()
}

/// See [`Ops::rms_norm`](crate::Ops::rms_norm).
pub(super) fn forward<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 1>,
    epsilon: f64,
) -> Tensor<Flex, 2> {
    let shape @ [_, width] = hidden.dims();
    let (hidden, weight) = (contiguous(hidden), contiguous(weight));
    let (hidden, weight) = (hidden.storage::<E>(), weight.storage::<E>());
    let mut output = zeros::<E>(hidden.len());
    for_rows(
        &mut output,
        width,
        #[inline(always)]
        |start, part| {
            let rows = hidden[start..].chunks_exact(width);
            for (output, row) in part.chunks_exact_mut(width).zip(rows) {
                let scale = scale(row, epsilon as f32);
                for ((output, x), weight) in output.iter_mut().zip(row).zip(weight) {
                    // Rounded before the weight, as transformers does.
                    *output = E::store(E::store(x.load() * scale).load() * weight.load());
                }
            }
        },
    );
    tensor(output, shape)
}

/// See [`Ops::rms_norm_backward`](crate::Ops::rms_norm_backward).
pub(super) fn backward<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 1>,
    epsilon: f64,
    above: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let shape @ [_, width] = hidden.dims();
    let (hidden, weight, above) = (contiguous(hidden), contiguous(weight), contiguous(above));
    let (hidden, weight) = (hidden.storage::<E>(), weight.storage::<E>());
    let above = above.storage::<E>();
    let mut output = zeros::<E>(hidden.len());
    for_rows(
        &mut output,
        width,
        #[inline(always)]
        |start, part| {
            let rows = hidden[start..].chunks_exact(width);
            let aboves = above[start..].chunks_exact(width);
            for ((output, x), dy) in part.chunks_exact_mut(width).zip(rows).zip(aboves) {
                let scale = scale(x, epsilon as f32);
                // n = x · scale, so dx = scale · (a − n · mean(a · n)) with a = dy · weight.
                let along = sum(width, |i| x[i].load() * (dy[i].load() * weight[i].load()));
                let along = along * scale * scale / width as f32;
                for (i, output) in output.iter_mut().enumerate() {
                    let a = dy[i].load() * weight[i].load();
                    *output = E::store(scale * (a - x[i].load() * along));
                }
            }
        },
    );
    tensor(output, shape)
}
