//! Loops in the processor's vectors.

use pulp::{Arch, Simd, WithSimd};

use super::element::Element;

/// Runs `body` compiled for the widest vectors that the processor has, as found at run time. What it calls
/// must be inlined (`#[inline(always)]`, on closures too), or it is compiled for the oldest processor.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Body(body))
}

/// Numbers that the CPU backend's loops and products take at a time on this processor, in f32: 16 with
/// AVX-512, 8 with AVX2, 4 with NEON, 1 without any of them.
#[must_use]
pub fn f32_lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Lanes)
}

/// The widest vectors of this processor, and narrower ones that it has too.
#[cfg(test)]
pub(super) fn arches() -> Vec<Arch> {
    let mut arches = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    arches.extend(pulp::x86::V3::try_new().map(Arch::V3));
    arches
}

/// A closure that is called as it is. (As an `FnOnce`, which pulp takes, it would be called through a shim
/// that nothing can mark for inlining.)
struct Body<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Body<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// A sum in sixteen lanes, so that it vectorises.
#[inline(always)]
pub(super) fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let whole = len - len % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..len).map(&term).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest of a row, or NaN where there is one.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, larger)
}

/// In 32 lanes, so that the additions do not wait for each other.
#[inline(always)]
pub(super) fn dot<E: Element>(lhs: &[f32], rhs: &[E]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0_f32; LANES];
    let (lhs, lhs_rest) = lhs.as_chunks::<LANES>();
    let (rhs, rhs_rest) = rhs.as_chunks::<LANES>();
    for (lhs, rhs) in lhs.iter().zip(rhs) {
        for ((lane, lhs), rhs) in lanes.iter_mut().zip(lhs).zip(rhs) {
            *lane = lhs.mul_add(rhs.load(), *lane);
        }
    }
    let rest = lhs_rest.iter().zip(rhs_rest);
    lanes.iter().sum::<f32>() + rest.map(|(lhs, rhs)| lhs * rhs.load()).sum::<f32>()
}
