//! The macro-kernel: the two loops around the micro-kernel.

use pulp::Simd;

use super::{
    block::{Block, Tile},
    micro_kernel::MicroKernel,
    pack_b::PackedB,
};
use crate::flex::element::Element;

/// Computes a block of C by `kernel`, and packs its columns of B first.
#[inline(always)]
pub(super) fn multiply_packed<K, E, O, const MR: usize, const NV: usize>(
    kernel: K,
    block: &Block<'_, E, O>,
    packed_b: &mut PackedB,
) where
    K: MicroKernel<MR, NV>,
    E: Element,
    O: Element,
{
    let nr = kernel.format().nr;
    let (a, b) = (block.product.a, &block.product.b);
    let panels = packed_b.pack(K::PACKED, b, &a.k, &block.columns, nr);
    multiply_panels(
        kernel.simd(),
        block,
        panels.chunks_exact(a.words() * nr),
        #[inline(always)]
        |a, b| kernel.tile(a, b),
    );
}

/// Computes a block of C from micro-panels of B, by `tile` for each of them and one of A. A micro-panel of A is
/// multiplied by all of B's while it is in the first-level cache.
#[inline(always)]
pub(super) fn multiply_panels<S, E, O, P, const MR: usize, const NV: usize>(
    simd: S,
    block: &Block<'_, E, O>,
    b_panels: impl Iterator<Item = P> + Clone,
    tile: impl Fn(&[f32], P) -> Tile<S, MR, NV>,
) where
    S: Simd,
    E: Element,
    O: Element,
{
    let a_panels = block.product.a.panels(MR).skip(block.a_panels.start);
    let b_panels = block.b_panels(NV * S::F32_LANES).zip(b_panels);
    for (index, a) in block.a_panels.clone().zip(a_panels) {
        for (columns, b) in b_panels.clone() {
            block.prefetch_tile::<MR>(index, &columns);
            let sums = tile(a, b);
            block.write_tile(simd, index, &columns, &sums);
        }
    }
}
