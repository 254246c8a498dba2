//! Some panels of a product: the way through tiles and panels, and writing sums, for every kernel.

use std::{mem::MaybeUninit, ops::Range};

use pulp::Simd;

use super::super::{
    Product, Start,
    pack::{COPY_AHEAD, Panels, Word, prefetch},
};
use super::VECTORS;
use crate::flex::element::Element;

/// Some tiles of rows by some panels of columns.
pub(in super::super) struct Task<'a, E, O> {
    pub(in super::super) product: &'a Product<'a, E, O>,
    pub(in super::super) panels: &'a mut Panels,
    pub(in super::super) columns: Range<usize>,
    pub(in super::super) tiles: Range<usize>,
}

/// Adds the product of a row's word and a column's to a sum, in each lane.
pub(super) trait MultiplyAdd: Copy {
    fn multiply_add<S: Simd>(self, simd: S, row: S::f32s, column: S::f32s, sum: S::f32s)
    -> S::f32s;
}

impl<'a, E: Element, O: Element> Task<'a, E, O> {
    /// In tiles of so many rows, by sums that are kept in vectors.
    #[inline(always)]
    pub(super) fn in_vectors<S: Simd, const ROWS: usize>(
        self,
        simd: S,
        multiply_add: impl MultiplyAdd,
    ) {
        // Several panels are whole ones.
        match self.columns.len().div_ceil(S::F32_LANES) {
            1 => self.in_panels::<S, ROWS, 1>(simd, multiply_add),
            2 => self.in_panels::<S, ROWS, 2>(simd, multiply_add),
            _ => self.in_panels::<S, ROWS, VECTORS>(simd, multiply_add),
        }
    }

    /// In panels of so many vectors of columns, the last of which may be a part of one.
    #[inline(always)]
    fn in_panels<S: Simd, const ROWS: usize, const WIDE: usize>(
        self,
        simd: S,
        multiply_add: impl MultiplyAdd,
    ) {
        let Product { factor, left, .. } = self.product;
        let inner = &left.inner;
        let width = WIDE * S::F32_LANES;
        let in_place = factor.in_place(&self.columns, width);
        let in_place = in_place.filter(|_| left.word == Word::F32);
        let (panels, tiles) = self.parts::<ROWS, WIDE>();
        match in_place {
            Some((weight, stride)) if tiles.tiles.len() <= UNCOPIED_TILES => {
                let panels = tiles.panels(width).map(|columns| {
                    let rows = weight[inner.start * stride..].chunks(stride);
                    let rows = rows.map(move |row| vectors::<S, WIDE>(&row[columns.clone()]));
                    rows.take(inner.len())
                });
                tiles.by(
                    simd,
                    panels,
                    #[inline(always)]
                    |rows, panel| multiply(simd, multiply_add, rows, panel, COPY_AHEAD * stride),
                );
            }
            _ => {
                let panels = tiles.copied(panels, width).map(|panel| {
                    let (panel, _) = S::as_simd_f32s(panel);
                    panel.as_chunks().0.iter()
                });
                tiles.by(
                    simd,
                    panels,
                    #[inline(always)]
                    |rows, panel| multiply(simd, multiply_add, rows, panel, AHEAD * width),
                );
            }
        }
    }

    /// Room for panels, and the rest.
    #[inline(always)]
    pub(super) fn parts<const ROWS: usize, const WIDE: usize>(
        self,
    ) -> (&'a mut Panels, Tiles<'a, E, O, ROWS, WIDE>) {
        let tiles = Tiles {
            product: self.product,
            tiles: self.tiles,
            columns: self.columns,
        };
        (self.panels, tiles)
    }
}

/// For so many tiles a panel is read where it is: once, and again from the second cache.
const UNCOPIED_TILES: usize = 3;

/// Inner indices whose columns are asked for ahead, in a panel.
const AHEAD: usize = 12;

/// Numbers of a tile's rows that are asked for ahead: beside the panels, they do not stay in the first cache.
const ROWS_AHEAD: usize = 256;

#[inline(always)]
fn vectors<S: Simd, const WIDE: usize>(columns: &[f32]) -> &[S::f32s; WIDE] {
    let (vectors, _) = S::as_simd_f32s(columns);
    vectors.first_chunk().expect("a panel's columns")
}

/// Some tiles of a product's rows, and some columns.
pub(super) struct Tiles<'a, E, O, const ROWS: usize, const WIDE: usize> {
    product: &'a Product<'a, E, O>,
    tiles: Range<usize>,
    columns: Range<usize>,
}

