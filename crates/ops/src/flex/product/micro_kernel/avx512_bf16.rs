//! AVX512-BF16: in each lane, the products of a pair of bf16 with another are added to an f32.

use std::{
    arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps},
    mem::transmute,
};

use pulp::{f32x16, x86::V4};
use raw_cpuid::CpuId;

use super::{
    MicroKernel,
    vector_loop::{PREFETCH_B, packed_rows, tile},
};
use crate::flex::{
    element::Element,
    product::{
        block::{Block, Tile},
        format::Packed,
        macro_kernel::multiply_packed,
        pack_b::PackedB,
    },
};

/// Rows of a tile: as many as in f32.
const MR: usize = 8;

/// A processor that has the instruction, and AVX-512's vectors.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex::product) struct Avx512Bf16<const NV: usize>(V4);

/// Tiles of 8 × 48.
pub(in crate::flex::product) type Pairs = Avx512Bf16<3>;

/// Whether the instruction is faster than two of f32. On Intel's processors it is not: it has a quarter of the throughput
/// (measured on Emerald Rapids: 84 GFLOP/s a core, f32 173).
pub(in crate::flex::product) fn is_faster_than_f32() -> bool {
    let vendor = CpuId::new().get_vendor_info();
    vendor.is_some_and(|vendor| vendor.as_str() == "AuthenticAMD")
}

impl<const NV: usize> MicroKernel<MR, NV> for Avx512Bf16<NV> {
    type Simd = V4;

    const PACKED: Packed = Packed::Bf16Pairs;

    fn detect() -> Option<Self> {
        let vectors = V4::try_new().map(Self);
        vectors.filter(|_| is_x86_feature_detected!("avx512bf16"))
    }

    #[inline(always)]
    fn simd(self) -> V4 {
        self.0
    }

    #[inline(always)]
    fn tile(self, a: &[f32], b: &[f32]) -> Tile<V4, MR, NV> {
        tile(
            self.0,
            #[inline(always)]
            |a, b, sum| self.multiply_add(a, b, sum),
            a,
            packed_rows::<V4, NV>(b),
            PREFETCH_B * NV * 16,
        )
    }

    fn run<E: Element, O: Element>(self, block: Block<'_, E, O>, packed_b: &mut PackedB) {
        #[expect(
            unsafe_code,
            reason = "`detect` has found the instruction and the vectors"
        )]
        // SAFETY: see the reason.
        unsafe {
            run(self, block, packed_b);
        }
    }
}

#[target_feature(
    enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt"
)]
fn run<E: Element, O: Element, const NV: usize>(
    Avx512Bf16(simd): Avx512Bf16<NV>,
    block: Block<'_, E, O>,
    packed_b: &mut PackedB,
) {
    // A last micro-panel of B that is narrower has narrower tiles.
    match block.columns.len().div_ceil(16) {
        1 => multiply_packed(Avx512Bf16::<1>(simd), &block, packed_b),
        2 => multiply_packed(Avx512Bf16::<2>(simd), &block, packed_b),
        _ => multiply_packed(Avx512Bf16::<NV>(simd), &block, packed_b),
    }
}

impl<const NV: usize> Avx512Bf16<NV> {
    #[inline(always)]
    fn multiply_add(self, a: f32x16, b: f32x16, sum: f32x16) -> f32x16 {
        #[expect(
            unsafe_code,
            reason = "vectors of 512 bits are each other's, and `detect` has found the instruction"
        )]
        // SAFETY: see the reason.
        unsafe {
            transmute::<__m512, f32x16>(_mm512_dpbf16_ps(
                transmute::<f32x16, __m512>(sum),
                transmute::<f32x16, __m512bh>(a),
                transmute::<f32x16, __m512bh>(b),
            ))
        }
    }
}
