//! Products of many rows with a weight: both factors are copied into the order in which the kernel reads
//! them (Goto and van de Geijn 2008), and what is stored narrow becomes f32 on the way.
//!
//! The output is made a tile at a time: some rows by three vectors of columns, summed in registers. The left
//! factor is copied once, for all threads. Panels of the right one, each the columns of a tile, are copied by the
//! thread that needs them, a few at a time, and stay in its second cache for all tiles of rows.

mod kernel;
mod pack;
#[cfg(test)]
mod tests;

use std::{
    mem::MaybeUninit,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use pulp::Arch;
use rayon::prelude::*;

use self::{
    kernel::{Task, TileShape},
    pack::Panels,
};
use super::element::Element;

/// The right factor of a product: a weight `[d_out, d_in]`, or its transpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor<'a, E> {
    weight: &'a [E],
    d_in: usize,
    transposed: bool,
}

impl<'a, E> Factor<'a, E> {
    /// `[d_out, d_in]`, as it is stored.
    pub(super) fn weight(weight: &'a [E], d_in: usize) -> Self {
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

    /// `[d_in, d_out]`.
    pub(super) fn transposed(self) -> Self {
        let transposed = !self.transposed;
        Self { transposed, ..self }
    }

    /// Inner size and columns.
    fn shape(&self) -> [usize; 2] {
        let d_out = self.weight.len() / self.d_in;
        match self.transposed {
            false => [d_out, self.d_in],
            true => [self.d_in, d_out],
        }
    }
}

impl<E: Element> Factor<'_, E> {
    /// The weight and the length of its rows, if these columns can be read there in whole panels of `width`.
    fn in_place(&self, columns: &Range<usize>, width: usize) -> Option<(&[f32], usize)> {
        let whole = columns.len().is_multiple_of(width);
        let weight = E::as_f32(self.weight).filter(|_| whole && !self.transposed)?;
        Some((weight, self.d_in))
    }
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
enum Start<'a, E> {
    /// Nothing.
    Zero,
    /// One number for each column.
    Bias(&'a [E]),
    /// What is in the output.
    Output,
}

/// `rows · factor (+ bias)`, `[rows, columns]`, for `rows` of `[rows, inner]`.
pub(super) fn product<E: Element>(
    rows: &[impl Element],
    factor: Factor<'_, E>,
    bias: Option<&[E]>,
) -> Vec<f32> {
    product_on(Arch::new(), rows, factor, bias)
}

/// [`product`] in the vectors of `arch`.
fn product_on<E: Element>(
    arch: Arch,
    rows: &[impl Element],
    factor: Factor<'_, E>,
    bias: Option<&[E]>,
) -> Vec<f32> {
    let [inner, columns] = factor.shape();
    let len = rows.len() / inner * columns;
    let mut output = Vec::with_capacity(len);
    let empty = &mut output.spare_capacity_mut()[..len];
    multiply(
        arch,
        empty,
        rows,
        factor,
        bias.map_or(Start::Zero, Start::Bias),
    );
    #[expect(unsafe_code, reason = "`multiply` has written to all of it")]
    // SAFETY: see the reason.
    unsafe {
        output.set_len(len);
    }
    output
}

/// `output += rows · factor`.
pub(super) fn add_product<E: Element>(output: &mut [f32], rows: &[f32], factor: Factor<'_, E>) {
    #[expect(unsafe_code, reason = "`multiply` writes numbers, and nothing else")]
    // SAFETY: see the reason.
    let output = unsafe { &mut *(std::ptr::from_mut(output) as *mut [MaybeUninit<f32>]) };
    multiply(Arch::new(), output, rows, factor, Start::Output);
}

/// Inner indices at a time: all of a small model's hidden size. A panel of them is 192 KiB with AVX-512.
const INNER: usize = 1024;

/// Rows at a time: what the kernel reads of them stays in a third cache.
const ROWS: usize = 1536;

/// Panels that a thread goes through at a time, so that a tile of rows is fetched once for them all.
const TOGETHER: usize = 3;

/// Rows a task at least, or copying its panel would take too long beside.
const ROWS_A_TASK: usize = 192;

/// Writes to all of `output`; [`Start::Output`] says that there are numbers already.
fn multiply<E: Element>(
    arch: Arch,
    output: &mut [MaybeUninit<f32>],
    rows: &[impl Element],
    factor: Factor<'_, E>,
    start: Start<'_, E>,
) {
    let [inner, columns] = factor.shape();
    let count = rows.len() / inner;
    assert!(
        rows.len() == count * inner && output.len() == count * columns,
        "{} elements in rows of {inner}, times {inner} × {columns}, into {}",
        rows.len(),
        output.len()
    );
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), columns, "the elements of a bias");
    }
    if count == 0 || columns == 0 {
        return;
    }
    let inner_at_a_time = inner.div_ceil(inner.div_ceil(INNER));
    let rows_at_a_time = count.div_ceil(count.div_ceil(ROWS));
    for (rows, output) in rows
        .chunks(rows_at_a_time * inner)
        .zip(output.chunks_mut(rows_at_a_time * columns))
    {
        for first in (0..inner).step_by(inner_at_a_time) {
            let part = first..inner.min(first + inner_at_a_time);
            let start = if first == 0 { start } else { Start::Output };
            Product::new(arch, output, rows, factor, part, start).run();
        }
    }
}

