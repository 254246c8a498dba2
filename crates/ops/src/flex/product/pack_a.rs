//! The matrix A of a product, and packing a block of it.

use std::{mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

use super::{
    format::{AMX_ROW_WORDS, Format, MAX_MR, Packed},
    transpose::{RUN, ToWord, transpose},
};
use crate::flex::{element::Element, vector::vectorised};

/// One or several matrices A of one shape, `[m, k]`, that are packed at the same time.
///
/// # Safety
/// `pack` writes to all of the micro-panels.
#[expect(
    unsafe_code,
    reason = "what `pack` was given is read as numbers afterwards"
)]
pub(in crate::flex) unsafe trait MatrixA<const N: usize>: Sync {
    /// The numbers of one of the matrices, m · k.
    fn len(&self) -> usize;

    /// Packs a micro-panel of each matrix: at most MR rows of `row_len` numbers, and of each the range `k`. Rows that the
    /// micro-panel has beyond them become zeros.
    fn pack(
        &self,
        format: Format,
        panels: [&mut [MaybeUninit<f32>]; N],
        rows: Range<usize>,
        row_len: usize,
        k: Range<usize>,
    );
}

/// A matrix in memory, row after row.
#[expect(
    unsafe_code,
    reason = "`pack_rows` writes the rows that there are, and if they are fewer than MR, zeros stand in all others"
)]
// SAFETY: see the reason.
unsafe impl<E: Element> MatrixA<1> for [E] {
    fn len(&self) -> usize {
        self.len()
    }

    fn pack(
        &self,
        format: Format,
        [panel]: [&mut [MaybeUninit<f32>]; 1],
        rows: Range<usize>,
        row_len: usize,
        k: Range<usize>,
    ) {
        vectorised(
            #[inline(always)]
            || {
                if rows.len() < format.mr {
                    panel.fill(MaybeUninit::new(0.0));
                }
                let rows = self[rows.start * row_len..rows.end * row_len].chunks_exact(row_len);
                pack_rows(format, panel, rows, k.start);
            },
        );
    }
}

/// Matrices whose numbers are computed while they are packed, and are in no other memory.
pub(in crate::flex) struct Computed<F> {
    len: usize,
    numbers: F,
}

impl<F> Computed<F> {
    /// Matrices of `len` numbers each. `numbers(i, outputs)` writes the numbers from index `i` on, one for each place of
    /// the outputs, one output for each matrix. It must be marked for inlining (`vectorised` says why).
    pub(in crate::flex) fn new<const N: usize>(len: usize, numbers: F) -> Self
    where
        F: Fn(usize, [&mut [f32]; N]) + Sync,
    {
        Self { len, numbers }
    }
}

#[expect(
    unsafe_code,
    reason = "as for a slice, for each run of k, and the runs are all of them"
)]
// SAFETY: see the reason.
unsafe impl<F: Fn(usize, [&mut [f32]; N]) + Sync, const N: usize> MatrixA<N> for Computed<F> {
    fn len(&self) -> usize {
        self.len
    }

    fn pack(
        &self,
        format: Format,
        mut panels: [&mut [MaybeUninit<f32>]; N],
        rows: Range<usize>,
        row_len: usize,
        k: Range<usize>,
    ) {
        let (mr, k_per_word) = (format.mr, format.packed.k_per_word());
        vectorised(
            #[inline(always)]
            || {
                let mut computed = [[[0.0; RUN]; N]; MAX_MR];
                if rows.len() < mr {
                    for panel in &mut panels {
                        panel.fill(MaybeUninit::new(0.0));
                    }
                }
                for start in k.clone().step_by(RUN) {
                    let len = RUN.min(k.end - start);
                    for (row, computed) in rows.clone().zip(&mut computed) {
                        let outputs = computed.each_mut().map(|output| &mut output[..len]);
                        (self.numbers)(row * row_len + start, outputs);
                    }
                    let places = (start - k.start) / k_per_word * mr..;
                    for (matrix, panel) in panels.iter_mut().enumerate() {
                        let rows = computed[..rows.len()].iter().map(
                            #[inline(always)]
                            |row| &row[matrix][..len],
                        );
                        let places = &mut panel[places.clone()][..len / k_per_word * mr];
                        pack_rows(format, places, rows, 0);
                    }
                }
            },
        );
    }
}

