//! The micro-kernel: the innermost loop of a product, in one instruction set.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512_bf16;
pub(super) mod fma;
mod vector_loop;

use std::fmt::Debug;

use pulp::Simd;

use super::{
    block::{Block, Tile},
    format::{Format, MAX_MR, Packed},
    pack_b::PackedB,
};
use crate::flex::element::Element;

/// An instruction set's way to compute a tile of C of MR = `MR` rows by NR = `NV` vectors. A value of it exists only
/// where its instructions can be used.
///
/// To add an instruction set: implement this in a file of its own, and add a variant to `Kernel`.
pub(super) trait MicroKernel<const MR: usize, const NV: usize>: Copy + Debug {
    /// The vectors that a row of a tile is written in.
    type Simd: Simd;

    /// How A and B are packed.
    const PACKED: Packed;

    /// The micro-kernel, if the processor has the instructions and the system lets this process use them.
    fn detect() -> Option<Self>;

    fn simd(self) -> Self::Simd;

    /// What packing has to know.
    #[inline(always)]
    fn format(self) -> Format {
        const { assert!(MR <= MAX_MR) };
        Format {
            mr: MR,
            nr: NV * Self::Simd::F32_LANES,
            packed: Self::PACKED,
        }
    }

    /// The product of a packed micro-panel of A and one of B, of the same part of k. Only the macro-kernel calls it,
    /// inside [`run`](Self::run).
    fn tile(self, a: &[f32], b: &[f32]) -> Tile<Self::Simd, MR, NV>;

    /// Computes a block of C: calls the macro-kernel in code that is compiled for the instruction set. The memory is
    /// for packing B.
    fn run<E: Element, O: Element>(self, block: Block<'_, E, O>, packed_b: &mut PackedB);
}
