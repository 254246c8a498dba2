//! Cells of a cache, written in place.

use burn::tensor::Tensor;
use burn_flex::Flex;

use super::{
    element::Element,
    storage::{contiguous, from_primitive, rows_in_order},
};

/// See [`Kernels::write_cells`](crate::Kernels::write_cells).
pub(super) fn write<E: Element>(
    held: Tensor<Flex, 4>,
    new: Tensor<Flex, 4>,
    places: &[[usize; 2]],
) -> Tensor<Flex, 4> {
    let [rows, heads, cells, head_dim] = held.dims();
    assert_eq!(
        new.dims(),
        [1, heads, places.len(), head_dim],
        "a place for each token"
    );
    let mut held = contiguous(held);
    let new = rows_in_order(new);
    let (start, strides) = (new.layout().start_offset(), new.layout().strides());
    let (by_head, by_token) = (strides[1] as usize, strides[2] as usize);
    let from = new.storage::<E>();
    let to = held.storage_mut::<E>();
    for (token, [row, cell]) in places.iter().enumerate() {
        assert!(*row < rows && *cell < cells, "a cell of the cache");
        for head in 0..heads {
            let source = start + head * by_head + token * by_token;
            let target = ((row * heads + head) * cells + cell) * head_dim;
            to[target..target + head_dim].copy_from_slice(&from[source..source + head_dim]);
        }
    }
    from_primitive(held)
}
