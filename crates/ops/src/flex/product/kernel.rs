//! The micro-kernels that there are, and the one that a product takes.

use std::sync::LazyLock;

use burn::tensor::DType;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::micro_kernel::amx::Amx;
#[cfg(target_arch = "aarch64")]
use super::micro_kernel::fma::Neon;
#[cfg(target_arch = "x86_64")]
use super::micro_kernel::{
    avx512_bf16::{self, Pairs},
    fma::{Avx2, Avx512},
};
use super::{
    block::Block,
    format::Format,
    micro_kernel::{MicroKernel, fma::Scalar},
    pack_b::PackedB,
};
use crate::flex::element::Element;

/// A micro-kernel whose instructions this processor has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernel {
    Scalar(Scalar),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Pairs),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(Amx),
}

/// `$body` for the micro-kernel of any variant.
macro_rules! for_any {
    ($kernel:expr, $micro_kernel:ident => $body:expr) => {
        match $kernel {
            Kernel::Scalar($micro_kernel) => $body,
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon($micro_kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2($micro_kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512($micro_kernel) => $body,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Bf16($micro_kernel) => $body,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Kernel::Amx($micro_kernel) => $body,
        }
    };
}

impl Kernel {
    /// The fastest for weights of a type, and products of `k` numbers.
    pub(super) fn fastest<E: Element>(k: usize) -> Self {
        let bf16 = match E::dtype() {
            DType::BF16 => *FOR_BF16,
            _ => None,
        };
        // The sizes of a model are multiples.
        bf16.filter(|kernel| kernel.fits(k)).unwrap_or(*FOR_F32)
    }

    /// Whether it can multiply products of `k` numbers.
    pub(super) fn fits(self, k: usize) -> bool {
        k.is_multiple_of(self.format().packed.k_step())
    }

    pub(super) fn format(self) -> Format {
        for_any!(self, kernel => kernel.format())
    }

    /// Computes a block of C; the memory is for packing B.
    pub(super) fn run<E: Element, O: Element>(
        self,
        block: Block<'_, E, O>,
        packed_b: &mut PackedB,
    ) {
        for_any!(self, kernel => kernel.run(block, packed_b));
    }
}

/// Those of f32 that this processor has, the fastest first.
pub(super) fn f32_kernels() -> impl Iterator<Item = Kernel> {
    let kernels = [
        #[cfg(target_arch = "x86_64")]
        Avx512::detect().map(Kernel::Avx512),
        #[cfg(target_arch = "x86_64")]
        Avx2::detect().map(Kernel::Avx2),
        #[cfg(target_arch = "aarch64")]
        Neon::detect().map(Kernel::Neon),
        Scalar::detect().map(Kernel::Scalar),
    ];
    kernels.into_iter().flatten()
}

/// Those of bf16 that this processor has, the fastest first.
pub(super) fn bf16_kernels() -> impl Iterator<Item = Kernel> {
    let kernels: [Option<Kernel>; _] = [
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Amx::detect().map(Kernel::Amx),
        #[cfg(target_arch = "x86_64")]
        Pairs::detect().map(Kernel::Avx512Bf16),
    ];
    kernels.into_iter().flatten()
}

static FOR_F32: LazyLock<Kernel> =
    LazyLock::new(|| f32_kernels().next().expect("scalar is always there"));

/// The fastest for bf16, unless f32 is faster.
static FOR_BF16: LazyLock<Option<Kernel>> = LazyLock::new(|| {
    bf16_kernels().find(|kernel| match kernel {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512Bf16(_) => avx512_bf16::is_faster_than_f32(),
        _ => true,
    })
});

/// The instructions by which the CPU backend multiplies many tokens with bf16 weights: `AMX` or `AVX512-BF16`, with
/// inputs rounded to bf16 and sums in f32, or `f32`, to which weights are converted as they are packed.
#[must_use]
pub fn bf16_products() -> &'static str {
    match *FOR_BF16 {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Some(Kernel::Amx(_)) => "AMX",
        #[cfg(target_arch = "x86_64")]
        Some(Kernel::Avx512Bf16(_)) => "AVX512-BF16",
        _ => "f32",
    }
}
