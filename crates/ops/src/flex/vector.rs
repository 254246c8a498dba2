//! Loops in the processor's vectors.

use pulp::{Arch, Simd, WithSimd};

/// Runs `body` compiled for the widest vectors that the processor has, as found at run time. What it calls
/// must be inlined (`#[inline(always)]`, on closures too), or it is compiled for the oldest processor.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Body(body))
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
