//! AMX: registers of 16 rows of 16 pairs of bf16, multiplied to 16 × 16 sums in f32.
//!
//! Four registers hold a tile of C, two by two. For each 32 of k, two more are loaded from the micro-panel of A and two
//! from that of B.

use std::{arch::asm, mem::MaybeUninit};

use pulp::{Simd, WithSimd, x86::V4};
use raw_cpuid::CpuId;

use super::MicroKernel;
use crate::flex::{
    element::Element,
    product::{
        block::{Block, Tile},
        format::{AMX_ROW_WORDS, Packed},
        macro_kernel::multiply_packed,
        pack_b::PackedB,
    },
};

/// Rows of a register, and words in a row.
const SIDE: usize = AMX_ROW_WORDS;

/// Rows of a tile.
const MR: usize = 2 * SIDE;

/// Columns of a tile.
const NR: usize = 2 * SIDE;

/// Vectors of a tile's row.
const NV: usize = NR / 16;

/// A processor that has AMX for bf16, and AVX-512's vectors, and a system that saves its registers.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex::product) struct Amx(V4);

impl MicroKernel<MR, NV> for Amx {
    type Simd = V4;

    const PACKED: Packed = Packed::Bf16Tiles;

    /// Linux saves the registers for a process that has asked for it.
    fn detect() -> Option<Self> {
        /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl`.
        const REQUEST: libc::c_int = 0x1023;
        /// The state of the registers.
        const TILE_DATA: libc::c_ulong = 18;
        let features = CpuId::new().get_extended_feature_info()?;
        if !features.has_amx_tile() || !features.has_amx_bf16() {
            return None;
        }
        let vectors = V4::try_new()?;
        #[expect(
            unsafe_code,
            reason = "the call reads and writes no memory of this process"
        )]
        // SAFETY: see the reason.
        let refused = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } != 0;
        (!refused).then_some(Self(vectors))
    }

    #[inline(always)]
    fn simd(self) -> V4 {
        self.0
    }

    #[inline(always)]
    fn tile(self, a: &[f32], b: &[f32]) -> Tile<V4, MR, NV> {
        tile(a, b)
    }

    fn run<E: Element, O: Element>(self, block: Block<'_, E, O>, packed_b: &mut PackedB) {
        let _configured = Configured::new(self);
        Simd::vectorize(
            self.0,
            Run {
                kernel: self,
                block,
                packed_b,
            },
        );
    }
}

struct Run<'a, E, O> {
    kernel: Amx,
    block: Block<'a, E, O>,
    packed_b: &'a mut PackedB,
}

impl<E: Element, O: Element> WithSimd for Run<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        multiply_packed(self.kernel, &self.block, self.packed_b);
    }
}

/// Holds the shapes of this thread's registers.
struct Configured(());

impl Configured {
    fn new(_: Amx) -> Self {
        /// Palette 1, all eight registers of [`SIDE`] rows of 64 bytes.
        #[repr(C, align(64))]
        struct Shapes {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            bytes_a_row: [u16; 16],
            rows: [u8; 16],
        }
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes_a_row: [0; 16],
            rows: [0; 16],
        };
        shapes.bytes_a_row[..8].fill(64);
        shapes.rows[..8].fill(SIDE as u8);
        #[expect(
            unsafe_code,
            reason = "an `Amx` says that the instruction is there; it reads the 64 bytes"
        )]
        // SAFETY: see the reason.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, readonly));
        }
        Self(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        #[expect(
            unsafe_code,
            reason = "it clears the registers, which nothing reads any more"
        )]
        // SAFETY: see the reason.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// The product of two packed micro-panels, whose part of k is a multiple of 32.
#[inline(always)]
fn tile(a: &[f32], b: &[f32]) -> Tile<V4, MR, NV> {
    let steps = a.len() / (MR * SIDE);
    assert!(
        steps > 0 && a.len() == b.len() && a.len() == steps * MR * SIDE,
        "{} words of A by {} of B",
        a.len(),
        b.len()
    );
    // Neither cleared nor converted: a tile is 4 KiB, and a pass over it would count beside multiplying it.
    let mut sums = MaybeUninit::<Tile<V4, MR, NV>>::uninit();
    #[expect(
        unsafe_code,
        reason = "`run` has shaped the registers; 2 KiB of A and of B are read for each step, which have them, and the \
                  four registers are all sums"
    )]
    // SAFETY: see the reason.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm7, [{b} + {line} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 2112], tmm3",
            a = inout(reg) a.as_ptr() => _,
            b = inout(reg) b.as_ptr() => _,
            steps = inout(reg) steps => _,
            sums = in(reg) sums.as_mut_ptr(),
            // Bytes from a register's row to the next: in A 16 words, in B and in the sums 32.
            row = in(reg) 64_usize,
            line = in(reg) 128_usize,
            options(nostack),
        );
        sums.assume_init()
    }
}
