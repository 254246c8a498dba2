//! What flex does otherwise than the composed operations. (That its results are theirs is a claim about
//! every backend.)

use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::Flex;

use crate::{FrozenWeight, Kernels, NO_TOKEN, Visibility, composed};

#[test]
fn a_query_that_sees_nothing_gives_nothing() {
    let device = Default::default();
    let states = |heads| Tensor::<Flex, 4>::ones([1, heads, 2, 4], &device);
    let mask = Flex::score_mask(
        Visibility::new(1, vec![0, 1], vec![NO_TOKEN, 1]),
        DType::F32,
        &device,
    );
    let output = Flex::grouped_attention(states(2), states(1), states(1), &mask);
    let expected = [[0.0; 4], [1.0; 4], [0.0; 4], [1.0; 4]].concat();
    assert_eq!(
        output.into_data(),
        TensorData::new(expected, [1, 2, 2, 4]).convert::<f32>()
    );
    let gradients =
        Flex::grouped_attention_backward(states(2), states(1), states(1), &mask, states(2));
    for gradient in gradients {
        let data = gradient.into_data();
        assert!(data.iter::<f32>().all(f32::is_finite), "{data}");
    }
}

/// In the same memory if nothing else holds the cache; else what holds it keeps what it has.
#[test]
fn cells_are_written_in_place_and_nowhere_else() {
    let device = Default::default();
    let numbers = |len: usize, first: f32| (0..len).map(|i| first + i as f32).collect::<Vec<_>>();
    let places = [[1, 2], [1, 3], [0, 0]];
    for dtype in [DType::F32, DType::BF16] {
        let tensor = |numbers: Vec<f32>, shape: [usize; 4]| {
            Tensor::<Flex, 4>::from_data(TensorData::new(numbers, shape), (&device, dtype))
        };
        let held = || tensor(numbers(2 * 2 * 5 * 4, 0.0), [2, 2, 5, 4]);
        // A token's heads side by side, as a projection leaves them.
        let new = tensor(numbers(3 * 2 * 4, 100.0), [1, 3, 2, 4]).swap_dims(1, 2);
        let expected = composed::write_cells(held(), new.clone(), &places);
        let address = |tensor: &Tensor<Flex, 4>| {
            let primitive = tensor.clone().into_primitive().tensor();
            primitive.bytes().as_ptr()
        };
        let alone = held();
        let before = address(&alone);
        let written = Flex::write_cells(alone, new.clone(), &places);
        assert_eq!(address(&written), before);
        assert_eq!(written.into_data(), expected.clone().into_data());
        let shared = held();
        let written = Flex::write_cells(shared.clone(), new, &places);
        assert_eq!(written.into_data(), expected.into_data());
        assert_eq!(shared.into_data(), held().into_data());
    }
}

/// Rows one at a time, in tiles and in panels, whole and not: in small whole numbers all are exact.
#[test]
fn linear_layers_of_any_number_of_tokens_are_exact_in_small_numbers() {
    let device = Default::default();
    let numbers = |len: usize| {
        (0..len)
            .map(|i| ((i * 7919) % 17) as i64 - 8)
            .collect::<Vec<_>>()
    };
    for dtype in [DType::F32, DType::BF16] {
        let tensor = |numbers: &[i64], shape: [usize; 2]| {
            let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
            Tensor::<Flex, 2>::from_data(TensorData::new(numbers, shape), (&device, dtype))
        };
        for (tokens, d_out, d_in) in (1..=40).flat_map(|t| [(t, 7, 35), (t, 66, 3), (t, 1, 16)]) {
            let (input, weight) = (numbers(tokens * d_in), numbers(d_out * d_in));
            let sum = |token: usize, row: usize| -> i64 {
                let (token, row) = (&input[token * d_in..], &weight[row * d_in..][..d_in]);
                token.iter().zip(row).map(|(x, w)| x * w).sum()
            };
            let rows = |token| (0..d_out).map(move |row| (token, row));
            let expected: Vec<_> = (0..tokens).flat_map(rows).map(|(t, r)| sum(t, r)).collect();
            let expected = tensor(&expected, [tokens, d_out]);
            let (input, weight) = (
                tensor(&input, [tokens, d_in]),
                tensor(&weight, [d_out, d_in]),
            );
            let weight = FrozenWeight::new(weight);
            let output = Flex::frozen_linears(input, &[(weight, None)]).remove(0);
            assert_eq!(
                output.into_data(),
                expected.into_data(),
                "{tokens}, {d_out}, {d_in}"
            );
        }
    }
}

/// No thread that computes can come to it while it waits for its share of the first one.
#[test]
fn a_second_step_runs_on_the_thread_that_asks_for_it() {
    let computes = || rayon::current_thread_index().is_some();
    let (first, second) = Flex::run_step(&Default::default(), || {
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| Flex::run_step(&Default::default(), computes));
            second.join().expect("a step that ends")
        });
        (computes(), second)
    });
    assert!(first && !second);
}

/// One of those could come to it in the middle of an operation of another thread, which waits for that
/// operation with a lock that the step needs.
#[test]
fn a_step_does_not_run_on_rayons_global_threads() {
    let thread = || std::thread::current().id();
    let step = Flex::run_step(&Default::default(), thread);
    assert!(!rayon::broadcast(|_| thread()).contains(&step));
    assert_ne!(step, thread());
}
