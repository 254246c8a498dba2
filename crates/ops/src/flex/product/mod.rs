//! Products of many rows with a weight: both factors are copied into the order in which the kernel reads
//! them (Goto and van de Geijn 2008), and what is stored narrow becomes f32 on the way. A left factor may also
//! be computed on the way, so that it is in no other memory.
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

use rayon::prelude::*;

pub use self::kernel::bf16_products;
pub(super) use self::pack::{Computed, RUN, Rows, prefetch};
use self::{
    kernel::{Kernel, Task},
    pack::{Panels, Word},
};
use super::{element::Element, storage::narrow};

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
pub(super) fn product<E: Element, O: Element>(
    rows: &(impl Rows<1> + ?Sized),
    factor: Factor<'_, E>,
    bias: Option<&[E]>,
) -> Vec<O> {
    products(rows, vec![(factor, bias)]).swap_remove(0)
}

/// [`product`] of the same rows with several factors.
pub(super) fn products<E: Element, O: Element>(
    rows: &(impl Rows<1> + ?Sized),
    factors: Vec<(Factor<'_, E>, Option<&[E]>)>,
) -> Vec<Vec<O>> {
    let factors = factors.into_iter();
    let factors: Vec<_> = factors.map(|(factor, bias)| ([factor], bias)).collect();
    products_by(kernel(&factors), rows, &factors)
}

/// The sum of the products of each of some left factors with its right one.
pub(super) fn sum_of_products<E: Element, O: Element, const L: usize>(
    rows: &impl Rows<L>,
    factors: [Factor<'_, E>; L],
) -> Vec<O> {
    let factors = [(factors, None)];
    products_by(kernel(&factors), rows, &factors).swap_remove(0)
}

/// A right factor for each left one, and a bias of the sum of their products.
type Factors<'a, E, const L: usize> = ([Factor<'a, E>; L], Option<&'a [E]>);

fn kernel<E: Element, const L: usize>(factors: &[Factors<'_, E, L>]) -> Kernel {
    let [inner, _] = factors[0].0[0].shape();
    Kernel::fastest::<E>(inner)
}

/// [`products`], or sums of them.
fn products_by<E: Element, O: Element, const L: usize>(
    kernel: Kernel,
    rows: &(impl Rows<L> + ?Sized),
    factors: &[Factors<'_, E, L>],
) -> Vec<Vec<O>> {
    let [inner, _] = factors[0].0[0].shape();
    match (L, inner) {
        (1, 0..=INNER) => sums_by(kernel, rows, factors),
        // What is added to again is wide.
        _ => sums_by(kernel, rows, factors)
            .into_iter()
            .map(narrow)
            .collect(),
    }
}

/// [`products_by`], with numbers that are as narrow as the output's between the products and blocks of inner indices
/// that are added up.
fn sums_by<E: Element, O: Element, const L: usize>(
    kernel: Kernel,
    rows: &(impl Rows<L> + ?Sized),
    factors: &[Factors<'_, E, L>],
) -> Vec<Vec<O>> {
    let len = |factors: &[Factor<'_, E>; L]| {
        let [inner, columns] = factors[0].shape();
        rows.len() / inner * columns
    };
    let empty = |(factors, _): &Factors<'_, E, L>| Vec::<O>::with_capacity(len(factors));
    let mut outputs: Vec<_> = factors.iter().map(empty).collect();
    let terms = outputs.iter_mut().zip(factors);
    let terms = terms.map(|(output, (factors, bias))| Term {
        output: &mut output.spare_capacity_mut()[..len(factors)],
        factors: *factors,
        start: bias.map_or(Start::Zero, Start::Bias),
    });
    multiply(kernel, rows, &mut terms.collect::<Vec<_>>());
    for (output, (factors, _)) in outputs.iter_mut().zip(factors) {
        #[expect(unsafe_code, reason = "`multiply` has written to all of it")]
        // SAFETY: see the reason.
        unsafe {
            output.set_len(len(factors));
        }
    }
    outputs
}

/// `output += rows · factor`.
pub(super) fn add_product<E: Element>(output: &mut [f32], rows: &[f32], factor: Factor<'_, E>) {
    #[expect(unsafe_code, reason = "`multiply` writes numbers, and nothing else")]
    // SAFETY: see the reason.
    let output = unsafe { &mut *(std::ptr::from_mut(output) as *mut [MaybeUninit<f32>]) };
    let start = Start::Output;
    let term = Term {
        output,
        factors: [factor],
        start,
    };
    multiply(Kernel::fastest::<E>(factor.shape()[0]), rows, &mut [term]);
}

/// What rows are multiplied by, and where that goes.
struct Term<'a, 'o, E, O, const L: usize> {
    /// `[rows, columns]`.
    output: &'o mut [MaybeUninit<O>],
    /// One for each left factor; the products are added up.
    factors: [Factor<'a, E>; L],
    start: Start<'a, E>,
}

/// Inner indices at a time: all of a small model's hidden size. A panel of them is 192 KiB with AVX-512.
const INNER: usize = 1024;

/// Rows at a time: what the kernel reads of them stays in a third cache.
const ROWS: usize = 1536;

/// Panels that a thread goes through at a time, so that a tile of rows is fetched once for them all.
const TOGETHER: usize = 3;

/// Rows a task at least, or copying its panel would take too long beside.
const ROWS_A_TASK: usize = 192;

/// Writes to all of the outputs; [`Start::Output`] says that there are numbers already.
fn multiply<E: Element, O: Element, const L: usize>(
    kernel: Kernel,
    rows: &(impl Rows<L> + ?Sized),
    terms: &mut [Term<'_, '_, E, O, L>],
) {
    let [inner, _] = terms[0].factors[0].shape();
    let count = rows.len() / inner;
    assert!(
        inner.is_multiple_of(kernel.multiple()),
        "{inner} inner indices by {kernel:?}"
    );
    for Term {
        output,
        factors,
        start,
    } in &*terms
    {
        let [_, columns] = factors[0].shape();
        for factor in factors {
            let [inner_too, columns_too] = factor.shape();
            assert!(
                [inner_too, columns_too] == [inner, columns]
                    && rows.len() == count * inner
                    && output.len() == count * columns,
                "{} elements in rows of {inner}, times {inner_too} × {columns_too}, into {}",
                rows.len(),
                output.len()
            );
        }
        if let Start::Bias(bias) = start {
            assert_eq!(bias.len(), columns, "the elements of a bias");
        }
    }
    if count == 0 {
        return;
    }
    let inner_at_a_time = inner.div_ceil(inner.div_ceil(INNER));
    let inner_at_a_time = inner_at_a_time.next_multiple_of(kernel.multiple());
    let rows_at_a_time = count.div_ceil(count.div_ceil(ROWS));
    for start in (0..count).step_by(rows_at_a_time) {
        let block = start..count.min(start + rows_at_a_time);
        for first in (0..inner).step_by(inner_at_a_time) {
            let part = first..inner.min(first + inner_at_a_time);
            let lefts = Left::of(kernel, rows, block.clone(), inner, part);
            for (index, left) in lefts.iter().enumerate() {
                let products = terms.iter_mut().map(|term| {
                    let factor = term.factors[index];
                    let [_, columns] = factor.shape();
                    let output = &mut term.output[block.start * columns..block.end * columns];
                    Product {
                        left,
                        output: output.as_mut_ptr(),
                        columns,
                        factor,
                        start: match (first, index) {
                            (0, 0) => term.start,
                            _ => Start::Output,
                        },
                    }
                });
                run(kernel, &products.collect::<Vec<_>>());
            }
        }
    }
}

/// Some inner indices of the left factor of a product, in the kernel's order.
struct Left {
    /// Rows and columns.
    tile: [usize; 2],
    rows: usize,
    inner: Range<usize>,
    word: Word,
    /// `[tiles, words, tile_rows]`, or as the kernel has it, with zeros where the last tile has no rows.
    tiles: Vec<f32>,
}

impl Left {
    /// Of some rows, `width` numbers each, of each left factor.
    fn of<const L: usize>(
        kernel: Kernel,
        source: &(impl Rows<L> + ?Sized),
        rows: Range<usize>,
        width: usize,
        inner: Range<usize>,
    ) -> [Self; L] {
        let (tile @ [tile_rows, _], word) = (kernel.tile(), kernel.word());
        let words_a_tile = tile_rows * (inner.len() / word.indices());
        let len = rows.len().div_ceil(tile_rows) * words_a_tile;
        let mut lefts = [(); L].map(|()| Self {
            tile,
            rows: rows.len(),
            inner: inner.clone(),
            word,
            tiles: Vec::with_capacity(len),
        });
        let mut parts = lefts
            .each_mut()
            .map(|left| left.tiles.spare_capacity_mut()[..len].chunks_exact_mut(words_a_tile));
        let tiles = rows.clone().step_by(tile_rows).map(|start| {
            let tiles = parts
                .each_mut()
                .map(|tiles| tiles.next().expect("one for these rows"));
            (start..rows.end.min(start + tile_rows), tiles)
        });
        let tiles: Vec<_> = tiles.collect();
        tiles
            .into_par_iter()
            .for_each(|(rows, tiles)| source.copy(kernel, tiles, rows, width, inner.clone()));
        for left in &mut lefts {
            #[expect(
                unsafe_code,
                reason = "there are some rows for each tile, and `Rows` promises that all of one is written"
            )]
            // SAFETY: see the reason.
            unsafe {
                left.tiles.set_len(len);
            }
        }
        lefts
    }

    /// Of the inner indices.
    fn words(&self) -> usize {
        self.inner.len() / self.word.indices()
    }
}

/// A part of a product whose shapes fit. Its panels may be computed at the same time.
struct Product<'a, E, O> {
    left: &'a Left,
    /// `[rows, columns]`.
    output: *mut MaybeUninit<O>,
    columns: usize,
    factor: Factor<'a, E>,
    start: Start<'a, E>,
}

#[expect(
    unsafe_code,
    reason = "the pointer is of a slice that `multiply` borrows alone until all tasks have ended, and no two \
              tasks write to one place"
)]
// SAFETY: see the reason.
unsafe impl<E: Sync, O: Send> Sync for Product<'_, E, O> {}

