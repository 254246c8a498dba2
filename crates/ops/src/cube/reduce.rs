//! What the units of a cube find out together. The order of the sums is fixed, so a row's result depends on
//! nothing but the row.

use burn_cubecl::cubecl::{self, prelude::*};

/// The sum over the units of a cube, for each of them.
///
/// `units`: how many the cube has, a power of two.
#[cube]
pub(crate) fn cube_sum(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime![units as usize]);
    let unit = UNIT_POS as usize;
    // Who still reads the result of the call before is waited for.
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = comptime![units as usize / 2].runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The largest over the units of a cube, for each of them; otherwise as the sum.
#[cube]
pub(crate) fn cube_max(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime![units as usize]);
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = comptime![units as usize / 2].runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] = max(shared[unit], other);
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The sum of a vector's elements.
#[cube]
pub(crate) fn vector_sum<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for lane in 0..N::value() {
        sum += vector[lane];
    }
    sum
}

/// The largest of a vector's elements.
#[cube]
pub(crate) fn vector_max<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut largest = vector[0];
    #[unroll]
    for lane in 1..N::value() {
        largest = max(largest, vector[lane]);
    }
    largest
}
