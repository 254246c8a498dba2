//! The outer loops of a product, over blocks of m and of k.

use std::mem::MaybeUninit;

use super::{
    block::{AddTo, Product},
    block_sizes::BlockSizes,
    kernel::Kernel,
    matrix_b::MatrixB,
    pack_a::{MatrixA, PackedA},
    threads,
};
use crate::flex::element::Element;

/// What the matrices A are multiplied by, and where that goes.
pub(super) struct Term<'a, 'c, E, O, const N: usize> {
    /// `[m, n]`.
    pub(super) c: &'c mut [MaybeUninit<O>],
    /// One for each A; the products are added up.
    pub(super) b: [MatrixB<'a, E>; N],
    pub(super) add_to: AddTo<'a, E>,
}

/// Writes to all of each C; [`AddTo::C`] says that there are numbers already.
///
/// # Panics
/// If the shapes do not fit, or k is no multiple of what the kernel takes at a time.
pub(super) fn multiply<E: Element, O: Element, const N: usize>(
    kernel: Kernel,
    a: &(impl MatrixA<N> + ?Sized),
    terms: &mut [Term<'_, '_, E, O, N>],
) {
    let [k, _] = terms[0].b[0].shape();
    let m = a.len() / k;
    assert!(kernel.fits(k), "products of {k} numbers by {kernel:?}");
    for term in &*terms {
        check(a.len(), [m, k], term);
    }
    if m == 0 {
        return;
    }
    let format = kernel.format();
    let BlockSizes { mc, kc } = BlockSizes::new(format.packed, m, k);
    for start in (0..m).step_by(mc) {
        let rows = start..m.min(start + mc);
        for first in (0..k).step_by(kc) {
            let k_range = first..k.min(first + kc);
            let packed = PackedA::pack(format, a, rows.clone(), k, k_range);
            for (index, packed) in packed.iter().enumerate() {
                let products = terms.iter_mut().map(|term| {
                    let b = term.b[index];
                    let [_, n] = b.shape();
                    let c = &mut term.c[rows.start * n..rows.end * n];
                    Product {
                        a: packed,
                        b,
                        c: c.as_mut_ptr(),
                        n,
                        add_to: match (first, index) {
                            (0, 0) => term.add_to,
                            _ => AddTo::C,
                        },
                    }
                });
                threads::run(kernel, &products.collect::<Vec<_>>());
            }
        }
    }
}

fn check<E: Element, O, const N: usize>(
    a_len: usize,
    [m, k]: [usize; 2],
    term: &Term<'_, '_, E, O, N>,
) {
    let [_, n] = term.b[0].shape();
    for b in &term.b {
        let [b_k, b_n] = b.shape();
        assert!(
            [b_k, b_n] == [k, n] && a_len == m * k && term.c.len() == m * n,
            "{a_len} elements in rows of {k}, times {b_k} × {b_n}, into {}",
            term.c.len()
        );
    }
    if let AddTo::Bias(bias) = term.add_to {
        assert_eq!(bias.len(), n, "the elements of a bias");
    }
}
