//! The ways to multiply copied factors, and which of them a processor takes.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod task;

use std::{mem::MaybeUninit, sync::LazyLock};

use burn::tensor::DType;
use pulp::{Arch, Simd, WithSimd};

use self::task::MultiplyAdd;
pub(super) use self::task::Task;
use super::pack::{Word, interleave};
use crate::flex::element::Element;

/// How a processor multiplies.
#[derive(Debug, Clone, Copy)]
pub(in crate::flex) enum Kernel {
    /// f32, in these vectors.
    F32(Arch),
    /// bf16 in pairs, each lane of a vector the sum of their products in f32.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(avx512_bf16::Avx512Bf16),
    /// bf16 in tiles of 16 × 16 sums in f32.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(amx::Amx),
}

impl Kernel {
    /// The fastest for weights that are stored so, and so many inner indices.
    pub(super) fn fastest<E: Element>(inner: usize) -> Self {
        let narrow = match E::dtype() {
            DType::BF16 => *FOR_BF16,
            _ => None,
        };
        // The sizes of a model are multiples.
        let narrow = narrow.filter(|kernel| inner.is_multiple_of(kernel.multiple()));
        narrow.unwrap_or_else(|| Self::F32(Arch::new()))
    }

    /// All that this processor has for so many inner indices.
    #[cfg(test)]
    pub(super) fn all(inner: usize) -> Vec<Self> {
        let vectors = crate::flex::vector::arches().into_iter().map(Self::F32);
        #[cfg(target_arch = "x86_64")]
        let vectors = vectors.chain(avx512_bf16::Avx512Bf16::here().map(Self::Avx512Bf16));
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        let vectors = vectors.chain(amx::Amx::here().map(Self::Amx));
        let fits = |kernel: &Self| inner.is_multiple_of(kernel.multiple());
        vectors.filter(fits).collect()
    }

    /// Rows and columns of a tile.
    pub(super) fn tile(self) -> [usize; 2] {
        match self {
            Self::F32(arch) => arch.dispatch(TileShape),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => avx512_bf16::TILE,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(_) => amx::TILE,
        }
    }

    /// What factors are copied as.
    pub(super) fn word(self) -> Word {
        match self {
            Self::F32(_) => Word::F32,
            #[cfg(target_arch = "x86_64")]
            _ => Word::Pair,
        }
    }

    /// Inner indices that it takes at a time: a part of a product has a multiple of them.
    pub(super) fn multiple(self) -> usize {
        match self {
            Self::F32(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => 2,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(_) => amx::INNER,
        }
    }

    /// Writes inner indices of some rows, from `first` on, to places of a tile in the order in which it is read.
    #[inline(always)]
    pub(super) fn place<'a, E: Element>(
        self,
        places: &mut [MaybeUninit<f32>],
        tile_rows: usize,
        rows: impl Iterator<Item = &'a [E]> + Clone,
        first: usize,
    ) {
        match self {
            Self::F32(_) => interleave(places, tile_rows, rows, first, MaybeUninit::new),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => {
                let rows = rows.map(
                    #[inline(always)]
                    |row| row.as_chunks::<2>().0,
                );
                interleave(places, tile_rows, rows, first / 2, MaybeUninit::new);
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(_) => amx::place(places, rows, first),
        }
    }

    /// Computes a part of a product.
    pub(super) fn run<E: Element, O: Element>(self, task: Task<'_, E, O>) {
        match self {
            Self::F32(arch) => arch.dispatch(InF32(task)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(kernel) => kernel.run(task),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(kernel) => kernel.run(task),
        }
    }
}

/// The fastest for bf16, if f32 is not.
static FOR_BF16: LazyLock<Option<Kernel>> = LazyLock::new(|| {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(amx) = amx::Amx::here() {
        return Some(Kernel::Amx(amx));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(pairs) = avx512_bf16::Avx512Bf16::here()
        && avx512_bf16::is_faster_than_f32()
    {
        return Some(Kernel::Avx512Bf16(pairs));
    }
    None
});

/// The instructions by which the CPU backend multiplies many tokens with bf16 weights: `AMX` or `AVX512-BF16`, with
/// inputs rounded to bf16 and sums in f32, or `f32`, with weights made wide on the way.
#[must_use]
pub fn bf16_products() -> &'static str {
    match *FOR_BF16 {
        None | Some(Kernel::F32(_)) => "f32",
        #[cfg(target_arch = "x86_64")]
        Some(Kernel::Avx512Bf16(_)) => "AVX512-BF16",
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Some(Kernel::Amx(_)) => "AMX",
    }
}

/// Vectors of columns a tile, where sums are kept in vectors.
const VECTORS: usize = 3;

/// Rows of such a tile: as many as registers can hold beside the vectors that are multiplied.
const fn tile_rows<S: Simd>() -> usize {
    match S::REGISTER_COUNT {
        0..32 => FEW_ROWS,
        _ => MANY_ROWS,
    }
}

/// With 16 registers.
const FEW_ROWS: usize = 4;

/// With 32, and more are nowhere.
const MANY_ROWS: usize = 8;

/// Rows of a tile of any kernel at most.
pub(super) const MOST_ROWS: usize = 32;

/// Tells the rows and columns of a tile.
struct TileShape;

impl WithSimd for TileShape {
    type Output = [usize; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
        [tile_rows::<S>(), VECTORS * S::F32_LANES]
    }
}

struct InF32<'a, E, O>(Task<'a, E, O>);

impl<E: Element, O: Element> WithSimd for InF32<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match tile_rows::<S>() {
            FEW_ROWS => self.0.in_vectors::<S, FEW_ROWS>(simd, F32),
            _ => self.0.in_vectors::<S, MANY_ROWS>(simd, F32),
        }
    }
}

/// Words are numbers.
#[derive(Clone, Copy)]
struct F32;

impl MultiplyAdd for F32 {
    #[inline(always)]
    fn multiply_add<S: Simd>(
        self,
        simd: S,
        row: S::f32s,
        column: S::f32s,
        sum: S::f32s,
    ) -> S::f32s {
        simd.mul_add_f32s(row, column, sum)
    }
}
