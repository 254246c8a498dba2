//! Copies of factors, in the kernel's order.

use std::{mem::MaybeUninit, ops::Range};

use super::Factor;
use crate::flex::{element::Element, storage::zeros, vector::vectorised};

/// f32s of a cache's line, and of the widest vector.
const LINE: usize = 16;

/// Inner indices of a row that are copied at a time, four lines of f32.
const RUN: usize = 4 * LINE;

/// Rows of a factor that are asked for ahead, where they are read as they are.
pub(super) const COPY_AHEAD: usize = 16;

/// Some inner indices of a tile's rows, `[rows, width]`, as `[inner, tile_rows]`. Writes to all of `tile`.
pub(super) fn tile(tile: &mut [MaybeUninit<f32>], rows: &[f32], width: usize, inner: Range<usize>) {
    let tile_rows = tile.len() / inner.len();
    vectorised(
        #[inline(always)]
        || {
            let rows = rows.chunks_exact(width);
            if rows.len() < tile_rows {
                tile.fill(MaybeUninit::new(0.0));
            }
            interleave(tile, tile_rows, rows, inner.start, MaybeUninit::new);
        },
    );
}

/// Panels of a right factor: side by side columns of some inner indices, each panel `[inner, width]`.
pub(super) struct Panels {
    /// A line too many.
    buffer: Vec<f32>,
    /// Where its first line begins.
    start: usize,
    width: usize,
}

impl Panels {
    /// Room for so many columns of so many inner indices, in panels of `width` columns.
    pub(super) fn new(inner: usize, columns: usize, width: usize) -> Self {
        let buffer = zeros::<f32>(inner * columns.next_multiple_of(width) + LINE);
        let aligned = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
        // Anywhere would do, only slower.
        let start = aligned.min(LINE);
        Self {
            buffer,
            start,
            width,
        }
    }

    /// These columns, a panel at a time.
    pub(super) fn of(
        &self,
        columns: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        let width = self.width;
        let starts = columns.clone().step_by(width);
        starts.map(move |start| start..columns.end.min(start + width))
    }

    /// Copies a part of the factor here; zeros are behind its columns in the last panel.
    #[inline(always)]
    pub(super) fn fill<E: Element>(
        &mut self,
        factor: &Factor<'_, E>,
        inner: Range<usize>,
        columns: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, &[f32])> + Clone {
        let width = self.width;
        let panel_columns = self.of(columns);
        let panels = self.buffer[self.start..].chunks_exact_mut(inner.len() * width);
        for (columns, panel) in panel_columns.clone().zip(panels) {
            if columns.len() < width {
                panel.fill(0.0);
            }
            match factor.transposed {
                false => copy(panel, width, factor, inner.clone(), columns),
                true => transpose(panel, width, factor, inner.clone(), columns),
            }
        }
        panel_columns.zip(self.buffer[self.start..].chunks_exact(inner.len() * width))
    }
}

/// Where the columns of an inner index stand side by side.
#[inline(always)]
fn copy<E: Element>(
    panel: &mut [f32],
    width: usize,
    factor: &Factor<'_, E>,
    inner: Range<usize>,
    columns: Range<usize>,
) {
    for (place, index) in panel.chunks_exact_mut(width).zip(inner) {
        let row = &factor.weight[index * factor.d_in..][columns.clone()];
        prefetch(
            row.as_ptr().wrapping_add(COPY_AHEAD * factor.d_in),
            row.len(),
        );
        for (place, x) in place.iter_mut().zip(row) {
            *place = x.load();
        }
    }
}

/// Where the inner indices of a column stand side by side.
#[inline(always)]
fn transpose<E: Element>(
    panel: &mut [f32],
    width: usize,
    factor: &Factor<'_, E>,
    inner: Range<usize>,
    columns: Range<usize>,
) {
    let rows = factor.weight[columns.start * factor.d_in..].chunks_exact(factor.d_in);
    interleave(
        panel,
        width,
        rows.take(columns.len()),
        inner.start,
        #[inline(always)]
        |x| x,
    );
}

/// Indices of rows, the first one and those behind it, as `[indices, width]`: a row is a column.
#[inline(always)]
fn interleave<'a, E: Element, T>(
    places: &mut [T],
    width: usize,
    rows: impl Iterator<Item = &'a [E]> + Clone,
    first: usize,
    number: impl Fn(f32) -> T,
) {
    for (run, places) in places.chunks_mut(RUN * width).enumerate() {
        let start = first + run * RUN;
        for (column, row) in rows.clone().enumerate() {
            let row = &row[start..][..places.len() / width];
            prefetch(row.as_ptr().wrapping_add(RUN), RUN);
            for (place, x) in places.chunks_exact_mut(width).zip(row) {
                place[column] = number(x.load());
            }
        }
    }
}

/// Asks for `len` elements, wherever they are, before they are needed.
#[inline(always)]
pub(super) fn prefetch<T>(start: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len * size_of::<T>()).step_by(LINE * size_of::<f32>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(
            unsafe_code,
            reason = "an address that is none of this process's is ignored by the processor"
        )]
        // SAFETY: see the reason.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start.cast::<i8>().wrapping_add(line));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}
