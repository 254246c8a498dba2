//! Root-mean-square normalisation, a row at a time.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    storage::{contiguous, from_rows, tensor},
    vector::sum,
};

/// One over the root mean square of a row.
#[inline(always)]
fn scale<E: Element>(row: &[E], epsilon: f32) -> f32 {
    let squares = sum(
        [row],
        #[inline(always)]
        |[x]| x * x,
    );
    1.0 / (squares / row.len() as f32 + epsilon).sqrt()
}

/// See [`Kernels::rms_norm`](crate::Kernels::rms_norm).
pub(super) fn forward<E: Element>(
    hidden: Tensor<Flex, 2>,
    weight: Tensor<Flex, 1>,
    epsilon: f64,
) -> Tensor<Flex, 2> {
    let shape @ [_, width] = hidden.dims();
    let (hidden, weight) = (contiguous(hidden), contiguous(weight));
    let (hidden, weight) = (hidden.storage::<E>(), weight.storage::<E>());
    let output = from_rows(
        hidden.len(),
        width,
        #[inline(always)]
        |start, unwritten| {
            for row in hidden[start..][..unwritten.len()].chunks_exact(width) {
                let scale = scale(row, epsilon as f32);
                unwritten.put(row.iter().zip(weight).map(
                    // Rounded before the weight, as transformers does.
                    #[inline(always)]
                    |(x, weight)| E::store(E::store(x.load() * scale).load() * weight.load()),
                ));
            }
        },
    );
    tensor(output, shape)
}

/// See [`Kernels::rms_norm_backward`](crate::Kernels::rms_norm_backward).
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
    let output = from_rows(
        hidden.len(),
        width,
        #[inline(always)]
        |start, unwritten| {
            let part = start..start + unwritten.len();
            let rows = hidden[part.clone()].chunks_exact(width);
            for (x, dy) in rows.zip(above[part].chunks_exact(width)) {
                let scale = scale(x, epsilon as f32);
                // n = x · scale, so dx = scale · (a − n · mean(a · n)) with a = dy · weight.
                let along = sum(
                    [x, dy, weight],
                    #[inline(always)]
                    |[x, dy, weight]| x * (dy * weight),
                );
                let along = along * scale * scale / width as f32;
                unwritten.put(x.iter().zip(dy).zip(weight).map(
                    #[inline(always)]
                    |((x, dy), weight)| {
                        let a = dy.load() * weight.load();
                        E::store(scale * (a - x.load() * along))
                    },
                ));
            }
        },
    );
    tensor(output, shape)
}