/// A part of a product whose shapes fit, its left factor copied. Its panels may be computed at the same time.
struct Product<'a, E> {
    arch: Arch,
    /// Rows and columns.
    tile: [usize; 2],
    /// `[rows, columns]`.
    output: *mut f32,
    rows: usize,
    columns: usize,
    factor: Factor<'a, E>,
    inner: Range<usize>,
    /// `[tiles, inner, tile_rows]`, with zeros where the last tile has no rows.
    left: Vec<f32>,
    start: Start<'a, E>,
}

#[expect(
    unsafe_code,
    reason = "the pointer is of a slice that `multiply` borrows alone until all tasks have ended, and no two \
              tasks write to one place"
)]
// SAFETY: see the reason.
unsafe impl<E: Sync> Sync for Product<'_, E> {}

impl<'a, E: Element> Product<'a, E> {
    fn new(
        arch: Arch,
        output: &mut [MaybeUninit<f32>],
        rows: &[impl Element],
        factor: Factor<'a, E>,
        inner: Range<usize>,
        start: Start<'a, E>,
    ) -> Self {
        let ([width, columns], tile) = (factor.shape(), arch.dispatch(TileShape));
        let [tile_rows, _] = tile;
        let count = rows.len() / width;
        let len = count.next_multiple_of(tile_rows) * inner.len();
        let mut left = Vec::with_capacity(len);
        left.spare_capacity_mut()[..len]
            .par_chunks_exact_mut(tile_rows * inner.len())
            .zip(rows.par_chunks(tile_rows * width))
            .for_each(|(tile, rows)| pack::tile(tile, rows, width, inner.clone()));
        #[expect(
            unsafe_code,
            reason = "there is a part of `rows` for each tile, and `tile` writes to all of one"
        )]
        // SAFETY: see the reason.
        unsafe {
            left.set_len(len);
        }
        Self {
            arch,
            tile,
            output: output.as_mut_ptr().cast(),
            rows: count,
            columns,
            factor,
            inner,
            left,
            start,
        }
    }

    /// Where these columns of a row begin in the output.
    fn row(&self, row: usize, columns: &Range<usize>) -> *mut f32 {
        // Inside the output: it has `rows` of `columns`.
        assert!(row < self.rows && columns.end <= self.columns);
        self.output.wrapping_add(row * self.columns + columns.start)
    }

    fn run(&self) {
        let threads = rayon::current_num_threads();
        let (tasks, next) = (self.tasks(threads), AtomicUsize::new(0));
        // In this order, by whoever is free.
        let workers = (0..threads.min(tasks.len()))
            .into_par_iter()
            .with_max_len(1);
        workers.for_each(|_| {
            Panels::with(|panels| {
                while let Some((columns, tiles)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    self.arch.dispatch(Task {
                        product: self,
                        panels,
                        columns: columns.clone(),
                        tiles: tiles.clone(),
                    });
                }
            });
        });
    }

    /// Columns of panels, and tiles of rows: first whole panels, [`TOGETHER`] of them where that gives each
    /// thread as many, and behind them parts of the last ones, so that all threads end at about the same time.
    fn tasks(&self, threads: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let [tile_rows, width] = self.tile;
        let (panels, tiles) = (self.columns.div_ceil(width), self.rows.div_ceil(tile_rows));
        let whole = (panels / threads).saturating_sub(1) * threads;
        let grouped = whole / TOGETHER / threads * threads * TOGETHER;
        let parts = threads.div_ceil(panels - whole).max(2);
        let part = tiles.div_ceil(parts).max(ROWS_A_TASK / tile_rows);
        let parts = (0..tiles).step_by(part);
        let parts = parts.map(|start| start..tiles.min(start + part));
        let columns = |first, count| first * width..self.columns.min((first + count) * width);
        let groups = (0..grouped).step_by(TOGETHER);
        let groups = groups.map(|first| (columns(first, TOGETHER), 0..tiles));
        let single = (grouped..whole).map(|panel| (columns(panel, 1), 0..tiles));
        let divided = (whole..panels)
            .flat_map(|panel| parts.clone().map(move |part| (columns(panel, 1), part)));
        groups.chain(single).chain(divided).collect()
    }
}