impl<E: Element, O: Element> Product<'_, E, O> {
    /// Where these columns of a row go.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the output is borrowed mutably, behind a pointer"
    )]
    fn places(&self, row: usize, columns: &Range<usize>) -> &mut [MaybeUninit<O>] {
        assert!(
            row < self.left.rows && columns.start <= columns.end && columns.end <= self.columns
        );
        let place = self.output.wrapping_add(row * self.columns + columns.start);
        #[expect(
            unsafe_code,
            reason = "inside the output, and no two tasks have a place of it, nor does a task hold one twice"
        )]
        // SAFETY: see the reason.
        unsafe {
            std::slice::from_raw_parts_mut(place, columns.len())
        }
    }
}

/// Computes products of one left factor.
fn run<E: Element, O: Element>(kernel: Kernel, products: &[Product<'_, E, O>]) {
    let threads = rayon::current_num_threads();
    let (tasks, next) = (tasks(products, threads), AtomicUsize::new(0));
    // In this order, by whoever is free.
    let workers = (0..threads.min(tasks.len()))
        .into_par_iter()
        .with_max_len(1);
    workers.for_each(|_| {
        Panels::with(|panels| {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                kernel.run(Task {
                    product: &products[task.product],
                    panels,
                    columns: task.columns.clone(),
                    tiles: task.tiles.clone(),
                });
            }
        });
    });
}

