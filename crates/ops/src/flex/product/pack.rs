//! Copies of factors, in the kernel's order.

use std::{cell::RefCell, mem::MaybeUninit, ops::Range};

use wide::f32x4;

use super::{
    Factor,
    kernel::{Kernel, MOST_ROWS},
};
use crate::flex::{element::Element, storage::zeros, vector::vectorised};

/// f32s of a cache's line, and of the widest vector.
const LINE: usize = 16;

/// Inner indices of a row that are copied at a time, four lines of f32.
pub(in crate::flex) const RUN: usize = 4 * LINE;

/// Rows of a factor that are asked for ahead, where they are read as they are.
pub(super) const COPY_AHEAD: usize = 16;

/// What is in the 32 bits in which a factor is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A number.
    F32,
    /// The bf16s of two inner indices.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "only kernels of x86-64 take them")
    )]
    Pair,
}

impl Word {
    /// Inner indices that it is of.
    pub(super) fn indices(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Pair => 2,
        }
    }
}

/// Numbers that make a word.
pub(super) trait ToWord: Copy {
    /// Its bits.
    fn word(self) -> f32;
}

impl<E: Element> ToWord for E {
    #[inline(always)]
    fn word(self) -> f32 {
        self.load()
    }
}

impl<E: Element> ToWord for [E; 2] {
    #[inline(always)]
    fn word(self) -> f32 {
        let [low, high] = self.map(
            #[inline(always)]
            |x| u32::from(x.narrow().to_bits()),
        );
        f32::from_bits(high << 16 | low)
    }
}

/// Where the rows of left factors come from, `[rows, width]` each. All factors are read at once.
///
/// # Safety
/// `copy` writes to all of the tiles.
#[expect(unsafe_code, reason = "what `copy` was given is read as numbers")]
pub(in crate::flex) unsafe trait Rows<const N: usize>: Sync {
    /// The numbers of a factor.
    fn len(&self) -> usize;

    /// Copies some inner indices of a tile's rows, for each factor in the kernel's order, and zeros behind the
    /// last row.
    fn copy(
        &self,
        kernel: Kernel,
        tiles: [&mut [MaybeUninit<f32>]; N],
        rows: Range<usize>,
        width: usize,
        inner: Range<usize>,
    );
}

/// As they stand in memory.
#[expect(
    unsafe_code,
    reason = "`place` writes as many rows as there are, and zeros stand where a tile has more"
)]
// SAFETY: see the reason.
unsafe impl<E: Element> Rows<1> for [E] {
    fn len(&self) -> usize {
        self.len()
    }

    fn copy(
        &self,
        kernel: Kernel,
        [tile]: [&mut [MaybeUninit<f32>]; 1],
        rows: Range<usize>,
        width: usize,
        inner: Range<usize>,
    ) {
        let [tile_rows, _] = kernel.tile();
        vectorised(
            #[inline(always)]
            || {
                if rows.len() < tile_rows {
                    tile.fill(MaybeUninit::new(0.0));
                }
                let rows = self[rows.start * width..rows.end * width].chunks_exact(width);
                kernel.place(tile, tile_rows, rows, inner.start);
            },
        );
    }
}

/// Rows whose numbers are computed as they are copied.
pub(in crate::flex) struct Computed<F> {
    len: usize,
    numbers: F,
}

impl<F> Computed<F> {
    /// Factors of `len` numbers each. `numbers` writes those from an index on, as many as there are places. It must be marked for
    /// inlining (`vectorised` says why).
    pub(in crate::flex) fn new<const N: usize>(len: usize, numbers: F) -> Self
    where
        F: Fn(usize, [&mut [f32]; N]) + Sync,
    {
        Self { len, numbers }
    }
}

#[expect(
    unsafe_code,
    reason = "as for a slice, for each run of inner indices, and the runs are all of them"
)]
// SAFETY: see the reason.
unsafe impl<F: Fn(usize, [&mut [f32]; N]) + Sync, const N: usize> Rows<N> for Computed<F> {
    fn len(&self) -> usize {
        self.len
    }

