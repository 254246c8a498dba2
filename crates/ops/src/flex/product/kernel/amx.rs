//! AMX: bf16 in registers of 16 rows of 64 bytes, multiplied to 16 × 16 sums in f32.
//!
//! Four registers hold a tile's sums, two by two; for each 32 inner indices two take its rows and two a panel's columns.

use std::{arch::asm, mem::MaybeUninit};

use pulp::{Simd, WithSimd, x86::V4};
use raw_cpuid::CpuId;

use super::{
    super::pack::ToWord,
    task::{Task, Tiles},
};
use crate::flex::element::Element;

/// Rows of a register, and words of one.
const SIDE: usize = 16;

/// Rows and columns of a tile.
pub(super) const TILE: [usize; 2] = [2 * SIDE, 2 * SIDE];

/// Inner indices at a time.
pub(super) const INNER: usize = 2 * SIDE;

/// A processor and a system that have it.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex) struct Amx(V4);

impl Amx {
    /// If these do. Linux saves the registers of a process that has asked for it.
    pub(super) fn here() -> Option<Self> {
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

    pub(super) fn run<E: Element, O: Element>(self, task: Task<'_, E, O>) {
        let _configured = Configured::new(self);
        Simd::vectorize(self.0, InTiles(task));
    }
}

/// The inner indices of rows, from `first` on, to places `[inner / INNER, 2 * SIDE, SIDE]`.
#[inline(always)]
pub(super) fn place<'a, E: Element>(
    places: &mut [MaybeUninit<f32>],
    rows: impl Iterator<Item = &'a [E]>,
    first: usize,
) {
    let (blocks, _) = places.as_chunks_mut::<SIDE>();
    for (row, numbers) in rows.enumerate() {
        let (numbers, _) = numbers[first..].as_chunks::<INNER>();
        let words = blocks.iter_mut().skip(row).step_by(2 * SIDE);
        for (words, numbers) in words.zip(numbers) {
            for (word, pair) in words.iter_mut().zip(numbers.as_chunks::<2>().0) {
                word.write(pair.word());
            }
        }
    }
}

struct InTiles<'a, E, O>(Task<'a, E, O>);

impl<E: Element, O: Element> WithSimd for InTiles<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (panels, tiles): (_, Tiles<'_, E, O, { TILE[0] }, 2>) = self.0.parts();
        let panels = tiles.copied(panels, TILE[1]);
        tiles.by(
            simd,
            panels,
            #[inline(always)]
            |rows, panel| bytemuck::cast(multiply(rows, panel)),
        );
    }
}

/// The shapes of this thread's registers.
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

/// A tile's rows by a panel, as many words of both as a number of [`INNER`].
#[inline(always)]
fn multiply(rows: &[f32], panel: &[f32]) -> [[f32; TILE[1]]; TILE[0]] {
    let blocks = rows.len() / (TILE[0] * SIDE);
    assert!(
        blocks > 0 && rows.len() == panel.len() && rows.len() == blocks * TILE[0] * SIDE,
        "{} words of rows by {} of a panel",
        rows.len(),
        panel.len()
    );
    let mut sums = [[0.0; TILE[1]]; TILE[0]];
    #[expect(
        unsafe_code,
        reason = "`Configured` has shaped the registers, `blocks` times 2 KiB are read of rows and panel, which have \
                  them, and all sums are written"
    )]
    // SAFETY: see the reason.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{rows} + {row}]",
            "tileloadd tmm6, [{panel} + {line}]",
            "tileloadd tmm7, [{panel} + {line} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{rows} + {row} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {rows}, 2048",
            "add {panel}, 2048",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 64], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 2112], tmm3",
            rows = inout(reg) rows.as_ptr() => _,
            panel = inout(reg) panel.as_ptr() => _,
            blocks = inout(reg) blocks => _,
            sums = in(reg) sums.as_mut_ptr(),
            // Bytes from a row of a register to the next: of a tile's rows, and of panels and sums.
            row = in(reg) 64_usize,
            line = in(reg) 128_usize,
            options(nostack),
        );
    }
    sums
}
