//! A block of C, and writing a tile of it.

use std::{mem::MaybeUninit, ops::Range};

use pulp::Simd;

use super::{matrix_b::MatrixB, pack_a::PackedA};
use crate::flex::{element::Element, vector::prefetch};

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub(super) enum AddTo<'a, E> {
    Nothing,
    /// One number for each column.
    Bias(&'a [E]),
    /// What C holds already.
    C,
}

/// The product of a packed block of A with the same rows of B. Its shapes fit, and blocks of its C may be computed at
/// the same time.
pub(super) struct Product<'a, E, O> {
    pub(super) a: &'a PackedA,
    pub(super) b: MatrixB<'a, E>,
    /// `[rows of A, n]`.
    pub(super) c: *mut MaybeUninit<O>,
    pub(super) n: usize,
    pub(super) add_to: AddTo<'a, E>,
}

#[expect(
    unsafe_code,
    reason = "the pointer is of a slice that `multiply` borrows alone until all tasks have ended, and no two \
              tasks write to one place"
)]
// SAFETY: see the reason.
unsafe impl<E: Sync, O: Send> Sync for Product<'_, E, O> {}

/// The vectors of a tile of C, MR rows by NR columns.
pub(super) type Tile<S, const MR: usize, const NV: usize> = [[<S as Simd>::f32s; NV]; MR];

/// What the macro-kernel computes: the rows of C of some micro-panels of A, in some columns.
pub(super) struct Block<'a, E, O> {
    pub(super) product: &'a Product<'a, E, O>,
    pub(super) a_panels: Range<usize>,
    /// Several whole micro-panels of B, or one that may be narrower.
    pub(super) columns: Range<usize>,
}

impl<E: Element, O: Element> Block<'_, E, O> {
    /// The columns of each micro-panel of B.
    pub(super) fn b_panels(
        &self,
        nr: usize,
    ) -> impl Iterator<Item = Range<usize>> + Clone + use<E, O> {
        let end = self.columns.end;
        let starts = self.columns.clone().step_by(nr);
        starts.map(move |start| start..end.min(start + nr))
    }

    /// Some columns of a row of C.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "C is borrowed mutably, behind a pointer"
    )]
    fn row_of_c(&self, row: usize, columns: &Range<usize>) -> &mut [MaybeUninit<O>] {
        let product = self.product;
        assert!(row < product.a.rows && columns.start <= columns.end && columns.end <= product.n);
        let place = product.c.wrapping_add(row * product.n + columns.start);
        #[expect(
            unsafe_code,
            reason = "inside C, and no two tasks have a place of it, nor does a task hold one twice"
        )]
        // SAFETY: see the reason.
        unsafe {
            std::slice::from_raw_parts_mut(place, columns.len())
        }
    }

    /// The rows of a micro-panel of A: MR, or fewer in the last one.
    #[inline(always)]
    fn rows<const MR: usize>(&self, a_panel: usize) -> usize {
        MR.min(self.product.a.rows - a_panel * MR)
    }

    /// Prefetches the cache lines of a tile.
    #[inline(always)]
    pub(super) fn prefetch_tile<const MR: usize>(&self, a_panel: usize, columns: &Range<usize>) {
        for row in 0..self.rows::<MR>(a_panel) {
            let places = self.row_of_c(a_panel * MR + row, columns);
            prefetch(places.as_ptr(), columns.len());
        }
    }

    /// Writes a tile to C, as far as it is inside. (The tile is borrowed, because one of AMX, which is in memory, would
    /// be copied.)
    #[inline(always)]
    pub(super) fn write_tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        simd: S,
        a_panel: usize,
        columns: &Range<usize>,
        tile: &Tile<S, MR, NV>,
    ) {
        let rows = self.rows::<MR>(a_panel);
        let places = |row| self.row_of_c(a_panel * MR + row, columns);
        let bias = self.bias(simd, columns);
        if rows == MR && columns.len() == NV * S::F32_LANES {
            for (row, sums) in tile.iter().enumerate() {
                self.write_row(simd, places(row), sums, &bias);
            }
        } else {
            // A copy, so that whole tiles can stay in registers.
            let tile: [_; MR] = std::array::from_fn(
                #[inline(always)]
                |row| tile[row],
            );
            for (row, sums) in tile.iter().enumerate().take(rows) {
                let (sums, bias) = (bytemuck::cast_slice(sums), bytemuck::cast_slice(&bias));
                self.write_part_of_row(places(row), sums, bias);
            }
        }
    }

    /// Zeros where there is no bias.
    #[inline(always)]
    fn bias<S: Simd, const NV: usize>(&self, simd: S, columns: &Range<usize>) -> [S::f32s; NV] {
        let mut vectors = [simd.splat_f32s(0.0); NV];
        if let AddTo::Bias(bias) = self.product.add_to {
            let places = bytemuck::cast_slice_mut::<_, f32>(&mut vectors);
            for (place, x) in places.iter_mut().zip(&bias[columns.clone()]) {
                *place = x.load();
            }
        }
        vectors
    }

    #[inline(always)]
    fn write_row<S: Simd, const NV: usize>(
        &self,
        simd: S,
        places: &mut [MaybeUninit<O>],
        sums: &[S::f32s; NV],
        bias: &[S::f32s; NV],
    ) {
        let places = places.chunks_exact_mut(S::F32_LANES);
        for ((places, sum), bias) in places.zip(sums).zip(bias) {
            let mut sum = [simd.add_f32s(*sum, *bias)];
            if matches!(self.product.add_to, AddTo::C) {
                add(bytemuck::cast_slice_mut(&mut sum), places);
            }
            O::store_vector(simd, sum[0], places);
        }
    }

    #[inline(never)]
    fn write_part_of_row(&self, places: &mut [MaybeUninit<O>], sums: &[f32], bias: &[f32]) {
        for ((place, sum), bias) in places.iter_mut().zip(sums).zip(bias) {
            let mut sum = [sum + bias];
            if matches!(self.product.add_to, AddTo::C) {
                add(&mut sum, std::slice::from_ref(place));
            }
            place.write(O::store(sum[0]));
        }
    }
}

/// Adds what these places of C hold.
#[inline(always)]
fn add<O: Element>(sums: &mut [f32], places: &[MaybeUninit<O>]) {
    for (sum, place) in sums.iter_mut().zip(places) {
        #[expect(unsafe_code, reason = "`AddTo::C` says that they were written to")]
        // SAFETY: see the reason.
        let number = unsafe { place.assume_init() };
        *sum += number.load();
    }
}
