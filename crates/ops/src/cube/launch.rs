//! How a kernel gets its tensors, its results and its grid.

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::{
    CubeRuntime,
    cubecl::{CubeCount, CubeDim, ir::VectorSize, server::CubeCountSelection},
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

/// Row-major without gaps, copied only where it is not.
pub(crate) use burn_cubecl::kernel::into_contiguous as contiguous;

/// Units of a cube in a kernel that goes over all elements.
const UNITS: u32 = 256;

/// Largest cube in a kernel that goes over rows; every GPU has as many units.
const MAX_ROW_UNITS: u32 = 256;

/// A result that is not written yet, row-major without gaps, on the device of `like`.
pub(crate) fn empty<R: CubeRuntime>(
    like: &CubeTensor<R>,
    shape: Shape,
    dtype: DType,
) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// A result of the shape and the type of `like`.
pub(crate) fn empty_like<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    empty(like, like.shape(), like.dtype)
}

/// Elements of `dtype` that a unit reads at once, where rows have `len` of them.
pub(crate) fn vector_size<R: CubeRuntime>(
    tensor: &CubeTensor<R>,
    dtype: DType,
    len: usize,
) -> VectorSize {
    tensor
        .client
        .io_optimized_vector_sizes(dtype.size())
        .filter(|size| len.is_multiple_of(*size))
        .max()
        .unwrap_or(1)
}

/// Cubes and units for `elements` that know nothing of each other. More units than elements may run.
pub(crate) fn elementwise_grid<R: CubeRuntime>(
    tensor: &CubeTensor<R>,
    elements: usize,
) -> (CubeCount, CubeDim) {
    let cubes = elements.div_ceil(UNITS as usize) as u32;
    (cubes_of(tensor, cubes), CubeDim::new_1d(UNITS))
}

/// A cube for each of `rows`, whose units go over `vectors` together; the number of units too, a power of
/// two. More cubes than rows may run.
pub(crate) fn row_grid<R: CubeRuntime>(
    tensor: &CubeTensor<R>,
    rows: usize,
    vectors: usize,
) -> (CubeCount, CubeDim, u32) {
    let units = (vectors as u32)
        .next_power_of_two()
        .clamp(32, MAX_ROW_UNITS);
    (cubes_of(tensor, rows as u32), CubeDim::new_1d(units), units)
}

fn cubes_of<R: CubeRuntime>(tensor: &CubeTensor<R>, cubes: u32) -> CubeCount {
    match CubeCountSelection::new(&tensor.client, cubes) {
        CubeCountSelection::Exact(count) | CubeCountSelection::Approx(count, _) => count,
    }
}