    fn copy(
        &self,
        kernel: Kernel,
        mut tiles: [&mut [MaybeUninit<f32>]; N],
        rows: Range<usize>,
        width: usize,
        inner: Range<usize>,
    ) {
        let ([tile_rows, _], indices) = (kernel.tile(), kernel.word().indices());
        vectorised(
            #[inline(always)]
            || {
                let mut room = [[[0.0; RUN]; N]; MOST_ROWS];
                if rows.len() < tile_rows {
                    for tile in &mut tiles {
                        tile.fill(MaybeUninit::new(0.0));
                    }
                }
                for start in inner.clone().step_by(RUN) {
                    let len = RUN.min(inner.end - start);
                    for (row, room) in rows.clone().zip(&mut room) {
                        let places = room.each_mut().map(|places| &mut places[..len]);
                        (self.numbers)(row * width + start, places);
                    }
                    let places = (start - inner.start) / indices * tile_rows..;
                    for (factor, tile) in tiles.iter_mut().enumerate() {
                        let rows = room[..rows.len()].iter().map(
                            #[inline(always)]
                            |room| &room[factor][..len],
                        );
                        let places = &mut tile[places.clone()][..len / indices * tile_rows];
                        kernel.place(places, tile_rows, rows, 0);
                    }
                }
            },
        );
    }
}

/// Room for panels of a right factor: each some columns of some inner indices, `[words, width]`.
#[derive(Default)]
pub(super) struct Panels(Vec<f32>);

impl Panels {
    /// Runs `body` with some that this thread keeps.
    pub(super) fn with<R>(body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static PANELS: RefCell<Panels> = RefCell::default();
        }
        PANELS.with_borrow_mut(body)
    }

    /// Copies a part of the factor here, `[panels, words, width]`, with zeros behind its columns.
    #[inline(always)]
    pub(super) fn fill<E: Element>(
        &mut self,
        word: Word,
        factor: &Factor<'_, E>,
        inner: &Range<usize>,
        columns: &Range<usize>,
        width: usize,
    ) -> &[f32] {
        let words = inner.len() / word.indices();
        let len = words * columns.len().next_multiple_of(width);
        if self.0.len() < len + LINE {
            self.0 = zeros(len + LINE);
        }
        // Anywhere would do, only slower.
        let aligned = self.0.as_ptr().align_offset(LINE * size_of::<f32>());
        let panels = &mut self.0[aligned.min(LINE)..][..len];
        for (panel, start) in panels
            .chunks_exact_mut(words * width)
            .zip(columns.clone().step_by(width))
        {
            let columns = start..columns.end.min(start + width);
            if columns.len() < width {
                panel.fill(0.0);
            }
            let rows = factor.weight.chunks_exact(factor.d_in);
            match (factor.transposed, word) {
                (false, Word::F32) => copy(panel, width, factor, inner.clone(), columns),
                (false, Word::Pair) => copy_pairs(panel, width, factor, inner.clone(), columns),
                (true, Word::F32) => {
                    let rows = rows.skip(columns.start).take(columns.len());
                    interleave(panel, width, rows, inner.start, itself);
                }
                (true, Word::Pair) => {
                    let rows = rows.skip(columns.start).take(columns.len()).map(
                        #[inline(always)]
                        |row| row.as_chunks::<2>().0,
                    );
                    interleave(panel, width, rows, inner.start / 2, itself);
                }
            }
        }
        panels
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
        let row = part_of_row(factor, index, &columns);
        for (place, x) in place.iter_mut().zip(row) {
            *place = x.load();
        }
    }
}

