//! The crate `gemm` behind a safe function.

use std::ops::Range;

use rayon::prelude::*;

/// A matrix in a slice: element `(i, j)` stands at `i · strides[0] + j · strides[1]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// If the last element is outside the slice.
    pub(super) fn new(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        assert!(
            end(shape, strides) <= data.len(),
            "a matrix {shape:?} with strides {strides:?} in {} elements",
            data.len()
        );
        Self {
            data,
            shape,
            strides,
        }
    }

    /// Row after row, without a gap.
    pub(super) fn dense(data: &'a [f32], shape: [usize; 2]) -> Self {
        Self::new(data, shape, [shape[1], 1])
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self {
            shape: [columns, rows],
            strides: [right, down],
            ..self
        }
    }
}

/// Where the last element of a matrix ends.
fn end([rows, columns]: [usize; 2], [down, right]: [usize; 2]) -> usize {
    match rows.min(columns) {
        0 => 0,
        _ => (rows - 1) * down + (columns - 1) * right + 1,
    }
}

/// On how many cores a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    /// All, for a large one.
    All,
    /// One, inside a task of many.
    One,
}

/// What becomes of the numbers that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// They are overwritten.
    Ignored,
    /// The product is added to them.
    Kept,
}

/// `scale · lhs · rhs` into `output`, whose rows begin `row_stride` apart.
///
/// # Panics
/// If the shapes do not fit, or the last row ends outside `output`.
pub(super) fn multiply(
    output: &mut [f32],
    row_stride: usize,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    scale: f32,
    before: Before,
    cores: Cores,
) {
    let ([rows, inner], [inner_too, columns]) = (lhs.shape, rhs.shape);
    assert_eq!(inner, inner_too, "the shapes of a product");
    assert!(
        columns <= row_stride && end([rows, columns], [row_stride, 1]) <= output.len(),
        "a product {rows} × {columns} with rows {row_stride} apart in {} elements",
        output.len()
    );
    let product = Product {
        output: output.as_mut_ptr(),
        row_stride,
        lhs,
        rhs,
        scale,
        keep: before == Before::Kept,
    };
    let tile = tile_columns(columns, inner);
    if cores == Cores::One {
        product.columns(0..columns, gemm::Parallelism::None);
    } else if columns < 2 * tile || rows * columns * inner < LARGE {
        product.columns(0..columns, gemm::Parallelism::Rayon(0));
    } else {
        // Whole columns a task, each with buffers of its own: nobody waits for anybody in between.
        (0..columns.div_ceil(tile))
            .into_par_iter()
            .for_each(|index| {
                let start = index * tile;
                let columns = start..columns.min(start + tile);
                product.columns(columns, gemm::Parallelism::None);
            });
    }
}

/// Products with fewer multiplications are left to `gemm`'s own division among the cores.
const LARGE: usize = 1 << 26;

/// Columns a task: a few tasks a core, and a whole number of the kernels' widest tiles. All, where the
/// left matrix is so wide that preparing it for each task anew would cost more than it gains.
fn tile_columns(columns: usize, inner: usize) -> usize {
    const KERNEL: usize = 96;
    match inner {
        0..=16_384 => columns
            .div_ceil(4 * rayon::current_num_threads())
            .next_multiple_of(KERNEL),
        _ => columns,
    }
}

/// A product whose shapes were checked. Its columns may be computed at the same time.
struct Product<'a> {
    output: *mut f32,
    row_stride: usize,
    lhs: Matrix<'a>,
    rhs: Matrix<'a>,
    scale: f32,
    keep: bool,
}

#[expect(
    unsafe_code,
    reason = "the pointer is of a slice that `multiply` borrows alone until all tasks have ended, and no two \
              tasks write to one column"
)]
// SAFETY: see the reason.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    fn columns(&self, columns: Range<usize>, parallelism: gemm::Parallelism) {
        let Self { lhs, rhs, .. } = self;
        let [down, right] = rhs.strides;
        #[expect(
            unsafe_code,
            reason = "`gemm` takes pointers; the assertions in `multiply` and in `Matrix::new` keep every index \
                      inside the three slices, `columns` is part of the output's, and the output overlaps \
                      neither of the others, for it is borrowed alone"
        )]
        // SAFETY: see the reason.
        unsafe {
            gemm::gemm(
                lhs.shape[0],
                columns.len(),
                lhs.shape[1],
                self.output.add(columns.start),
                1,
                self.row_stride as isize,
                self.keep,
                lhs.data.as_ptr(),
                lhs.strides[1] as isize,
                lhs.strides[0] as isize,
                rhs.data.as_ptr().wrapping_add(columns.start * right),
                right as isize,
                down as isize,
                if self.keep { 1.0 } else { 0.0 },
                self.scale,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of dividing the work, in exact small numbers.
    #[test]
    fn tiled_and_whole_products_are_the_same() {
        let (rows, inner, columns) = (130, 1024, 1001);
        let number = |i: usize| ((i * 7919) % 17) as f32 - 8.0;
        let lhs: Vec<f32> = (0..rows * inner).map(number).collect();
        let rhs: Vec<f32> = (0..inner * columns).map(|i| number(i + 3)).collect();
        assert!(rows * inner * columns >= LARGE && columns >= 2 * tile_columns(columns, inner));
        let plain = Matrix::dense(&lhs, [rows, inner]);
        for rhs in [
            Matrix::dense(&rhs, [inner, columns]),
            Matrix::dense(&rhs, [columns, inner]).transposed(),
        ] {
            let stride = columns + 5;
            let product = |cores, before| {
                let mut output = vec![1.0; rows * stride];
                multiply(&mut output, stride, plain, rhs, 0.5, before, cores);
                output
            };
            let once = product(Cores::One, Before::Ignored);
            assert_eq!(once, product(Cores::All, Before::Ignored));
            // What is between the rows is left alone.
            assert!(once.chunks(stride).all(|row| row[columns..] == [1.0; 5]));
            let added = product(Cores::All, Before::Kept);
            let rows = once.chunks(stride).zip(added.chunks(stride));
            for (once, added) in rows {
                for (once, added) in once[..columns].iter().zip(added) {
                    assert_eq!(once + 1.0, *added);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "a matrix [2, 3]")]
    fn a_matrix_that_ends_outside_its_slice_is_refused() {
        let _ = Matrix::dense(&[0.0; 5], [2, 3]);
    }

    #[test]
    #[should_panic(expected = "with rows 3 apart in 5 elements")]
    fn an_output_that_is_too_short_is_refused() {
        let (lhs, rhs) = ([0.0; 4], [0.0; 6]);
        let (lhs, rhs) = (Matrix::dense(&lhs, [2, 2]), Matrix::dense(&rhs, [2, 3]));
        multiply(&mut [0.0; 5], 3, lhs, rhs, 1.0, Before::Ignored, Cores::One);
    }
}
