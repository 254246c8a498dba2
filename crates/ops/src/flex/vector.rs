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
    Arch::new().dispatch(Lanes)
}

/// Tells how many f32s are in a vector.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
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

/// The sum of `term` of the numbers side by side in some rows, in sixteen lanes, so that it vectorises.
#[inline(always)]
pub(super) fn sum<E: Element, const N: usize>(
    rows: [&[E]; N],
    term: impl Fn([f32; N]) -> f32,
) -> f32 {
    const LANES: usize = 16;
    let len = rows[0].len();
    let whole = len - len % LANES;
    let mut lanes = [0.0_f32; LANES];
    for start in (0..whole).step_by(LANES) {
        let mut numbers = [[0.0; N]; LANES];
        for (row, place) in rows.iter().zip(0..N) {
            for (numbers, x) in numbers.iter_mut().zip(&row[start..][..LANES]) {
                numbers[place] = x.load();
            }
        }
        for (lane, numbers) in lanes.iter_mut().zip(numbers) {
            *lane += term(numbers);
        }
    }
    let mut rest = 0.0;
    for i in whole..len {
        let mut numbers = [0.0; N];
        for (number, row) in numbers.iter_mut().zip(rows) {
            *number = row[i].load();
        }
        rest += term(numbers);
    }
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
