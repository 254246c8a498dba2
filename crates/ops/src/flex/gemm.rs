//! The crate `gemm` behind a safe function.

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
    let keep = before == Before::Kept;
    #[expect(
        unsafe_code,
        reason = "`gemm` takes pointers; the assertions here and in `Matrix::new` keep every index inside \
                  the three slices, and `output` overlaps neither of the others, for it is borrowed alone"
    )]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output.as_mut_ptr(),
            1,
            row_stride as isize,
            keep,
            lhs.data.as_ptr(),
            lhs.strides[1] as isize,
            lhs.strides[0] as isize,
            rhs.data.as_ptr(),
            rhs.strides[1] as isize,
            rhs.strides[0] as isize,
            if keep { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            match cores {
                Cores::All => gemm::Parallelism::Rayon(0),
                Cores::One => gemm::Parallelism::None,
            },
        );
    }
}
