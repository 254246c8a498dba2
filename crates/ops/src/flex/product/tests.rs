use half::bf16;

use super::*;

/// Small whole numbers, whose products and sums are exact in f32 whatever their order.
fn numbers(len: usize, offset: usize) -> impl Iterator<Item = f32> {
    (offset..offset + len).map(|i| ((i * 7919) % 17) as f32 - 8.0)
}

fn plain(rows: &[f32], weight: &[f32], [d_out, d_in]: [usize; 2], transposed: bool) -> Vec<f32> {
    let [inner, columns] = match transposed {
        true => [d_in, d_out],
        false => [d_out, d_in],
    };
    let at = |inner: usize, column: usize| match transposed {
        true => weight[column * d_in + inner],
        false => weight[inner * d_in + column],
    };
    let product = |row: &[f32], column| (0..inner).map(|k| row[k] * at(k, column)).sum::<f32>();
    let row = |row| (0..columns).map(move |column| product(row, column));
    rows.chunks(inner).flat_map(row).collect()
}

fn check<E: Element + PartialEq>(rows: usize, shape @ [d_out, d_in]: [usize; 2]) {
    let stored = |numbers: &[f32]| numbers.iter().map(|x| E::store(*x)).collect::<Vec<E>>();
    let weight: Vec<f32> = numbers(d_out * d_in, 5).collect();
    let narrow = stored(&weight);
    for transposed in [false, true] {
        let factor = Factor::weight(&narrow, d_in);
        let factor = if transposed {
            factor.transposed()
        } else {
            factor
        };
        let [inner, columns] = factor.shape();
        let left: Vec<f32> = numbers(rows * inner, 0).collect();
        let bias: Vec<f32> = numbers(columns, 3).collect();
        let (narrow_left, narrow_bias) = (stored(&left), stored(&bias));
        let expected = plain(&left, &weight, shape, transposed);
        let case = format!("{rows} rows, {shape:?}, transposed: {transposed}");
        let with_bias: Vec<f32> = (expected.iter().zip(bias.iter().cycle()))
            .map(|(product, bias)| product + bias)
            .collect();
        for kernel in Kernel::all(inner) {
            let factors = [([factor], None), ([factor], Some(&narrow_bias[..]))];
            let outputs: Vec<Vec<f32>> = products_by(kernel, &narrow_left[..], &factors);
            assert!(outputs[0] == expected, "{case}, {kernel:?}");
            assert!(outputs[1] == with_bias, "{case}, bias, {kernel:?}");
            let outputs: Vec<Vec<E>> = products_by(kernel, &narrow_left[..], &factors);
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
        add_product(&mut output, &left, factor);
        let twice: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
        assert!(output == twice, "{case}, added");
    }
}

/// Tiles, panels, parts of the inner size and blocks of rows, whole and not.
#[test]
fn products_are_exact_in_small_numbers() {
    for (rows, shape) in [
        (1, [1, 1]),
        (5, [3, 7]),
        (12, [32, 64]),
        (16, [48, 96]),
        (13, [33, 65]),
        (250, [40, 97]),
        (30, [INNER + 1, 2 * INNER + 70]),
        (30, [INNER + 32, 2 * INNER + 64]),
        (ROWS + 1, [3, 35]),
    ] {
        check::<f32>(rows, shape);
        check::<bf16>(rows, shape);
    }
}

#[test]
fn factors_of_one_left_factor_have_columns_of_their_own() {
    let (rows, inner) = (100, 70);
    let left: Vec<f32> = numbers(rows * inner, 0).collect();
    let columns = [300, 1, 50];
    let weights = columns.map(|columns| numbers(columns * inner, columns).collect::<Vec<f32>>());
    let factors = (weights.each_ref()).map(|weight| Factor::weight(weight, inner).transposed());
    let factors = factors.map(|factor| (factor, None));
    let outputs: Vec<Vec<f32>> = products(&left[..], factors.into());
    assert_eq!(outputs.len(), columns.len());
    for ((columns, weight), output) in columns.into_iter().zip(&weights).zip(&outputs) {
        let expected = plain(&left, weight, [columns, inner], true);
        assert!(*output == expected, "{columns} columns");
    }
}

/// Their products are added up, and rounded once behind that; their numbers are computed as they are copied, in parts of the
/// inner size too.
#[test]
fn sums_of_products_of_computed_rows_are_exact_in_small_numbers() {
    for (rows, inner, columns) in [
        (1, 1, 1),
        (13, 70, 65),
        (ROWS + 1, 3, 5),
        (30, 2 * INNER + 70, 33),
        (70, INNER + 96, 33),
    ] {
        let source: Vec<f32> = numbers(rows * inner, 0).collect();
        let weights = [5, 11].map(|start| numbers(inner * columns, start).collect::<Vec<f32>>());
        let lefts = [|x: f32| x + 1.0, |x: f32| -2.0 * x];
        let computed = Computed::new(source.len(), |start, [one, two]: [&mut [f32]; 2]| {
            for (i, (one, two)) in one.iter_mut().zip(two).enumerate() {
                (*one, *two) = (lefts[0](source[start + i]), lefts[1](source[start + i]));
            }
        });
        let products = [0, 1].map(|i| {
            let left: Vec<f32> = source.iter().map(|x| lefts[i](*x)).collect();
            plain(&left, &weights[i], [inner, columns], false)
        });
        let [one, two] = &products;
        let expected: Vec<f32> = one.iter().zip(two).map(|(a, b)| a + b).collect();
        let factors = weights
            .each_ref()
            .map(|weight| Factor::weight(weight, columns));
        for kernel in Kernel::all(inner) {
            let sums: Vec<Vec<f32>> = products_by(kernel, &computed, &[(factors, None)]);
            assert!(
                sums == [&expected[..]],
                "{rows} rows, {inner} × {columns}, {kernel:?}"
            );
            let sums: Vec<Vec<bf16>> = products_by(kernel, &computed, &[(factors, None)]);
            assert!(
                sums == [narrow::<bf16>(expected.clone())],
                "{rows} rows, {inner} × {columns}, {kernel:?}, stored"
            );
        }
    }
}

#[test]
fn a_product_without_rows_is_empty() {
    let factor = Factor::weight(&[1.0, 2.0], 2);
    assert!(product::<f32, f32>(&[0.0_f32; 0][..], factor, None).is_empty());
}

#[test]
#[should_panic(expected = "5 elements in rows of 2, times 2 × 1, into 2")]
fn rows_that_do_not_fit_are_refused() {
    let _ = product::<f32, f32>(
        &[0.0_f32; 5][..],
        Factor::weight(&[1.0, 2.0], 2).transposed(),
        None,
    );
}

/// Nobody else writes to an output that begins as it is: what is left out would be read.
#[test]
fn the_tasks_of_any_number_of_threads_are_each_tile_of_each_panel_once() {
    let [left] = Left::of(
        Kernel::fastest::<f32>(2),
        &[0.0_f32; 2 * 250][..],
        0..250,
        2,
        0..2,
    );
    let columns = [1000, 70, 1, 400];
    let products = columns.map(|columns| Product::<f32, f32> {
        left: &left,
        output: std::ptr::null_mut(),
        columns,
        factor: Factor::weight(&[0.0; 2], 1),
        start: Start::Zero,
    });
    let tiles = left.rows.div_ceil(left.tile[0]);
    for threads in [1, 2, 3, 16, 100] {
        let mut times = columns.map(|columns| vec![0; columns * tiles]);
        for task in tasks(&products, threads) {
            for column in task.columns {
                times[task.product][column * tiles..][task.tiles.clone()]
                    .iter_mut()
                    .for_each(|n| *n += 1);
            }
        }
        assert!(times.iter().flatten().all(|n| *n == 1), "{threads} threads");
    }
}
