//! Products of many rows with a weight, C = A · B, by blocks packed for a micro-kernel, as in Goto and van de Geijn,
//! "Anatomy of High-Performance Matrix Multiplication" (2008), and BLIS (Van Zee and van de Geijn 2015).
//!
//! `docs/kernels.md` explains the loops, the block sizes, and where this departs from the two. From the outside in:
//! `multiply` (blocks of m and k), `threads` (blocks of n, and who computes them), `macro_kernel`, `micro_kernel`.

mod block;
mod block_sizes;
mod format;
mod kernel;
mod macro_kernel;
mod matrix_b;
mod micro_kernel;
mod multiply;
mod pack_a;
mod pack_b;
#[cfg(test)]
mod tests;
mod threads;
mod transpose;

use std::mem::MaybeUninit;

pub use self::kernel::bf16_products;
use self::{
    block::AddTo,
    block_sizes::k_blocks,
    kernel::Kernel,
    multiply::{Term, multiply},
};
pub(super) use self::{
    matrix_b::MatrixB,
    pack_a::{Computed, MatrixA},
    transpose::RUN,
};
use super::{element::Element, storage::narrow};

/// `A · B (+ bias)`, `[m, n]`, for A of `[m, k]` and B of `[k, n]`. The bias is one number for each column.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn product<E: Element, O: Element>(
    a: &(impl MatrixA<1> + ?Sized),
    b: MatrixB<'_, E>,
    bias: Option<&[E]>,
) -> Vec<O> {
    products(a, vec![(b, bias)]).swap_remove(0)
}

/// [`product`] of one A with several matrices B. A is packed once.
pub(super) fn products<E: Element, O: Element>(
    a: &(impl MatrixA<1> + ?Sized),
    factors: Vec<(MatrixB<'_, E>, Option<&[E]>)>,
) -> Vec<Vec<O>> {
    let factors = factors.into_iter();
    let factors: Vec<_> = factors.map(|(b, bias)| ([b], bias)).collect();
    products_by(kernel(&factors), a, &factors)
}

/// `A₁ · B₁ + A₂ · B₂ + …`, `[m, n]`.
pub(super) fn sum_of_products<E: Element, O: Element, const N: usize>(
    a: &impl MatrixA<N>,
    b: [MatrixB<'_, E>; N],
) -> Vec<O> {
    let factors = [(b, None)];
    products_by(kernel(&factors), a, &factors).swap_remove(0)
}

/// A B for each A, and a bias of the sum of their products.
type Factors<'a, E, const N: usize> = ([MatrixB<'a, E>; N], Option<&'a [E]>);

fn kernel<E: Element, const N: usize>(factors: &[Factors<'_, E, N>]) -> Kernel {
    let [k, _] = factors[0].0[0].shape();
    Kernel::fastest::<E>(k)
}

/// [`products`], or sums of them.
fn products_by<E: Element, O: Element, const N: usize>(
    kernel: Kernel,
    a: &(impl MatrixA<N> + ?Sized),
    factors: &[Factors<'_, E, N>],
) -> Vec<Vec<O>> {
    let [k, _] = factors[0].0[0].shape();
    let times_c_is_written = N * k_blocks(k);
    match times_c_is_written {
        0 | 1 => into_new(kernel, a, factors),
        // C stays f32 until all is added up, so that it is rounded once.
        _ => into_new(kernel, a, factors)
            .into_iter()
            .map(narrow)
            .collect(),
    }
}

/// [`products_by`], where C has the type of the output all along.
fn into_new<E: Element, O: Element, const N: usize>(
    kernel: Kernel,
    a: &(impl MatrixA<N> + ?Sized),
    factors: &[Factors<'_, E, N>],
) -> Vec<Vec<O>> {
    let len = |b: &[MatrixB<'_, E>; N]| {
        let [k, n] = b[0].shape();
        a.len() / k * n
    };
    let empty = |(b, _): &Factors<'_, E, N>| Vec::<O>::with_capacity(len(b));
    let mut outputs: Vec<_> = factors.iter().map(empty).collect();
    let terms = outputs.iter_mut().zip(factors);
    let terms = terms.map(|(output, (b, bias))| Term {
        c: &mut output.spare_capacity_mut()[..len(b)],
        b: *b,
        add_to: bias.map_or(AddTo::Nothing, AddTo::Bias),
    });
    multiply(kernel, a, &mut terms.collect::<Vec<_>>());
    for (output, (b, _)) in outputs.iter_mut().zip(factors) {
        #[expect(unsafe_code, reason = "`multiply` has written to all of it")]
        // SAFETY: see the reason.
        unsafe {
            output.set_len(len(b));
        }
    }
    outputs
}

/// `C += A · B`.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn add_product<E: Element>(c: &mut [f32], a: &[f32], b: MatrixB<'_, E>) {
    #[expect(unsafe_code, reason = "`multiply` writes numbers, and nothing else")]
    // SAFETY: see the reason.
    let c = unsafe { &mut *(std::ptr::from_mut(c) as *mut [MaybeUninit<f32>]) };
    let [k, _] = b.shape();
    let term = Term {
        c,
        b: [b],
        add_to: AddTo::C,
    };
    multiply(Kernel::fastest::<E>(k), a, &mut [term]);
}
