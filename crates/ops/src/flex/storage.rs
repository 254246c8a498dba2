//! Tensors as slices and slices as tensors; numbers as f32 and f32 as numbers.

use std::{
    borrow::Cow,
    mem::{MaybeUninit, take},
};

use burn::tensor::{Bytes, Shape, Tensor, TensorPrimitive};
use burn_flex::{Flex, FlexTensor, Layout};
use rayon::prelude::*;

use super::{element::Element, vector::vectorised};

/// A task has so many numbers at least; waking another core takes longer than computing fewer.
const GRAIN: usize = 1 << 14;

/// The primitive, copied unless its buffer holds its elements in order and nothing else. A buffer that is not shared may be
/// written to in place.
pub(super) fn contiguous<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    let primitive = tensor.into_primitive().tensor();
    let whole = primitive.bytes().len() == primitive.layout().num_elements() * size(&primitive);
    match whole && primitive.is_contiguous() && primitive.layout().start_offset() == 0 {
        true => primitive,
        false => primitive.to_contiguous(),
    }
}

fn size(primitive: &FlexTensor) -> usize {
    primitive.dtype().size()
}

/// The primitive, copied unless numbers along its last axis stand side by side and no stride is negative.
pub(super) fn rows_in_order<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    let primitive = tensor.into_primitive().tensor();
    let strides = primitive.layout().strides();
    let forward = strides.iter().all(|stride| *stride >= 0);
    match forward && strides[D - 1] == 1 {
        true => primitive,
        false => primitive.to_contiguous(),
    }
}

/// A tensor of elements in row-major order.
pub(super) fn tensor<E: Element, const D: usize>(
    elements: Vec<E>,
    shape: [usize; D],
) -> Tensor<Flex, D> {
    let layout = Layout::contiguous(Shape::from(shape));
    from_layout(elements, layout)
}

/// A tensor `[batch, heads, seq, head_dim]` of elements in the order `[batch, seq, heads, head_dim]`.
pub(super) fn heads_tensor<E: Element>(elements: Vec<E>, shape: [usize; 4]) -> Tensor<Flex, 4> {
    let [batch, heads, seq, head_dim] = shape;
    let stored = Layout::contiguous(Shape::from([batch, seq, heads, head_dim]));
    from_layout(elements, stored.transpose(1, 2))
}

fn from_layout<E: Element, const D: usize>(elements: Vec<E>, layout: Layout) -> Tensor<Flex, D> {
    let primitive = FlexTensor::new(Bytes::from_elems(elements), layout, E::dtype());
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The tensor of a primitive.
pub(super) fn from_primitive<const D: usize>(primitive: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// `len` zeros. (Memory that comes fresh from the system is not cleared again.)
pub(super) fn zeros<E: Element>(len: usize) -> Vec<E> {
    bytemuck::zeroed_vec(len)
}

/// Elements in a task: whole rows of `width` elements.
pub(super) fn rows_a_task(width: usize) -> usize {
    GRAIN.div_ceil(width.max(1)).max(1) * width.max(1)
}

/// Calls `body(start, part)` for parts of `output` of `rows_a_task(width)` elements each, on all cores and compiled for the
/// processor's vectors. A part begins at index `start`.
pub(super) fn for_rows<T: Send>(
    output: &mut [T],
    width: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    let len = rows_a_task(width);
    if output.len() <= len {
        // Waking another core would take longer.
        return vectorised(
            #[inline(always)]
            || body(0, output),
        );
    }
    output
        .par_chunks_mut(len)
        .enumerate()
        .for_each(|(index, part)| {
            vectorised(
                #[inline(always)]
                || body(index * len, part),
            )
        });
}

/// Uninitialised places that are written to one after the other.
pub(super) struct Unwritten<'a, E>(&'a mut [MaybeUninit<E>]);

impl<E> Unwritten<'_, E> {
    /// How many places are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes to the next places.
    #[inline(always)]
    pub(super) fn put(&mut self, numbers: impl ExactSizeIterator<Item = E>) {
        let (places, rest) = take(&mut self.0).split_at_mut(numbers.len());
        let mut written = 0;
        for (place, number) in places.iter_mut().zip(numbers) {
            place.write(number);
            written += 1;
        }
        assert_eq!(written, places.len(), "the numbers of an iterator");
        self.0 = rest;
    }
}

/// `len` elements that `body` writes. It is called as by [`for_rows`], and has to write to all places of a part.
///
/// # Panics
/// If a place was not written to.
pub(super) fn from_rows<E: Element>(
    len: usize,
    width: usize,
    body: impl Fn(usize, &mut Unwritten<'_, E>) + Sync,
) -> Vec<E> {
    let mut output = Vec::with_capacity(len);
    for_rows(
        &mut output.spare_capacity_mut()[..len],
        width,
        #[inline(always)]
        |start, part| {
            let mut places = Unwritten(part);
            body(start, &mut places);
            assert_eq!(places.len(), 0, "places that were not written to");
        },
    );
    #[expect(
        unsafe_code,
        reason = "`for_rows` went through all places, and a part with some left ends in a panic"
    )]
    // SAFETY: see the reason.
    unsafe {
        output.set_len(len);
    }
    output
}

/// A tensor `[batch, heads, seq, head_dim]` in the memory order `[batch, seq, heads, head_dim]`. `body` writes
/// the `head_dim` numbers of each `[batch, head, position]`.
pub(super) fn from_heads<E: Element>(
    shape: [usize; 4],
    body: impl Fn([usize; 3], &mut Unwritten<'_, E>) + Sync,
) -> Tensor<Flex, 4> {
    let [batch, heads, seq, head_dim] = shape;
    let width = heads * head_dim;
    let elements = from_rows(
        batch * seq * width,
        width,
        #[inline(always)]
        |start, unwritten| {
            for token in start / width..(start + unwritten.len()) / width {
                for head in 0..heads {
                    body([token / seq, head, token % seq], unwritten);
                }
            }
        },
    );
    heads_tensor(elements, shape)
}

/// The numbers as f32, copied only if they are stored otherwise.
pub(super) fn wide<E: Element>(numbers: &[E]) -> Cow<'_, [f32]> {
    match E::as_f32(numbers) {
        Some(numbers) => Cow::Borrowed(numbers),
        None => Cow::Owned(converted(numbers, E::load)),
    }
}

/// Each number converted.
fn converted<A: Element, B: Element>(numbers: &[A], number: impl Fn(A) -> B + Sync) -> Vec<B> {
    from_rows(
        numbers.len(),
        1,
        #[inline(always)]
        |start, places| {
            let numbers = &numbers[start..][..places.len()];
            places.put(numbers.iter().map(|x| number(*x)));
        },
    )
}

/// f32s as a type, rounded if it is narrower.
pub(super) fn narrow<E: Element>(wide: Vec<f32>) -> Vec<E> {
    E::from_f32s(wide).unwrap_or_else(|wide| converted(&wide, E::store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "places that were not written to")]
    fn a_part_that_is_not_written_is_no_output() {
        let _ = from_rows::<f32>(3, 1, |_, unwritten| unwritten.put([1.0, 2.0].into_iter()));
    }
}
