//! The order in which packed A and B stand in memory: what packing writes and a micro-kernel reads.

/// Pairs of bf16 in a row of one of AMX's tile registers.
pub(super) const AMX_ROW_WORDS: usize = 16;

/// No micro-kernel has more rows.
pub(super) const MAX_MR: usize = 32;

/// How a micro-kernel reads packed A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::flex) struct Format {
    /// Rows of a tile of C, and of a micro-panel of A.
    pub(super) mr: usize,
    /// Columns of a tile of C, and of a micro-panel of B.
    pub(super) nr: usize,
    pub(super) packed: Packed,
}

/// The packed element, and its order. Every packed element is a word of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::flex) enum Packed {
    /// An f32. Micro-panels are `[k, MR]` and `[k, NR]`.
    F32,
    /// A pair of bf16, of k and k + 1. Micro-panels are `[k / 2, MR]` and `[k / 2, NR]`.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "only micro-kernels of x86-64 read it")
    )]
    Bf16Pairs,
    /// The same pairs. A micro-panel of A is `[k / 32, MR, 16]`, so that AMX loads 16 rows of it at once; one of B
    /// is `[k / 2, NR]`.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        allow(dead_code, reason = "only AMX reads it")
    )]
    Bf16Tiles,
}

impl Packed {
    /// Numbers in a word.
    pub(super) const fn k_per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16Pairs | Self::Bf16Tiles => 2,
        }
    }

    /// A micro-kernel takes so many k at a time: KC is a multiple.
    pub(super) const fn k_step(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16Pairs => 2,
            Self::Bf16Tiles => 2 * AMX_ROW_WORDS,
        }
    }
}