/// What one of the threads does at a time.
struct Share {
    /// Which product.
    product: usize,
    /// Those of one panel, or of a few whole ones.
    columns: Range<usize>,
    /// Of rows.
    tiles: Range<usize>,
}

/// All of some products of one left factor: first whole panels, [`TOGETHER`] of them where that gives each thread
/// as many, and behind them parts of the last ones, so that all threads end at about the same time.
fn tasks<E, O>(products: &[Product<'_, E, O>], threads: usize) -> Vec<Share> {
    let Left { tile, rows, .. } = products[0].left;
    let [tile_rows, width] = *tile;
    let tiles = rows.div_ceil(tile_rows);
    let panels = products.iter().enumerate().flat_map(|(index, product)| {
        let starts = (0..product.columns).step_by(width);
        starts.map(move |start| (index, start..product.columns.min(start + width)))
    });
    let panels: Vec<(usize, Range<usize>)> = panels.collect();
    let whole = (panels.len() / threads).saturating_sub(1) * threads;
    let (whole, divided) = panels.split_at(whole);
    let (grouped, single) = whole.split_at(whole.len() / TOGETHER / threads * threads * TOGETHER);
    let alike = |(a, some): &(usize, Range<usize>), (b, others): &(usize, Range<usize>)| {
        a == b && some.len() == others.len()
    };
    let groups = grouped
        .chunk_by(alike)
        .flat_map(|panels| panels.chunks(TOGETHER));
    let share = |panels: &[(usize, Range<usize>)], tiles| Share {
        product: panels[0].0,
        columns: panels[0].1.start..panels[panels.len() - 1].1.end,
        tiles,
    };
    let whole = groups.chain(single.chunks(1));
    let whole = whole.map(|panels| share(panels, 0..tiles));
    let parts = threads.div_ceil(divided.len().max(1)).max(2);
    let part = tiles.div_ceil(parts).max(ROWS_A_TASK / tile_rows);
    let parts = (0..tiles).step_by(part);
    let parts = parts.map(|start| start..tiles.min(start + part));
    let divided = divided.chunks(1);
    let divided = divided.flat_map(|panel| parts.clone().map(move |part| share(panel, part)));
    whole.chain(divided).collect()
}
