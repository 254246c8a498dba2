//! The loop over k of the micro-kernels that keep a tile in vectors.

use pulp::Simd;

use crate::flex::{product::block::Tile, vector::prefetch};

/// Words of a micro-panel of A ahead of those that are read, which are prefetched: it shares the first-level cache with
/// micro-panels of B, and does not stay there.
const PREFETCH_A: usize = 256;

/// Rows of a packed micro-panel of B ahead of the one that is read, which are prefetched.
pub(super) const PREFETCH_B: usize = 12;

/// The product of a micro-panel of A, `[words, MR]`, and rows of one of B. `multiply_add(a, b, sum)` adds a product
/// to a sum in each lane. What stands `b_ahead` words behind a row of B is prefetched.
#[inline(always)]
pub(super) fn tile<'b, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    multiply_add: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s,
    a: &[f32],
    b: impl Iterator<Item = &'b [S::f32s; NV]>,
    b_ahead: usize,
) -> Tile<S, MR, NV> {
    let mut tile = [[simd.splat_f32s(0.0); NV]; MR];
    let (columns_of_a, _) = a.as_chunks::<MR>();
    for (a, b) in columns_of_a.iter().zip(b) {
        let row = b.as_ptr().cast::<f32>();
        prefetch(row.wrapping_add(b_ahead), NV * S::F32_LANES);
        prefetch(a.as_ptr().wrapping_add(PREFETCH_A), 1);
        for (sums, a) in tile.iter_mut().zip(a) {
            let a = simd.splat_f32s(*a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = multiply_add(a, *b, *sum);
            }
        }
    }
    tile
}

/// A packed micro-panel of B, `[words, NR]`, as rows of vectors.
#[inline(always)]
pub(super) fn packed_rows<S: Simd, const NV: usize>(
    b: &[f32],
) -> std::slice::Iter<'_, [S::f32s; NV]> {
    let (vectors, _) = S::as_simd_f32s(b);
    vectors.as_chunks().0.iter()
}
