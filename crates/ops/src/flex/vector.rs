//! Loops in the processor's vectors.

use pulp::{Arch, Simd, WithSimd};

use super::element::Element;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Runs `body` compiled for the widest vectors of this processor, which are detected at run time. Everything it calls must
/// be inlined (`#[inline(always)]`, on closures too); otherwise it is compiled for the oldest processor of the target.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Body(body))
}

/// The number of f32s in a vector of the CPU backend on this processor: 16 with AVX-512, 8 with AVX2, 4 with NEON, 1
/// without any of them.
#[must_use]
pub fn f32_lanes() -> usize {
    Arch::new().dispatch(Lanes)
}

/// Returns the number of f32s in a vector.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Asks the processor to fetch `len` elements from `start` on into its first cache, before they are needed. They may be
/// outside any slice.
#[inline(always)]
pub(super) fn prefetch<T>(start: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    prefetch_to::<{ std::arch::x86_64::_MM_HINT_T0 }, T>(start, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

/// [`prefetch`] into the second cache, of what is not needed soon.
#[inline(always)]
pub(super) fn prefetch_early<T>(start: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    prefetch_to::<{ std::arch::x86_64::_MM_HINT_T1 }, T>(start, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_to<const HINT: i32, T>(start: *const T, len: usize) {
    for line in (0..len * size_of::<T>()).step_by(CACHE_LINE) {
        #[expect(
            unsafe_code,
            reason = "an address that is none of this process's is ignored by the processor"
        )]
        // SAFETY: see the reason.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<HINT>(start.cast::<i8>().wrapping_add(line));
        }
    }
}

/// The widest vectors of this processor, and narrower ones that it has as well.
#[cfg(test)]
pub(super) fn arches() -> Vec<Arch> {
    let mut arches = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    arches.extend(pulp::x86::V3::try_new().map(Arch::V3));
    arches
}

/// A closure. (pulp takes an `FnOnce` too, but calls it through a shim that cannot be marked for inlining.)
struct Body<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Body<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// The sum of `term` over the columns of some rows, in sixteen partial sums, so that the compiler vectorises it.
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

/// The largest number of a row, or NaN if it has one.
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
