//! f32 by fused multiply-adds, in the vectors of any instruction set that pulp has.

use pulp::{Simd, WithSimd};

use super::{
    MicroKernel,
    vector_loop::{PREFETCH_B, packed_rows, tile},
};
use crate::flex::{
    element::Element,
    product::{
        block::{Block, Tile},
        format::Packed,
        macro_kernel::{multiply_packed, multiply_panels},
        pack_b::{PREFETCH_ROWS, PackedB},
    },
};

/// A tile is kept in MR · NV registers, beside which NV hold a row of B, and one a number of A.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex::product) struct Fma<S, const MR: usize, const NV: usize>(S);

/// AVX-512, of 32 registers: tiles of 8 × 48.
#[cfg(target_arch = "x86_64")]
pub(in crate::flex::product) type Avx512 = Fma<pulp::x86::V4, 8, 3>;

/// AVX2 and FMA, of 16 registers: tiles of 4 × 24.
#[cfg(target_arch = "x86_64")]
pub(in crate::flex::product) type Avx2 = Fma<pulp::x86::V3, 4, 3>;

/// NEON, of 32 registers: tiles of 8 × 12.
#[cfg(target_arch = "aarch64")]
pub(in crate::flex::product) type Neon = Fma<pulp::aarch64::Neon, 8, 3>;

/// Any processor: tiles of 4 × 3.
pub(in crate::flex::product) type Scalar = Fma<pulp::Scalar, 4, 3>;

/// The vectors of an instruction set, if the processor has it.
pub(in crate::flex::product) trait Detect: Simd {
    fn detect() -> Option<Self>;
}

#[cfg(target_arch = "x86_64")]
impl Detect for pulp::x86::V4 {
    fn detect() -> Option<Self> {
        Self::try_new()
    }
}

#[cfg(target_arch = "x86_64")]
impl Detect for pulp::x86::V3 {
    fn detect() -> Option<Self> {
        Self::try_new()
    }
}

#[cfg(target_arch = "aarch64")]
impl Detect for pulp::aarch64::Neon {
    fn detect() -> Option<Self> {
        Self::try_new()
    }
}

impl Detect for pulp::Scalar {
    fn detect() -> Option<Self> {
        Some(Self)
    }
}

/// For so many micro-panels of A, B is not packed: it comes from memory once, and then from the second-level cache.
const UNPACKED_A_PANELS: usize = 3;

impl<S: Detect, const MR: usize, const NV: usize> MicroKernel<MR, NV> for Fma<S, MR, NV> {
    type Simd = S;

    const PACKED: Packed = Packed::F32;

    fn detect() -> Option<Self> {
        S::detect().map(Self)
    }

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn tile(self, a: &[f32], b: &[f32]) -> Tile<S, MR, NV> {
        self.tile_of_rows(a, packed_rows::<S, NV>(b), PREFETCH_B * NV * S::F32_LANES)
    }

    fn run<E: Element, O: Element>(self, block: Block<'_, E, O>, packed_b: &mut PackedB) {
        self.0.vectorize(Run {
            kernel: self,
            block,
            packed_b,
        });
    }
}

struct Run<'a, K, E, O> {
    kernel: K,
    block: Block<'a, E, O>,
    packed_b: &'a mut PackedB,
}

impl<S: Detect, E: Element, O: Element, const MR: usize, const NV: usize> WithSimd
    for Run<'_, Fma<S, MR, NV>, E, O>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let (Fma(simd), block) = (self.kernel, self.block);
        // A last micro-panel of B that is narrower has narrower tiles.
        match block.columns.len().div_ceil(S::F32_LANES) {
            1 => Fma::<S, MR, 1>(simd).multiply(block, self.packed_b),
            2 => Fma::<S, MR, 2>(simd).multiply(block, self.packed_b),
            _ => Fma::<S, MR, NV>(simd).multiply(block, self.packed_b),
        }
    }
}

impl<S: Detect, const MR: usize, const NV: usize> Fma<S, MR, NV> {
    #[inline(always)]
    fn multiply<E: Element, O: Element>(self, block: Block<'_, E, O>, packed_b: &mut PackedB) {
        let nr = self.format().nr;
        let b = block.product.b;
        match b.unpacked(&block.columns, nr) {
            Some(weight) if block.a_panels.len() <= UNPACKED_A_PANELS => {
                let (row_len, k) = (b.row_len(), block.product.a.k.clone());
                let panels = block.b_panels(nr).map(|columns| {
                    let rows = weight[k.start * row_len..].chunks(row_len);
                    let rows = rows.map(move |row| vectors::<S, NV>(&row[columns.clone()]));
                    rows.take(k.len())
                });
                multiply_panels(
                    self.0,
                    &block,
                    panels,
                    #[inline(always)]
                    |a, b| self.tile_of_rows(a, b, PREFETCH_ROWS * row_len),
                );
            }
            _ => multiply_packed(self, &block, packed_b),
        }
    }

    #[inline(always)]
    fn tile_of_rows<'b>(
        self,
        a: &[f32],
        b: impl Iterator<Item = &'b [S::f32s; NV]>,
        b_ahead: usize,
    ) -> Tile<S, MR, NV> {
        let simd = self.0;
        tile(
            simd,
            #[inline(always)]
            |a, b, sum| simd.mul_add_f32s(a, b, sum),
            a,
            b,
            b_ahead,
        )
    }
}

/// The first vectors of a row.
#[inline(always)]
fn vectors<S: Simd, const NV: usize>(row: &[f32]) -> &[S::f32s; NV] {
    let (vectors, _) = S::as_simd_f32s(row);
    vectors.first_chunk().expect("the columns of a micro-panel")
}
