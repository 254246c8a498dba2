//! AVX512-BF16: the products of two pairs of bf16 added to an f32, in each lane.

use std::{
    arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps},
    mem::transmute,
};

use pulp::{Simd, f32x16, x86::V4};
use raw_cpuid::CpuId;

use super::{
    MANY_ROWS, VECTORS,
    task::{MultiplyAdd, Task},
};
use crate::flex::element::Element;

/// Rows and columns of a tile: as many vectors as in f32.
pub(super) const TILE: [usize; 2] = [MANY_ROWS, VECTORS * 16];

/// Whether two products at once are more than one of f32. On Intel's processors with this instruction (measured on
/// Emerald Rapids: 84 GFLOP/s a core in place of 173) they are not: it has a quarter of the throughput.
pub(super) fn is_faster_than_f32() -> bool {
    let vendor = CpuId::new().get_vendor_info();
    vendor.is_some_and(|vendor| vendor.as_str() == "AuthenticAMD")
}

/// A processor that has it.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex) struct Avx512Bf16(V4);

impl Avx512Bf16 {
    /// If this one does.
    pub(super) fn here() -> Option<Self> {
        let vectors = V4::try_new().map(Self);
        vectors.filter(|_| is_x86_feature_detected!("avx512bf16"))
    }

    pub(super) fn run<E: Element, O: Element>(self, task: Task<'_, E, O>) {
        #[expect(
            unsafe_code,
            reason = "`here` has found the instruction and the vectors"
        )]
        // SAFETY: see the reason.
        unsafe {
            run(self.0, task);
        }
    }
}

#[target_feature(
    enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt"
)]
fn run<E: Element, O: Element>(simd: V4, task: Task<'_, E, O>) {
    task.in_vectors::<V4, MANY_ROWS>(simd, Pairs);
}

/// Words are pairs of bf16. Only for V4's vectors, and where the instruction is known to be.
#[derive(Clone, Copy)]
struct Pairs;

impl MultiplyAdd for Pairs {
    #[inline(always)]
    fn multiply_add<S: Simd>(self, _: S, row: S::f32s, column: S::f32s, sum: S::f32s) -> S::f32s {
        let [row, column, sum] = [row, column, sum].map(bytemuck::cast::<S::f32s, f32x16>);
        #[expect(
            unsafe_code,
            reason = "vectors of 512 bits are each other's, and `run`, which alone makes this type, is called where \
                      the processor has the instruction"
        )]
        // SAFETY: see the reason.
        let sum: f32x16 = unsafe {
            transmute::<__m512, f32x16>(_mm512_dpbf16_ps(
                transmute::<f32x16, __m512>(sum),
                transmute::<f32x16, __m512bh>(row),
                transmute::<f32x16, __m512bh>(column),
            ))
        };
        bytemuck::cast(sum)
    }
}
