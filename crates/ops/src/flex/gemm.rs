//! The crate `gemm` behind a safe function, for the small products of attention. Its operands may have any strides, and
//! it runs on one core, inside a task.

/// A matrix in a slice: element `(i, j)` is at `i · strides[0] + j · strides[1]`.
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

    /// A matrix in row-major order.
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

/// The length of the slice that a matrix needs.
fn end([rows, columns]: [usize; 2], [down, right]: [usize; 2]) -> usize {
    match rows.min(columns) {
        0 => 0,
        _ => (rows - 1) * down + (columns - 1) * right + 1,
    }
}

/// What happens to the numbers in the output.
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
        reason = "`gemm` takes pointers; the assertions here and in `Matrix::new` keep every index inside the \
                  three slices, and the output overlaps neither of the others, for it is borrowed alone"
    )]
    // SAFETY: see the reason.
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
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_rows_is_left_alone() {
        let (lhs, rhs) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let (lhs, rhs) = (Matrix::dense(&lhs, [2, 2]), Matrix::dense(&rhs, [2, 2]));
        let mut output = [1.0; 6];
        multiply(&mut output, 3, lhs, rhs, 0.5, Before::Ignored);
        assert_eq!(output, [9.5, 11.0, 1.0, 21.5, 25.0, 1.0]);
        multiply(&mut output, 3, lhs, rhs.transposed(), 1.0, Before::Kept);
        assert_eq!(output, [26.5, 34.0, 1.0, 60.5, 78.0, 1.0]);
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
        multiply(&mut [0.0; 5], 3, lhs, rhs, 1.0, Before::Ignored);
    }
}
