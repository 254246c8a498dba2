//! A panel of a product.

use std::{mem::MaybeUninit, ops::Range};

use pulp::{Simd, WithSimd};

use super::{
    Product, Start,
    pack::{COPY_AHEAD, Panels, prefetch},
};
use crate::flex::element::Element;

/// Vectors of columns a tile.
const VECTORS: usize = 2;

/// Rows of a tile: as many as registers can hold beside the vectors that are multiplied.
const fn tile_rows<S: Simd>() -> usize {
    match S::REGISTER_COUNT {
        0..32 => FEW,
        _ => MANY,
    }
}

/// With 16 registers.
const FEW: usize = 6;

/// With 32.
const MANY: usize = 12;

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
pub(super) struct PanelTask<'a, E> {
    pub(super) product: &'a Product<'a, E>,
    pub(super) panels: &'a mut Panels,
    pub(super) columns: Range<usize>,
    pub(super) tiles: Range<usize>,
}

impl<E: Element> WithSimd for PanelTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile_rows::<S>() {
            FEW => self.run::<S, FEW>(simd),
            _ => self.run::<S, MANY>(simd),
        }
    }
}

impl<E: Element> PanelTask<'_, E> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self {
            product,
            panels,
            columns,
            tiles,
        } = self;
        let (factor, inner) = (&product.factor, product.inner.clone());
        let tiles = Tiles::<E, ROWS> { product, tiles };
        match factor.in_place(&columns, VECTORS * S::F32_LANES) {
            Some((weight, stride)) if tiles.tiles.len() <= UNCOPIED_TILES => {
                for columns in panels.of(columns) {
                    let rows = weight[inner.start * stride..]
                        .chunks(stride)
                        .take(inner.len());
                    let rows = rows.map(|row| vectors::<S>(&row[columns.clone()]));
                    tiles.by(simd, &columns, rows, COPY_AHEAD * stride);
                }
            }
            _ => {
                for (columns, panel) in panels.fill(factor, inner, columns) {
                    let (panel, _) = S::as_simd_f32s(panel);
                    let rows = panel.as_chunks().0.iter();
                    tiles.by(simd, &columns, rows, AHEAD * VECTORS * S::F32_LANES);
                }
            }
        }
    }
}

/// For so many tiles a panel is read where it is: once, and again from the second cache.
const UNCOPIED_TILES: usize = 2;

/// Inner indices whose columns are asked for ahead, in a panel.
const AHEAD: usize = 12;

#[inline(always)]
fn vectors<S: Simd>(columns: &[f32]) -> &[S::f32s; VECTORS] {
    let (vectors, _) = S::as_simd_f32s(columns);
    vectors.first_chunk().expect("a panel's columns")
}

/// Some tiles of a product's rows.
struct Tiles<'a, E, const ROWS: usize> {
    product: &'a Product<'a, E>,
    tiles: Range<usize>,
}

impl<E: Element, const ROWS: usize> Tiles<'_, E, ROWS> {
    /// Multiplies them by a panel of these columns, an item for each inner index, and asks for what is
    /// `ahead` f32s behind it.
    #[inline(always)]
    fn by<'p, S: Simd>(
        &self,
        simd: S,
        columns: &Range<usize>,
        panel: impl Iterator<Item = &'p [S::f32s; VECTORS]> + Clone,
        ahead: usize,
    ) {
        let product = self.product;
        let left = product.left.chunks_exact(product.inner.len() * ROWS);
        for (tile, left) in self.tiles.clone().zip(left.skip(self.tiles.start)) {
            let sums = multiply::<S, ROWS>(simd, left, panel.clone(), ahead);
            let rows = tile * ROWS..product.rows.min((tile + 1) * ROWS);
            for (row, sums) in rows.zip(&sums) {
                let output = product.row(row, columns).cast::<MaybeUninit<f32>>();
                #[expect(unsafe_code, reason = "a part of the output, and of no other task's")]
                // SAFETY: see the reason.
                let output = unsafe { std::slice::from_raw_parts_mut(output, columns.len()) };
                let sums = bytemuck::cast_slice::<_, f32>(sums).iter().copied();
                match product.start {
                    Start::Zero => put(output, sums),
                    Start::Bias(bias) => {
                        let bias = bias[columns.clone()].iter();
                        put(output, sums.zip(bias).map(|(sum, bias)| sum + bias.load()));
                    }
                    Start::Output => add(output, sums),
                }
            }
        }
    }
}

#[inline(always)]
fn put(output: &mut [MaybeUninit<f32>], numbers: impl Iterator<Item = f32>) {
    for (output, number) in output.iter_mut().zip(numbers) {
        output.write(number);
    }
}

/// To an output that was written to.
#[inline(always)]
fn add(output: &mut [MaybeUninit<f32>], numbers: impl Iterator<Item = f32>) {
    for (output, number) in output.iter_mut().zip(numbers) {
        #[expect(unsafe_code, reason = "`Start::Output` says that it was")]
        // SAFETY: see the reason.
        let output = unsafe { output.assume_init_mut() };
        *output += number;
    }
}

/// The product of a tile's rows, `[inner, ROWS]`, and a panel, `[inner, VECTORS]`.
#[inline(always)]
fn multiply<'p, S: Simd, const ROWS: usize>(
    simd: S,
    rows: &[f32],
    panel: impl Iterator<Item = &'p [S::f32s; VECTORS]>,
    ahead: usize,
) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let (rows, _) = rows.as_chunks::<ROWS>();
    for (rows, columns) in rows.iter().zip(panel) {
        let place = columns.as_ptr().cast::<f32>();
        prefetch(place.wrapping_add(ahead), VECTORS * S::F32_LANES);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = simd.splat_f32s(*row);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = simd.mul_add_f32s(row, *column, *sum);
            }
        }
    }
    sums
}
