//! SwiGLU: `silu(gate) · up`, elementwise.

use burn::tensor::Tensor;
use burn_flex::Flex;
use rayon::prelude::*;

use super::{
    element::Element,
    exp::sigmoid,
    product::{Computed, MatrixA, RUN},
    storage::{contiguous, from_primitive, from_rows, rows_a_task, tensor},
    vector::{prefetch, vectorised},
};

#[inline(always)]
fn gated<E: Element>(gate: E, up: E) -> E {
    let gate = gate.load();
    E::store(gate * sigmoid(gate) * up.load())
}

/// The gradients of gate and up.
#[inline(always)]
fn gradients<E: Element>(gate: E, up: E, above: E) -> [E; 2] {
    let (x, dy) = (gate.load(), above.load());
    let sigmoid = sigmoid(x);
    let silu = x * sigmoid;
    // silu′ = σ · (1 + x · (1 − σ)) = σ + silu · (1 − σ)
    let slope = silu.mul_add(1.0 - sigmoid, sigmoid);
    [E::store(dy * up.load() * slope), E::store(dy * silu)]
}

/// SwiGLU as the matrix A of a product, computed while it is packed.
pub(super) fn gated_rows<E: Element>(gate: &[E], up: &[E]) -> impl MatrixA<1> {
    assert_eq!(gate.len(), up.len(), "the elements of gate and up");
    Computed::new(
        gate.len(),
        #[inline(always)]
        |start, [places]: [&mut [f32]; 1]| {
            let (gates, ups) = (
                part(gate, start, places.len()),
                part(up, start, places.len()),
            );
            for (place, (gate, up)) in places.iter_mut().zip(gates.iter().zip(ups)) {
                *place = gated(*gate, *up).load();
            }
        },
    )
}

/// The gradients of gate and up as the matrices A of two products, computed while they are packed.
pub(super) fn gradient_rows<E: Element>(gate: &[E], up: &[E], above: &[E]) -> impl MatrixA<2> {
    assert!(
        gate.len() == up.len() && gate.len() == above.len(),
        "the elements of gate, up and above"
    );
    Computed::new(
        gate.len(),
        #[inline(always)]
        |start, [of_gate, of_up]: [&mut [f32]; 2]| {
            let len = of_gate.len();
            let inputs = part(gate, start, len).iter().zip(part(up, start, len));
            let inputs = inputs.zip(part(above, start, len));
            let outputs = of_gate.iter_mut().zip(of_up);
            for ((of_gate, of_up), ((gate, up), above)) in outputs.zip(inputs) {
                let [gate, up] = gradients(*gate, *up, *above);
                (*of_gate, *of_up) = (gate.load(), up.load());
            }
        },
    )
}

/// `len` numbers; the ones after them are prefetched.
#[inline(always)]
fn part<E>(numbers: &[E], start: usize, len: usize) -> &[E] {
    prefetch(numbers.as_ptr().wrapping_add(start + RUN), len);
    &numbers[start..][..len]
}

/// See [`Kernels::swiglu`](crate::Kernels::swiglu).
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
                |(gate, up)| gated(*gate, *up),
            ));
        },
    );
    tensor(output, shape)
}

/// See [`Kernels::swiglu_backward`](crate::Kernels::swiglu_backward). The gradients overwrite gate and above, unless
/// these tensors are shared.
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
                        [*gate, *above] = gradients(*gate, *up, *above);
                    }
                },
            );
        });
    [from_primitive(gate), from_primitive(above)]
}
