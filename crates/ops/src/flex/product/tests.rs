use half::bf16;

use super::{
    block::Product,
    block_sizes::{KC, MC},
    kernel::{bf16_kernels, f32_kernels},
    pack_a::PackedA,
    threads::tasks,
    *,
};

/// All that this processor has for products of `k` numbers.
fn kernels(k: usize) -> impl Iterator<Item = Kernel> {
    let kernels = f32_kernels().chain(bf16_kernels());
    kernels.filter(move |kernel| kernel.fits(k))
}

/// Small whole numbers, whose products and sums are exact in f32 whatever their order.
fn numbers(len: usize, offset: usize) -> impl Iterator<Item = f32> {
    (offset..offset + len).map(|i| ((i * 7919) % 17) as f32 - 8.0)
}

fn plain(a: &[f32], weight: &[f32], [d_out, d_in]: [usize; 2], transposed: bool) -> Vec<f32> {
    let [k, n] = match transposed {
        true => [d_in, d_out],
        false => [d_out, d_in],
    };
    let at = |row: usize, column: usize| match transposed {
        true => weight[column * d_in + row],
        false => weight[row * d_in + column],
    };
    let product = |row: &[f32], column| (0..k).map(|p| row[p] * at(p, column)).sum::<f32>();
    let row = |row| (0..n).map(move |column| product(row, column));
    a.chunks(k).flat_map(row).collect()
}

fn check<E: Element + PartialEq>(m: usize, shape @ [d_out, d_in]: [usize; 2]) {
    let stored = |numbers: &[f32]| numbers.iter().map(|x| E::store(*x)).collect::<Vec<E>>();
    let weight: Vec<f32> = numbers(d_out * d_in, 5).collect();
    let narrow = stored(&weight);
    for transposed in [false, true] {
        let b = MatrixB::weight(&narrow, d_in);
        let b = if transposed { b.transposed() } else { b };
        let [k, n] = b.shape();
        let a: Vec<f32> = numbers(m * k, 0).collect();
        let bias: Vec<f32> = numbers(n, 3).collect();
        let (narrow_a, narrow_bias) = (stored(&a), stored(&bias));
        let expected = plain(&a, &weight, shape, transposed);
        let case = format!("{m} rows, {shape:?}, transposed: {transposed}");
        let with_bias: Vec<f32> = (expected.iter().zip(bias.iter().cycle()))
            .map(|(product, bias)| product + bias)
            .collect();
        for kernel in kernels(k) {
            let factors = [([b], None), ([b], Some(&narrow_bias[..]))];
            let outputs: Vec<Vec<f32>> = products_by(kernel, &narrow_a[..], &factors);
            assert!(outputs[0] == expected, "{case}, {kernel:?}");
            assert!(outputs[1] == with_bias, "{case}, bias, {kernel:?}");
            let outputs: Vec<Vec<E>> = products_by(kernel, &narrow_a[..], &factors);
            assert!(
                outputs[0] == stored(&expected),
                "{case}, {kernel:?}, stored"
            );
            assert!(
                outputs[1] == stored(&with_bias),
                "{case}, bias, {kernel:?}, stored"
            );
        }
        let mut output = expected.clone();
        add_product(&mut output, &a, b);
        let twice: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
        assert!(output == twice, "{case}, added");
    }
}

/// Tiles, micro-panels, blocks of k and of m, whole and not.
#[test]
fn products_are_exact_in_small_numbers() {
    for (m, shape) in [
        (1, [1, 1]),
        (5, [3, 7]),
        (12, [32, 64]),
        (16, [48, 96]),
        (13, [33, 65]),
        (250, [40, 97]),
        (30, [KC + 1, 2 * KC + 70]),
        (30, [KC + 32, 2 * KC + 64]),
        (MC + 1, [3, 35]),
    ] {
        check::<f32>(m, shape);
        check::<bf16>(m, shape);
    }
}

