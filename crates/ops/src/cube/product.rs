//! Matrix products: a vendor's library where there is one, else Burn's kernels.

use burn::tensor::{DType, Shape};
use burn_cubecl::{
    CubeRuntime,
    kernel::matmul::{MatmulStrategy, matmul},
    ops::{numeric, permute, reshape},
    tensor::CubeTensor,
};

use super::{launch::contiguous, runtime::GpuRuntime};

/// `lhs · rhs (+ bias)`, summed in f32 and rounded to `dtype`; views cost no copy.
///
/// # Shapes
/// - lhs: `[m, k]` or `[batch, m, k]`
/// - rhs: `[k, n]` or `[batch, k, n]`
/// - bias: `[n]`, of type `dtype`
/// - output: `[m, n]` or `[batch, m, n]`, row-major without gaps
pub(crate) fn product<R: GpuRuntime>(
    lhs: &CubeTensor<R>,
    rhs: &CubeTensor<R>,
    bias: Option<&CubeTensor<R>>,
    dtype: DType,
) -> CubeTensor<R> {
    debug_assert_eq!(lhs.dtype, rhs.dtype, "a product mixes dtypes");
    if let Some(output) = R::library_product(lhs, rhs, bias, dtype) {
        return output;
    }
    let strategy = MatmulStrategy::default();
    let output = matmul(lhs.clone(), rhs.clone(), None, strategy, dtype)
        .expect("Burn has a kernel for every product");
    let output = contiguous(output);
    match bias {
        Some(bias) => {
            let columns = bias.meta.shape()[0];
            let bias = reshape(bias.clone(), Shape::new([1, columns]));
            numeric::add(output, bias)
        }
        None => output,
    }
}

/// The transpose of a matrix, or of each of a batch, as a view.
pub(crate) fn transposed<R: CubeRuntime>(matrices: &CubeTensor<R>) -> CubeTensor<R> {
    let rank = matrices.meta.num_dims();
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    permute(matrices.clone(), &axes)
}
