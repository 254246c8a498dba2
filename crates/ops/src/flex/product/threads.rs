//! The division of a product's blocks of C among threads.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use super::{
    block::{Block, Product},
    block_sizes::NC_PANELS,
    kernel::Kernel,
    pack_b::PackedB,
};
use crate::flex::element::Element;

/// A task has so many rows at least. For fewer, packing B would take too long beside the multiplication.
const MIN_ROWS: usize = 192;

/// Computes products of one packed block of A. Threads take one task after the other, in order, until none is left.
pub(super) fn run<E: Element, O: Element>(kernel: Kernel, products: &[Product<'_, E, O>]) {
    let threads = rayon::current_num_threads();
    let (tasks, next) = (tasks(products, threads), AtomicUsize::new(0));
    let workers = (0..threads.min(tasks.len()))
        .into_par_iter()
        .with_max_len(1);
    workers.for_each(|_| {
        PackedB::with(|packed_b| {
            while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let block = Block {
                    product: &products[task.product],
                    a_panels: task.a_panels.clone(),
                    columns: task.columns.clone(),
                };
                kernel.run(block, packed_b);
            }
        });
    });
}

/// What a thread does at a time: a block of C.
pub(super) struct Task {
    /// Index of the product.
    pub(super) product: usize,
    /// Those of one micro-panel of B, or of a few whole ones.
    pub(super) columns: Range<usize>,
    pub(super) a_panels: Range<usize>,
}

/// The tasks of some products of one packed block of A. First come all rows by NC columns, where that gives each thread as
/// many, then by one micro-panel of B; the last micro-panels are divided by rows as well, so that all threads end at
/// about the same time.
pub(super) fn tasks<E, O>(products: &[Product<'_, E, O>], threads: usize) -> Vec<Task> {
    let a = products[0].a;
    let (mr, nr) = (a.format.mr, a.format.nr);
    let a_panels = a.rows.div_ceil(mr);
    let b_panels = products.iter().enumerate().flat_map(|(index, product)| {
        let starts = (0..product.n).step_by(nr);
        starts.map(move |start| (index, start..product.n.min(start + nr)))
    });
    let b_panels: Vec<(usize, Range<usize>)> = b_panels.collect();
    let whole = (b_panels.len() / threads).saturating_sub(1) * threads;
    let (whole, divided) = b_panels.split_at(whole);
    let (grouped, single) = whole.split_at(whole.len() / NC_PANELS / threads * threads * NC_PANELS);
    let alike = |(a, some): &(usize, Range<usize>), (b, others): &(usize, Range<usize>)| {
        a == b && some.len() == others.len()
    };
    let groups = grouped
        .chunk_by(alike)
        .flat_map(|panels| panels.chunks(NC_PANELS));
    let task = |panels: &[(usize, Range<usize>)], a_panels| Task {
        product: panels[0].0,
        columns: panels[0].1.start..panels[panels.len() - 1].1.end,
        a_panels,
    };
    let whole = groups.chain(single.chunks(1));
    let whole = whole.map(|panels| task(panels, 0..a_panels));
    let parts = threads.div_ceil(divided.len().max(1)).max(2);
    let part = a_panels.div_ceil(parts).max(MIN_ROWS / mr);
    let parts = (0..a_panels).step_by(part);
    let parts = parts.map(|start| start..a_panels.min(start + part));
    let divided = divided.chunks(1);
    let divided = divided.flat_map(|panel| parts.clone().map(move |part| task(panel, part)));
    whole.chain(divided).collect()
}
