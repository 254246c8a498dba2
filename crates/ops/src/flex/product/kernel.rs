//! Panels of a product.

use std::{mem::MaybeUninit, ops::Range};

use pulp::{Simd, WithSimd};

use super::{
    Left, Product, Start,
    pack::{COPY_AHEAD, Panels, prefetch},
};
use crate::flex::element::Element;

/// Vectors of columns a tile.
const VECTORS: usize = 3;

/// Rows of a tile: as many as registers can hold beside the vectors that are multiplied.
const fn tile_rows<S: Simd>() -> usize {
    match S::REGISTER_COUNT {
        0..32 => FEW,
        _ => MOST_ROWS,
    }
}

/// With 16 registers.
const FEW: usize = 4;

/// With 32, and more are nowhere.
pub(super) const MOST_ROWS: usize = 8;

/// Tells the rows and columns of a tile.
pub(super) struct TileShape;

impl WithSimd for TileShape {
    type Output = [usize; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
        [tile_rows::<S>(), VECTORS * S::F32_LANES]
    }
}

/// Some tiles of rows by some panels of columns.
pub(super) struct Task<'a, E, O> {
    pub(super) product: &'a Product<'a, E, O>,
    pub(super) panels: &'a mut Panels,
    pub(super) columns: Range<usize>,
    pub(super) tiles: Range<usize>,
}

impl<E: Element, O: Element> WithSimd for Task<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile_rows::<S>() {
            FEW => self.run::<S, FEW>(simd),
            _ => self.run::<S, MOST_ROWS>(simd),
        }
    }
}

impl<E: Element, O: Element> Task<'_, E, O> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        // Several panels are whole ones.
        match self.columns.len().div_ceil(S::F32_LANES) {
            1 => self.multiply::<S, ROWS, 1>(simd),
            2 => self.multiply::<S, ROWS, 2>(simd),
            _ => self.multiply::<S, ROWS, VECTORS>(simd),
        }
    }

    /// In panels of so many vectors of columns, the last of which may be a part of one.
    #[inline(always)]
    fn multiply<S: Simd, const ROWS: usize, const WIDE: usize>(self, simd: S) {
        let Product { factor, left, .. } = self.product;
        let inner = &left.inner;
        let width = WIDE * S::F32_LANES;
        let tiles = Tiles::<E, O, ROWS, WIDE> {
            product: self.product,
            tiles: self.tiles,
            columns: self.columns.clone(),
        };
        match factor.in_place(&self.columns, width) {
            Some((weight, stride)) if tiles.tiles.len() <= UNCOPIED_TILES => {
                let panels = tiles.panels(width).map(|columns| {
                    let rows = weight[inner.start * stride..].chunks(stride);
                    let rows = rows.map(move |row| vectors::<S, WIDE>(&row[columns.clone()]));
                    rows.take(inner.len())
                });
                tiles.by(simd, panels, COPY_AHEAD * stride);
            }
            _ => {
                let panels = self.panels.fill(factor, inner, &self.columns, width);
                let panels = panels.chunks_exact(inner.len() * width).map(|panel| {
                    let (panel, _) = S::as_simd_f32s(panel);
                    panel.as_chunks().0.iter()
                });
                tiles.by(simd, panels, AHEAD * width);
            }
        }
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
struct Tiles<'a, E, O, const ROWS: usize, const WIDE: usize> {
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

    /// Multiplies each tile by all panels while it is in the first cache. A panel has an item for each inner
    /// index; what is `ahead` f32s behind that is asked for.
    #[inline(always)]
    fn by<'p, S: Simd, P: Iterator<Item = &'p [S::f32s; WIDE]>>(
        &self,
        simd: S,
        panels: impl Iterator<Item = P> + Clone,
        ahead: usize,
    ) {
        let Left {
            tiles, inner, rows, ..
        } = self.product.left;
        let left = tiles.chunks_exact(inner.len() * ROWS);
        let panels = self.panels(WIDE * S::F32_LANES).zip(panels);
        for (tile, left) in self.tiles.clone().zip(left.skip(self.tiles.start)) {
            for (columns, panel) in panels.clone() {
                let count = ROWS.min(*rows - tile * ROWS);
                let places = |row| self.product.places(tile * ROWS + row, &columns);
                for row in 0..count {
                    prefetch(places(row).as_ptr(), columns.len());
                }
                let sums = multiply::<S, ROWS, WIDE>(simd, left, panel, ahead);
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

/// The product of a tile's rows, `[inner, ROWS]`, and a panel, `[inner, WIDE]`.
#[inline(always)]
fn multiply<'p, S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
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
                *sum = simd.mul_add_f32s(row, *column, *sum);
            }
        }
    }
    sums
}
