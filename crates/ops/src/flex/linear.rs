//! A linear layer whose weight is a constant.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    few_tokens,
    product::{Factor, product, products},
    storage::{contiguous, tensor, wide},
};
use crate::LinearLayer;

/// Up to so many tokens the weight's way from memory is the cost, and each of its rows is read once.
const FEW_TOKENS: usize = 32;

/// See [`Ops::frozen_linears`](crate::Ops::frozen_linears).
pub(super) fn forward<E: Element, const N: usize>(
    input: Tensor<Flex, 2>,
    layers: [LinearLayer<Flex>; N],
) -> [Tensor<Flex, 2>; N] {
    let [tokens, d_in] = input.dims();
    let input = contiguous(input);
    let input = input.storage::<E>();
    let layers = layers.map(|(weight, bias)| (contiguous(weight), bias.map(contiguous)));
    let layers = layers.each_ref().map(|(weight, bias)| {
        let bias = bias.as_ref().map(|bias| bias.storage::<E>());
        (weight.storage::<E>(), bias)
    });
    let outputs = match tokens {
        0..=FEW_TOKENS => {
            let input = wide(input);
            layers.map(|(weight, bias)| {
                let shape = [tokens, d_in, weight.len() / d_in];
                few_tokens::product(&input, weight, bias, shape)
            })
        }
        _ => {
            let factor = |weight| Factor::weight(weight, d_in).transposed();
            products(input, layers.map(|(weight, bias)| (factor(weight), bias)))
        }
    };
    let mut widths = layers.map(|(weight, _)| weight.len() / d_in).into_iter();
    outputs.map(|output| tensor(output, [tokens, widths.next().expect("one a layer")]))
}

/// See [`Ops::frozen_linear_backward`](crate::Ops::frozen_linear_backward).
pub(super) fn backward<E: Element>(
    above: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let (tokens, d_in) = (above.dims()[0], weight.dims()[1]);
    let (above, weight) = (contiguous(above), contiguous(weight));
    let weight = Factor::weight(weight.storage::<E>(), d_in);
    let output: Vec<E> = product(above.storage::<E>(), weight, None);
    tensor(output, [tokens, d_in])
}
