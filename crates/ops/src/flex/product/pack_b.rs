//! Packing a panel of B.

use std::{cell::RefCell, ops::Range};

use super::{
    format::Packed,
    matrix_b::MatrixB,
    transpose::{ToWord, transpose},
};
use crate::flex::{element::Element, storage::zeros, vector::prefetch};

/// f32s of a cache line, and of the widest vector.
const LINE: usize = 16;

/// Rows of B ahead of the one that is read, of which the same columns are prefetched.
pub(super) const PREFETCH_ROWS: usize = 16;

/// A thread's memory for a packed panel of B: KC rows, up to NC columns, in micro-panels of NR columns, each
/// `[words, NR]`.
#[derive(Default)]
pub(super) struct PackedB(Vec<f32>);

impl PackedB {
    /// Calls `body` with the memory that this thread keeps.
    pub(super) fn with<R>(body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static PACKED_B: RefCell<PackedB> = RefCell::default();
        }
        PACKED_B.with_borrow_mut(body)
    }

    /// Packs rows `k` of some columns of B. Columns that the last micro-panel has beyond them are zero.
    #[inline(always)]
    pub(super) fn pack<E: Element>(
        &mut self,
        packed: Packed,
        b: &MatrixB<'_, E>,
        k: &Range<usize>,
        columns: &Range<usize>,
        nr: usize,
    ) -> &[f32] {
        let words = k.len() / packed.k_per_word();
        let len = words * columns.len().next_multiple_of(nr);
        if self.0.len() < len + LINE {
            self.0 = zeros(len + LINE);
        }
        // Correct at any alignment, but faster at that of a cache line.
        let aligned = self.0.as_ptr().align_offset(LINE * size_of::<f32>());
        let panels = &mut self.0[aligned.min(LINE)..][..len];
        for (panel, start) in panels
            .chunks_exact_mut(words * nr)
            .zip(columns.clone().step_by(nr))
        {
            let columns = start..columns.end.min(start + nr);
            if columns.len() < nr {
                panel.fill(0.0);
            }
            match (b.is_transposed(), packed) {
                (false, Packed::F32) => copy(panel, nr, b, k.clone(), columns),
                (false, Packed::Bf16Pairs | Packed::Bf16Tiles) => {
                    copy_pairs(panel, nr, b, k.clone(), columns);
                }
                (true, Packed::F32) => {
                    let rows = b.weight_rows().skip(columns.start).take(columns.len());
                    transpose(panel, nr, rows, k.start, itself);
                }
                (true, Packed::Bf16Pairs | Packed::Bf16Tiles) => {
                    let rows = b.weight_rows().skip(columns.start).take(columns.len());
                    let rows = rows.map(
                        #[inline(always)]
                        |row| row.as_chunks::<2>().0,
                    );
                    transpose(panel, nr, rows, k.start / 2, itself);
                }
            }
        }
        panels
    }
}

/// The columns of a row of B stand side by side in the weight.
#[inline(always)]
fn copy<E: Element>(
    panel: &mut [f32],
    nr: usize,
    b: &MatrixB<'_, E>,
    k: Range<usize>,
    columns: Range<usize>,
) {
    for (places, row) in panel.chunks_exact_mut(nr).zip(k) {
        let row = part_of_row(b, row, &columns);
        for (place, x) in places.iter_mut().zip(row) {
            *place = x.load();
        }
    }
}

/// [`copy`] of two rows of B at a time.
#[inline(always)]
fn copy_pairs<E: Element>(
    panel: &mut [f32],
    nr: usize,
    b: &MatrixB<'_, E>,
    k: Range<usize>,
    columns: Range<usize>,
) {
    for (places, row) in panel.chunks_exact_mut(nr).zip(k.step_by(2)) {
        let low = part_of_row(b, row, &columns);
        let high = part_of_row(b, row + 1, &columns);
        for (place, (low, high)) in places.iter_mut().zip(low.iter().zip(high)) {
            *place = [*low, *high].word();
        }
    }
}

/// Some columns of a row of the weight; those of a later row are prefetched.
#[inline(always)]
fn part_of_row<'a, E>(b: &MatrixB<'a, E>, row: usize, columns: &Range<usize>) -> &'a [E] {
    let numbers = &b.row_from(row)[columns.clone()];
    let later = numbers.as_ptr().wrapping_add(PREFETCH_ROWS * b.row_len());
    prefetch(later, numbers.len());
    numbers
}

#[inline(always)]
fn itself(word: f32) -> f32 {
    word
}
