//! A linear layer whose weight is a constant.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    few_tokens,
    product::{MatrixB, product, products, sum_of_products},
    storage::{contiguous, tensor, wide},
    swiglu,
};
use crate::{FrozenWeight, LinearLayer, composed};

/// Up to so many tokens the weight's way from memory is the cost, and each of its rows is read once.
const FEW_TOKENS: usize = 32;

/// See [`Kernels::frozen_linears`](crate::Kernels::frozen_linears).
pub(super) fn forward<E: Element>(
    input: Tensor<Flex, 2>,
    layers: &[LinearLayer<Flex>],
) -> Vec<Tensor<Flex, 2>> {
    let [tokens, d_in] = input.dims();
    let input = contiguous(input);
    let input = input.storage::<E>();
    let contiguous = |(weight, bias): &LinearLayer<Flex>| {
        (contiguous(weight.dense()), bias.clone().map(contiguous))
    };
    let layers: Vec<_> = layers.iter().map(contiguous).collect();
    let layers = layers.iter().map(|(weight, bias)| {
        let bias = bias.as_ref().map(|bias| bias.storage::<E>());
        (weight.storage::<E>(), bias)
    });
    let widths = layers.clone().map(|(weight, _)| weight.len() / d_in);
    let outputs: Vec<Vec<E>> = match tokens {
        0..=FEW_TOKENS => {
            let input = wide(input);
            let layers = layers.zip(widths.clone());
            let outputs = layers.map(|((weight, bias), width)| {
                few_tokens::product(&input, weight, bias, [tokens, d_in, width])
            });
            outputs.collect()
        }
        _ => {
            let factor = |weight| MatrixB::weight(weight, d_in).transposed();
            let factors = layers.map(|(weight, bias)| (factor(weight), bias));
            products(input, factors.collect())
        }
    };
    let outputs = outputs.into_iter().zip(widths);
    let outputs = outputs.map(|(output, width)| tensor(output, [tokens, width]));
    outputs.collect()
}

/// See [`Kernels::frozen_linear_backward`](crate::Kernels::frozen_linear_backward).
pub(super) fn backward<E: Element>(
    above: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let (tokens, d_in) = (above.dims()[0], weight.dims()[1]);
    let (above, weight) = (contiguous(above), contiguous(weight));
    let weight = MatrixB::weight(weight.storage::<E>(), d_in);
    let output: Vec<E> = product(above.storage::<E>(), weight, None);
    tensor(output, [tokens, d_in])
}

/// See [`Kernels::swiglu_linear`](crate::Kernels::swiglu_linear).
pub(super) fn behind_swiglu<E: Element>(
    gate: Tensor<Flex, 2>,
    up: Tensor<Flex, 2>,
    weight: &FrozenWeight<Flex>,
) -> Tensor<Flex, 2> {
    let (tokens, [d_out, d_ff]) = (gate.dims()[0], weight.dims());
    if tokens <= FEW_TOKENS {
        return composed::swiglu_linear(gate, up, weight);
    }
    let [gate, up, weight] = [gate, up, weight.dense()].map(contiguous);
    let rows = swiglu::gated_rows(gate.storage::<E>(), up.storage::<E>());
    let weight = MatrixB::weight(weight.storage::<E>(), d_ff).transposed();
    tensor(product::<E, E>(&rows, weight, None), [tokens, d_out])
}

/// See [`Kernels::swiglu_linears_backward`](crate::Kernels::swiglu_linears_backward).
pub(super) fn swiglu_backward<E: Element>(
    gate: Tensor<Flex, 2>,
    up: Tensor<Flex, 2>,
    weights: [Tensor<Flex, 2>; 2],
    above: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let (tokens, d_in) = (gate.dims()[0], weights[0].dims()[1]);
    let ([gate, up, above], weights) = ([gate, up, above].map(contiguous), weights.map(contiguous));
    let rows = swiglu::gradient_rows(gate.storage::<E>(), up.storage::<E>(), above.storage::<E>());
    let factors = weights
        .each_ref()
        .map(|weight| MatrixB::weight(weight.storage::<E>(), d_in));
    tensor(sum_of_products::<E, E, 2>(&rows, factors), [tokens, d_in])
}
