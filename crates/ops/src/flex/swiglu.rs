//! `silu(gate) · up`, elementwise.

use burn::tensor::Tensor;
use burn_flex::Flex;
use rayon::prelude::*;

use super::{
    element::Element,
    exp::sigmoid,
    storage::{contiguous, from_primitive, from_rows, rows_a_task, tensor},
    vector::vectorised,
};

/// See [`Ops::swiglu`](crate::Ops::swiglu).
pub(super) fn forward<E: Element>(gate: Tensor<Flex, 2>, up: Tensor<Flex, 2>) -> Tensor<Flex, 2> {
    let shape = gate.dims();
    let (gate, up) = (contiguous(gate), contiguous(up));
    let (gate, up) = (gate.storage::<E>(), up.storage::<E>());
    let output = from_rows(
        gate.len(),
        1,
        #[inline(always)]
        |start, unwritten| {
            let part = start..start + unwritten.len();
            unwritten.put(gate[part.clone()].iter().zip(&up[part]).map(
                #[inline(always)]
                |(gate, up)| {
                    let gate = gate.load();
                    E::store(gate * sigmoid(gate) * up.load())
                },
            ));
        },
    );
    tensor(output, shape)
}

/// See [`Ops::swiglu_backward`](crate::Ops::swiglu_backward). Gate and above are overwritten with the
/// gradients, unless somebody else holds them.
pub(super) fn backward<E: Element>(
    gate: Tensor<Flex, 2>,
    up: Tensor<Flex, 2>,
    above: Tensor<Flex, 2>,
) -> [Tensor<Flex, 2>; 2] {
    let (mut gate, up, mut above) = (contiguous(gate), contiguous(up), contiguous(above));
    let len = rows_a_task(1);
    gate.storage_mut::<E>()
        .par_chunks_mut(len)
        .zip(above.storage_mut::<E>().par_chunks_mut(len))
        .zip(up.storage::<E>().par_chunks(len))
        .for_each(|((gates, aboves), ups)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((gate, above), up) in gates.iter_mut().zip(aboves.iter_mut()).zip(ups) {
                        let (x, dy) = (gate.load(), above.load());
                        let sigmoid = sigmoid(x);
                        let silu = x * sigmoid;
                        // silu′ = σ · (1 + x · (1 − σ)) = σ + silu · (1 − σ)
                        let slope = silu.mul_add(1.0 - sigmoid, sigmoid);
                        *gate = E::store(dy * up.load() * slope);
                        *above = E::store(dy * silu);
                    }
                },
            );
        });
    [from_primitive(gate), from_primitive(above)]
}
