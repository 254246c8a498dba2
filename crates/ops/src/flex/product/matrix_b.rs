//! The matrix B of a product.

use std::ops::Range;

use crate::flex::element::Element;

/// The matrix B of a product, `[k, n]`: a weight `[d_out, d_in]`, or its transpose.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex) struct MatrixB<'a, E> {
    weight: &'a [E],
    d_in: usize,
    transposed: bool,
}

impl<'a, E> MatrixB<'a, E> {
    /// A weight as it is stored, `[k, n] = [d_out, d_in]`.
    ///
    /// # Panics
    /// If the weight has no whole number of rows.
    pub(in crate::flex) fn weight(weight: &'a [E], d_in: usize) -> Self {
        assert!(
            weight.len().is_multiple_of(d_in),
            "rows of {d_in} in {} elements",
            weight.len()
        );
        Self {
            weight,
            d_in,
            transposed: false,
        }
    }

    /// The transpose, which for a weight is `[k, n] = [d_in, d_out]`.
    pub(in crate::flex) fn transposed(self) -> Self {
        let transposed = !self.transposed;
        Self { transposed, ..self }
    }

    /// `[k, n]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        let d_out = self.weight.len() / self.d_in;
        match self.transposed {
            false => [d_out, self.d_in],
            true => [self.d_in, d_out],
        }
    }

    pub(super) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The rows of the weight, each of [`row_len`](Self::row_len) numbers.
    #[inline(always)]
    pub(super) fn weight_rows(&self) -> std::slice::ChunksExact<'a, E> {
        self.weight.chunks_exact(self.d_in)
    }

    /// Numbers in a row of the weight.
    pub(super) fn row_len(&self) -> usize {
        self.d_in
    }

    /// Some numbers of a row of the weight, and all that is stored after them.
    #[inline(always)]
    pub(super) fn row_from(&self, row: usize) -> &'a [E] {
        &self.weight[row * self.d_in..]
    }
}

impl<E: Element> MatrixB<'_, E> {
    /// The weight, if these columns are micro-panels of `nr` f32s that can be read where they are.
    pub(super) fn unpacked(&self, columns: &Range<usize>, nr: usize) -> Option<&[f32]> {
        let whole = columns.len().is_multiple_of(nr);
        E::as_f32(self.weight).filter(|_| whole && !self.transposed)
    }
}