#[test]
fn products_of_one_a_have_columns_of_their_own() {
    let (m, k) = (100, 70);
    let a: Vec<f32> = numbers(m * k, 0).collect();
    let widths = [300, 1, 50];
    let weights = widths.map(|n| numbers(n * k, n).collect::<Vec<f32>>());
    let factors = (weights.each_ref()).map(|weight| MatrixB::weight(weight, k).transposed());
    let factors = factors.map(|b| (b, None));
    let outputs: Vec<Vec<f32>> = products(&a[..], factors.into());
    assert_eq!(outputs.len(), widths.len());
    for ((n, weight), output) in widths.into_iter().zip(&weights).zip(&outputs) {
        let expected = plain(&a, weight, [n, k], true);
        assert!(*output == expected, "{n} columns");
    }
}

/// The numbers of A are computed while they are packed, also in several blocks of k. The products are added up and then
/// rounded once.
#[test]
fn sums_of_products_of_computed_matrices_are_exact_in_small_numbers() {
    for (m, k, n) in [
        (1, 1, 1),
        (13, 70, 65),
        (MC + 1, 3, 5),
        (30, 2 * KC + 70, 33),
        (70, KC + 96, 33),
    ] {
        let source: Vec<f32> = numbers(m * k, 0).collect();
        let weights = [5, 11].map(|start| numbers(k * n, start).collect::<Vec<f32>>());
        let matrices = [|x: f32| x + 1.0, |x: f32| -2.0 * x];
        let computed = Computed::new(source.len(), |start, [one, two]: [&mut [f32]; 2]| {
            for (i, (one, two)) in one.iter_mut().zip(two).enumerate() {
                (*one, *two) = (
                    matrices[0](source[start + i]),
                    matrices[1](source[start + i]),
                );
            }
        });
        let products = [0, 1].map(|i| {
            let a: Vec<f32> = source.iter().map(|x| matrices[i](*x)).collect();
            plain(&a, &weights[i], [k, n], false)
        });
        let [one, two] = &products;
        let expected: Vec<f32> = one.iter().zip(two).map(|(a, b)| a + b).collect();
        let b = weights.each_ref().map(|weight| MatrixB::weight(weight, n));
        for kernel in kernels(k) {
            let sums: Vec<Vec<f32>> = products_by(kernel, &computed, &[(b, None)]);
            assert!(sums == [&expected[..]], "{m} rows, {k} × {n}, {kernel:?}");
            let sums: Vec<Vec<bf16>> = products_by(kernel, &computed, &[(b, None)]);
            assert!(
                sums == [narrow::<bf16>(expected.clone())],
                "{m} rows, {k} × {n}, {kernel:?}, stored"
            );
        }
    }
}

#[test]
fn a_product_without_rows_is_empty() {
    let b = MatrixB::weight(&[1.0, 2.0], 2);
    assert!(product::<f32, f32>(&[0.0_f32; 0][..], b, None).is_empty());
}

#[test]
#[should_panic(expected = "5 elements in rows of 2, times 2 × 1, into 2")]
fn rows_that_do_not_fit_are_refused() {
    let _ = product::<f32, f32>(
        &[0.0_f32; 5][..],
        MatrixB::weight(&[1.0, 2.0], 2).transposed(),
        None,
    );
}

/// C starts uninitialised and only tasks write to it, so what they left out would be read as it is.
#[test]
fn the_tasks_of_any_number_of_threads_are_each_tile_once() {
    let [a] = PackedA::pack(
        Kernel::fastest::<f32>(2).format(),
        &[0.0_f32; 2 * 250][..],
        0..250,
        2,
        0..2,
    );
    let widths = [1000, 70, 1, 400];
    let products = widths.map(|n| Product::<f32, f32> {
        a: &a,
        b: MatrixB::weight(&[0.0; 2], 1),
        c: std::ptr::null_mut(),
        n,
        add_to: AddTo::Nothing,
    });
    let a_panels = a.rows.div_ceil(a.format.mr);
    for threads in [1, 2, 3, 16, 100] {
        let mut times = widths.map(|n| vec![0; n * a_panels]);
        for task in tasks(&products, threads) {
            for column in task.columns {
                times[task.product][column * a_panels..][task.a_panels.clone()]
                    .iter_mut()
                    .for_each(|n| *n += 1);
            }
        }
        assert!(times.iter().flatten().all(|n| *n == 1), "{threads} threads");
    }
}
