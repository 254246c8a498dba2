//! Rotary position embedding.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    storage::{contiguous, from_heads, rows_in_order},
};

/// See [`Kernels::rotary`](crate::Kernels::rotary). The output stands in memory as `[batch, seq, heads,
/// head_dim]`, so that the projections around it need no copy.
pub(super) fn rotate<E: Element>(
    states: Tensor<Flex, 4>,
    cos: Tensor<Flex, 4>,
    sin: Tensor<Flex, 4>,
) -> Tensor<Flex, 4> {
    let shape @ [_, _, seq, head_dim] = states.dims();
    let half = head_dim / 2;
    let angles_differ = cos.dims()[0] > 1;
    let states = rows_in_order(states);
    let strides: Vec<usize> = states
        .layout()
        .strides()
        .iter()
        .map(|s| *s as usize)
        .collect();
    let offset = states.layout().start_offset();
    let states = states.storage::<E>();
    let (cos, sin) = (contiguous(cos), contiguous(sin));
    let (cos, sin) = (cos.storage::<E>(), sin.storage::<E>());
    from_heads(
        shape,
        #[inline(always)]
        |[row, head, place], unwritten| {
            let angle = half
                * if angles_differ {
                    row * seq + place
                } else {
                    place
                };
            let (cos, sin) = (&cos[angle..][..half], &sin[angle..][..half]);
            let at = offset + row * strides[0] + head * strides[1] + place * strides[2];
            let (first, second) = states[at..][..head_dim].split_at(half);
            let pairs = first.iter().zip(second).zip(cos.iter().zip(sin));
            let pairs = pairs.map(
                #[inline(always)]
                |((x, y), (cos, sin))| (x.load(), y.load(), cos.load(), sin.load()),
            );
            unwritten.put(pairs.clone().map(
                #[inline(always)]
                |(x, y, cos, sin)| E::store(x * cos - y * sin),
            ));
            unwritten.put(pairs.map(
                #[inline(always)]
                |(x, y, cos, sin)| E::store(y * cos + x * sin),
            ));
        },
    )
}