/// Writes the numbers of some rows, from `first` on, to a micro-panel.
#[inline(always)]
fn pack_rows<'a, E: Element>(
    format: Format,
    panel: &mut [MaybeUninit<f32>],
    rows: impl Iterator<Item = &'a [E]> + Clone,
    first: usize,
) {
    match format.packed {
        Packed::F32 => transpose(panel, format.mr, rows, first, MaybeUninit::new),
        Packed::Bf16Pairs => {
            let rows = rows.map(
                #[inline(always)]
                |row| row.as_chunks::<2>().0,
            );
            transpose(panel, format.mr, rows, first / 2, MaybeUninit::new);
        }
        Packed::Bf16Tiles => pack_tiles(format.mr, panel, rows, first),
    }
}

/// [`pack_rows`] to `[k / 32, MR, 16]`, without transposing.
#[inline(always)]
fn pack_tiles<'a, E: Element>(
    mr: usize,
    panel: &mut [MaybeUninit<f32>],
    rows: impl Iterator<Item = &'a [E]>,
    first: usize,
) {
    let (register_rows, _) = panel.as_chunks_mut::<AMX_ROW_WORDS>();
    for (row, numbers) in rows.enumerate() {
        let (numbers, _) = numbers[first..].as_chunks::<{ 2 * AMX_ROW_WORDS }>();
        let register_rows = register_rows.iter_mut().skip(row).step_by(mr);
        for (words, numbers) in register_rows.zip(numbers) {
            for (word, pair) in words.iter_mut().zip(numbers.as_chunks::<2>().0) {
                word.write(pair.word());
            }
        }
    }
}

/// A packed block of A: MC rows, KC numbers of each.
pub(super) struct PackedA {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) k: Range<usize>,
    /// `[rows / MR, words, MR]`, or as the format has it.
    panels: Vec<f32>,
}

impl PackedA {
    /// Packs the block `rows` × `k` of each matrix, whose rows have `row_len` numbers, on all threads.
    pub(super) fn pack<const N: usize>(
        format: Format,
        matrix: &(impl MatrixA<N> + ?Sized),
        rows: Range<usize>,
        row_len: usize,
        k: Range<usize>,
    ) -> [Self; N] {
        let mr = format.mr;
        let panel_len = mr * (k.len() / format.packed.k_per_word());
        let len = rows.len().div_ceil(mr) * panel_len;
        let mut blocks = [(); N].map(|()| Self {
            format,
            rows: rows.len(),
            k: k.clone(),
            panels: Vec::with_capacity(len),
        });
        let mut parts = blocks
            .each_mut()
            .map(|block| block.panels.spare_capacity_mut()[..len].chunks_exact_mut(panel_len));
        let panels = rows.clone().step_by(mr).map(|start| {
            let panels = parts
                .each_mut()
                .map(|panels| panels.next().expect("one for these rows"));
            (start..rows.end.min(start + mr), panels)
        });
        let panels: Vec<_> = panels.collect();
        panels
            .into_par_iter()
            .for_each(|(rows, panels)| matrix.pack(format, panels, rows, row_len, k.clone()));
        for block in &mut blocks {
            #[expect(
                unsafe_code,
                reason = "there are some rows for each micro-panel, and `MatrixA` promises that all of one is written"
            )]
            // SAFETY: see the reason.
            unsafe {
                block.panels.set_len(len);
            }
        }
        blocks
    }

    /// Words for each row of A and each column of B.
    pub(super) fn words(&self) -> usize {
        self.k.len() / self.format.packed.k_per_word()
    }

    /// The micro-panels of `mr` rows.
    #[inline(always)]
    pub(super) fn panels(&self, mr: usize) -> std::slice::ChunksExact<'_, f32> {
        self.panels.chunks_exact(self.words() * mr)
    }
}