impl<E: Element, O: Element, const ROWS: usize, const WIDE: usize> Tiles<'_, E, O, ROWS, WIDE> {
    /// The columns of each panel.
    fn panels(
        &self,
        width: usize,
    ) -> impl Iterator<Item = Range<usize>> + Clone + use<E, O, ROWS, WIDE> {
        let end = self.columns.end;
        let starts = self.columns.clone().step_by(width);
        starts.map(move |start| start..end.min(start + width))
    }

    /// Copies of the panels, `width` words for each of their inner words.
    #[inline(always)]
    pub(super) fn copied<'p>(
        &self,
        panels: &'p mut Panels,
        width: usize,
    ) -> impl Iterator<Item = &'p [f32]> + Clone + use<'p, E, O, ROWS, WIDE> {
        let Product { factor, left, .. } = self.product;
        let panels = panels.fill(left.word, factor, &left.inner, &self.columns, width);
        panels.chunks_exact(left.words() * width)
    }

    /// Multiplies each tile by all panels while it is in the first cache. `multiply` has the sums of a tile's words and
    /// a panel.
    #[inline(always)]
    pub(super) fn by<S: Simd, P>(
        &self,
        simd: S,
        panels: impl Iterator<Item = P> + Clone,
        multiply: impl Fn(&[f32], P) -> [[S::f32s; WIDE]; ROWS],
    ) {
        let left = self.product.left;
        let words = left.tiles.chunks_exact(left.words() * ROWS);
        let panels = self.panels(WIDE * S::F32_LANES).zip(panels);
        for (tile, words) in self.tiles.clone().zip(words.skip(self.tiles.start)) {
            for (columns, panel) in panels.clone() {
                let count = ROWS.min(left.rows - tile * ROWS);
                let places = |row| self.product.places(tile * ROWS + row, &columns);
                for row in 0..count {
                    prefetch(places(row).as_ptr(), columns.len());
                }
                let sums = multiply(words, panel);
                let bias = self.bias(simd, &columns);
                if count == ROWS && columns.len() == WIDE * S::F32_LANES {
                    for (row, sums) in sums.iter().enumerate() {
                        self.put(simd, places(row), sums, &bias);
                    }
                } else {
                    // A copy, so that those of whole tiles need not be in memory.
                    let sums: [_; ROWS] = std::array::from_fn(
                        #[inline(always)]
                        |row| sums[row],
                    );
                    for (row, sums) in sums.iter().enumerate().take(count) {
                        let (sums, bias) =
                            (bytemuck::cast_slice(sums), bytemuck::cast_slice(&bias));
                        self.put_some(places(row), sums, bias);
                    }
                }
            }
        }
    }

    /// Zeros where there is none.
    #[inline(always)]
    fn bias<S: Simd>(&self, simd: S, columns: &Range<usize>) -> [S::f32s; WIDE] {
        let mut vectors = [simd.splat_f32s(0.0); WIDE];
        if let Start::Bias(bias) = self.product.start {
            let places = bytemuck::cast_slice_mut::<_, f32>(&mut vectors);
            for (place, x) in places.iter_mut().zip(&bias[columns.clone()]) {
                *place = x.load();
            }
        }
        vectors
    }

    /// Writes a row of a tile.
    #[inline(always)]
    fn put<S: Simd>(
        &self,
        simd: S,
        places: &mut [MaybeUninit<O>],
        sums: &[S::f32s; WIDE],
        bias: &[S::f32s; WIDE],
    ) {
        let places = places.chunks_exact_mut(S::F32_LANES);
        for ((places, sum), bias) in places.zip(sums).zip(bias) {
            let mut sum = [simd.add_f32s(*sum, *bias)];
            if matches!(self.product.start, Start::Output) {
                add(bytemuck::cast_slice_mut(&mut sum), places);
            }
            O::store_vector(simd, sum[0], places);
        }
    }

    /// Writes some columns of a row.
    #[inline(never)]
    fn put_some(&self, places: &mut [MaybeUninit<O>], sums: &[f32], bias: &[f32]) {
        for ((place, sum), bias) in places.iter_mut().zip(sums).zip(bias) {
            let mut sum = [sum + bias];
            if matches!(self.product.start, Start::Output) {
                add(&mut sum, std::slice::from_ref(place));
            }
            place.write(O::store(sum[0]));
        }
    }
}

/// Adds what was written to these places before.
#[inline(always)]
fn add<O: Element>(sums: &mut [f32], places: &[MaybeUninit<O>]) {
    for (sum, place) in sums.iter_mut().zip(places) {
        #[expect(unsafe_code, reason = "`Start::Output` says that it was")]
        // SAFETY: see the reason.
        let number = unsafe { place.assume_init() };
        *sum += number.load();
    }
}

/// The product of a tile's rows, `[words, ROWS]`, and a panel, `[words, WIDE]`; what is `ahead` words behind an item of
/// the panel is asked for.
#[inline(always)]
fn multiply<'p, S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
    multiply_add: impl MultiplyAdd,
    rows: &[f32],
    panel: impl Iterator<Item = &'p [S::f32s; WIDE]>,
    ahead: usize,
) -> [[S::f32s; WIDE]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); WIDE]; ROWS];
    let (rows, _) = rows.as_chunks::<ROWS>();
    for (rows, columns) in rows.iter().zip(panel) {
        let place = columns.as_ptr().cast::<f32>();
        prefetch(place.wrapping_add(ahead), WIDE * S::F32_LANES);
        prefetch(rows.as_ptr().wrapping_add(ROWS_AHEAD), 1);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = simd.splat_f32s(*row);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = multiply_add.multiply_add(simd, row, *column, *sum);
            }
        }
    }
    sums
}
