//! The sizes of the blocks that a product is cut into. `docs/kernels.md` says which cache each is for.

use super::format::Packed;

/// Rows of a packed block of A.
pub(super) const MC: usize = 1536;

/// The part of k that is packed at a time: all of a small model's hidden size.
pub(super) const KC: usize = 1024;

/// Micro-panels of B that a task packs: NC is as many times NR.
pub(super) const NC_PANELS: usize = 3;

/// The blocks of a product of `m` rows and `k` products to a sum: equal ones, no larger than [`MC`] and [`KC`].
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockSizes {
    pub(super) mc: usize,
    pub(super) kc: usize,
}

impl BlockSizes {
    /// `m` and `k` are at least 1.
    pub(super) fn new(packed: Packed, m: usize, k: usize) -> Self {
        Self {
            mc: m.div_ceil(m.div_ceil(MC)),
            kc: k.div_ceil(k_blocks(k)).next_multiple_of(packed.k_step()),
        }
    }
}

/// Blocks of k: each but the first is added to what the one before it wrote to C.
pub(super) fn k_blocks(k: usize) -> usize {
    k.div_ceil(KC)
}