/// [`copy`] of two inner indices at a time.
#[inline(always)]
fn copy_pairs<E: Element>(
    panel: &mut [f32],
    width: usize,
    factor: &Factor<'_, E>,
    inner: Range<usize>,
    columns: Range<usize>,
) {
    for (place, index) in panel.chunks_exact_mut(width).zip(inner.step_by(2)) {
        let low = part_of_row(factor, index, &columns);
        let high = part_of_row(factor, index + 1, &columns);
        for (place, (low, high)) in place.iter_mut().zip(low.iter().zip(high)) {
            *place = [*low, *high].word();
        }
    }
}

/// Some numbers of a weight's row; those of a row that comes later are asked for.
#[inline(always)]
fn part_of_row<'a, E>(factor: &Factor<'a, E>, row: usize, columns: &Range<usize>) -> &'a [E] {
    let numbers = &factor.weight[row * factor.d_in..][columns.clone()];
    let later = numbers.as_ptr().wrapping_add(COPY_AHEAD * factor.d_in);
    prefetch(later, numbers.len());
    numbers
}

#[inline(always)]
fn itself(word: f32) -> f32 {
    word
}

/// Indices of rows, the first one and those behind it, as `[indices, width]`: a row is a column.
#[inline(always)]
pub(super) fn interleave<'a, W: ToWord + 'a, T>(
    places: &mut [T],
    width: usize,
    rows: impl Iterator<Item = &'a [W]> + Clone,
    first: usize,
    number: impl Fn(f32) -> T,
) {
    for (run, places) in places.chunks_mut(RUN * width).enumerate() {
        let (start, len) = (first + run * RUN, places.len() / width);
        let mut rows = rows.clone().map(
            #[inline(always)]
            |row| {
                let row = &row[start..][..len];
                prefetch(row.as_ptr().wrapping_add(RUN), RUN);
                row
            },
        );
        let mut column = 0;
        while let Some(a) = rows.next() {
            let (b, c, d) = (rows.next(), rows.next(), rows.next());
            if let (Some(b), Some(c), Some(d)) = (b, c, d) {
                four(places, width, column, [a, b, c, d], &number);
            } else {
                for (column, row) in (column..).zip([Some(a), b, c].into_iter().flatten()) {
                    one(places, width, column, row, &number);
                }
            }
            column += 4;
        }
    }
}

/// A row as a column.
#[inline(always)]
fn one<W: ToWord, T>(
    places: &mut [T],
    width: usize,
    column: usize,
    row: &[W],
    number: &impl Fn(f32) -> T,
) {
    for (place, x) in places.chunks_exact_mut(width).zip(row) {
        place[column] = number(x.word());
    }
}

/// Four rows as columns side by side, in blocks of four numbers of each.
#[inline(always)]
fn four<W: ToWord, T>(
    places: &mut [T],
    width: usize,
    column: usize,
    rows: [&[W]; 4],
    number: &impl Fn(f32) -> T,
) {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>());
    let blocks = a.0.iter().zip(b.0).zip(c.0).zip(d.0);
    for (places, (((a, b), c), d)) in places.chunks_exact_mut(4 * width).zip(blocks) {
        let columns = f32x4::transpose([vector(a), vector(b), vector(c), vector(d)]);
        for (place, columns) in places.chunks_exact_mut(width).zip(columns) {
            let place = &mut place[column..][..4];
            for (place, x) in place.iter_mut().zip(columns.to_array()) {
                *place = number(x);
            }
        }
    }
    let behind = a.0.len() * 4 * width;
    for (column, row) in (column..).zip([a.1, b.1, c.1, d.1]) {
        one(&mut places[behind..], width, column, row, number);
    }
}

#[inline(always)]
fn vector<W: ToWord>([a, b, c, d]: &[W; 4]) -> f32x4 {
    f32x4::new([a.word(), b.word(), c.word(), d.word()])
}

/// Asks for `len` elements, wherever they are, before they are needed.
#[inline(always)]
pub(in crate::flex) fn prefetch<T>(start: *const T, len: usize) {
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
