//! A linear layer whose weight is a constant.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    few_tokens,
    product::{Factor, product},
    storage::{contiguous, narrow, tensor, wide},
};

/// Up to so many tokens the weight's way from memory is the cost, and each of its rows is read once.
const FEW_TOKENS: usize = 32;

/// See [`Ops::frozen_linear`](crate::Ops::frozen_linear).
pub(super) fn forward<E: Element>(
    input: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
    bias: Option<Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    let ([tokens, d_in], d_out) = (input.dims(), weight.dims()[0]);
    let (input, weight, bias) = (contiguous(input), contiguous(weight), bias.map(contiguous));
    let (input, weight) = (input.storage::<E>(), weight.storage::<E>());
    let bias = bias.as_ref().map(|bias| bias.storage::<E>());
    let output = match tokens {
        0..=FEW_TOKENS => few_tokens::product(&wide(input), weight, bias, [tokens, d_in, d_out]),
        _ => {
            let weight = Factor::weight(weight, d_in).transposed();
            narrow(product(input, weight, bias))
        }
    };
    tensor(output, [tokens, d_out])
}

/// See [`Ops::frozen_linear_backward`](crate::Ops::frozen_linear_backward).
pub(super) fn backward<E: Element>(
    above: Tensor<Flex, 2>,
    weight: Tensor<Flex, 2>,
) -> Tensor<Flex, 2> {
    let (tokens, d_in) = (above.dims()[0], weight.dims()[1]);
    let (above, weight) = (contiguous(above), contiguous(weight));
    let weight = Factor::weight(weight.storage::<E>(), d_in);
    let output = product(above.storage::<E>(), weight, None);
    tensor(narrow::<E>(output), [tokens, d_in])
}
