//! The fast forms against the composed ones, computed in f64.

use std::cell::RefCell;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_flex::Flex;
use burn_ndarray::NdArray;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

use crate::{NO_TOKEN, Ops, ScoreMask, Visibility, composed};

type F64 = NdArray<f64>;

thread_local! {
    /// A test has a thread of its own, and so always the same numbers. (The backend's generator is shared.)
    static RANDOM: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// The same numbers on both backends, N(0, 1), rounded to `dtype` before.
fn pair<const D: usize>(shape: [usize; D], dtype: DType) -> (Tensor<Flex, D>, Tensor<F64, D>) {
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = RANDOM
        .with_borrow_mut(|random| (0..count).map(|_| random.sample(StandardNormal)).collect());
    let device = Default::default();
    let numbers = TensorData::new(numbers, shape).convert_dtype(dtype);
    let fast = Tensor::<Flex, D>::from_data(numbers, (&device, dtype));
    let exact = Tensor::from_data(fast.to_data().convert::<f64>(), &Default::default());
    (fast, exact)
}

/// Largest difference over the largest number.
fn error<const D: usize>(fast: Tensor<Flex, D>, exact: Tensor<F64, D>) -> f64 {
    assert_eq!(fast.dims(), exact.dims());
    let fast: Vec<f64> = fast.into_data().iter().collect();
    let exact: Vec<f64> = exact.into_data().iter().collect();
    assert!(fast.iter().all(|x| x.is_finite()), "{fast:?}");
    let largest = exact
        .iter()
        .fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let pairs = fast.iter().zip(&exact);
    pairs.fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

/// Sums of up to `terms` numbers in f32 err by about a unit (2⁻²³) for each doubling, and a few for the
/// functions on the way; a rounding to bf16 errs by 2⁻⁸.
fn tolerance(dtype: DType, terms: usize) -> f64 {
    match dtype {
        DType::BF16 => 2.0_f64.powi(-8),
        _ => 2.0_f64.powi(-23) * (6.0 + (terms as f64).log2()),
    }
}

#[track_caller]
fn assert_close<const D: usize>(
    fast: Tensor<Flex, D>,
    exact: Tensor<F64, D>,
    terms: usize,
    what: &str,
) {
    let dtype = fast.dtype();
    let (error, tolerance) = (error(fast, exact), tolerance(dtype, terms));
    assert!(
        error <= tolerance,
        "{what} in {dtype:?}: {error:e} > {tolerance:e}"
    );
}

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

#[test]
fn linear_layers_of_few_and_of_many_tokens() {
    for dtype in DTYPES {
        // Matrix-vector, and matrix-matrix with odd rests; 6000 rows of 1500 are two blocks of bf16.
        let shapes = [
            (1, 67, 45),
            (3, 130, 33),
            (9, 65, 70),
            (70, 1500, 700),
            (5, 1500, 6000),
        ];
        for (tokens, d_in, d_out) in shapes {
            let (input, exact_input) = pair([tokens, d_in], dtype);
            let (weight, exact_weight) = pair([d_out, d_in], dtype);
            let (bias, exact_bias) = pair([d_out], dtype);
            for with_bias in [false, true] {
                let fast = Flex::frozen_linear(
                    input.clone(),
                    weight.clone(),
                    with_bias.then(|| bias.clone()),
                );
                let exact = composed::linear(
                    exact_input.clone(),
                    exact_weight.clone(),
                    with_bias.then(|| exact_bias.clone()),
                );
                assert_close(fast, exact, d_in, "a linear layer");
            }
            let (above, exact_above) = pair([tokens, d_out], dtype);
            assert_close(
                Flex::frozen_linear_backward(above, weight),
                composed::linear_backward(exact_above, exact_weight),
                d_out,
                "its gradient",
            );
        }
    }
}

#[test]
fn norms() {
    for dtype in DTYPES {
        // More rows than a task has.
        let (hidden, exact_hidden) = pair([600, 67], dtype);
        let (weight, exact_weight) = pair([67], dtype);
        let (above, exact_above) = pair([600, 67], dtype);
        let fast = Flex::rms_norm(hidden.clone(), weight.clone(), 1e-6);
        let exact = composed::rms_norm(exact_hidden.clone(), exact_weight.clone(), 1e-6);
        // Rounded twice: before the weight and behind it.
        let (error, tolerance) = (error(fast, exact), 2.0 * tolerance(dtype, 67));
        assert!(
            error <= tolerance,
            "RMSNorm in {dtype:?}: {error:e} > {tolerance:e}"
        );
        assert_close(
            Flex::rms_norm_backward(hidden, weight, 1e-6, above),
            composed::rms_norm_backward(exact_hidden, exact_weight, 1e-6, exact_above),
            67,
            "its gradient",
        );
    }
}

#[test]
fn swiglu_and_its_gradients_leave_shared_inputs_alone() {
    for dtype in DTYPES {
        let (gate, exact_gate) = pair([130, 257], dtype);
        let (up, exact_up) = pair([130, 257], dtype);
        let (above, exact_above) = pair([130, 257], dtype);
        assert_close(
            Flex::swiglu(gate.clone(), up.clone()),
            composed::swiglu(exact_gate.clone(), exact_up.clone()),
            1,
            "SwiGLU",
        );
        let before = (gate.to_data(), above.to_data());
        let fast = Flex::swiglu_backward(gate.clone(), up, above.clone());
        let exact = composed::swiglu_backward(exact_gate, exact_up, exact_above);
        for (fast, exact) in fast.into_iter().zip(exact) {
            assert_close(fast, exact, 1, "its gradient");
        }
        assert_eq!(before, (gate.into_data(), above.into_data()));
    }
}

#[test]
fn rotations_of_states_in_either_order() {
    for dtype in DTYPES {
        let (states, exact_states) = pair([2, 5, 3, 8], dtype);
        for rows in [1, 2] {
            let (cos, exact_cos) = pair([rows, 1, 5, 4], dtype);
            let (sin, exact_sin) = pair([rows, 1, 5, 4], dtype);
            let (view, exact_view) = (
                states.clone().swap_dims(1, 2),
                exact_states.clone().swap_dims(1, 2),
            );
            let exact = composed::rotary(exact_view, exact_cos, exact_sin);
            // As the projection leaves them, and as attention's gradient does.
            let dense = Tensor::from_data(view.clone().into_data(), (&Default::default(), dtype));
            for states in [view, dense] {
                assert_close(
                    Flex::rotary(states, cos.clone(), sin.clone()),
                    exact.clone(),
                    2,
                    "a rotation",
                );
            }
        }
    }
}

/// Five cells of a prefix, then two rows of `seq`, the second with padding on the left.
fn visibility(seq: usize) -> Visibility {
    let (prefix, len) = (5, seq as i32);
    let queries = (0..2).flat_map(|_| prefix..prefix + len).collect();
    let keys = (0..2).flat_map(|row| {
        (0..prefix + len).map(
            move |key| match row == 1 && (prefix..prefix + 3).contains(&key) {
                true => NO_TOKEN,
                false => key,
            },
        )
    });
    Visibility::new(2, queries, keys.collect())
}

#[test]
fn attention_with_prefix_padding_and_grouped_heads() {
    for dtype in DTYPES {
        // One query, as in generation; several blocks and a rest; heads with a key each.
        for (seq, kv_heads) in [(1, 2), (3, 1), (150, 2), (70, 6)] {
            let kv_len = seq + 5;
            let (query, exact_query) = pair([2, 6, seq, 16], dtype);
            let (key, exact_key) = pair([2, kv_heads, kv_len, 16], dtype);
            let (value, exact_value) = pair([2, kv_heads, kv_len, 16], dtype);
            let (above, exact_above) = pair([2, 6, seq, 16], dtype);
            let fast_mask = Flex::score_mask(visibility(seq), dtype, &Default::default());
            assert!(fast_mask.places().is_some(), "the fast form is taken");
            let exact_mask: ScoreMask<F64> =
                F64::score_mask(visibility(seq), DType::F64, &Default::default());
            assert_close(
                Flex::grouped_attention(query.clone(), key.clone(), value.clone(), &fast_mask),
                composed::attention(
                    exact_query.clone(),
                    exact_key.clone(),
                    exact_value.clone(),
                    &exact_mask,
                ),
                kv_len,
                "attention",
            );
            let fast = Flex::grouped_attention_backward(query, key, value, &fast_mask, above);
            let exact = composed::attention_backward(
                exact_query,
                exact_key,
                exact_value,
                &exact_mask,
                exact_above,
            );
            for (fast, exact) in fast.into_iter().zip(exact) {
                assert_close(fast, exact, kv_len * seq, "its gradient");
            }
        }
    }
}

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

#[test]
fn cross_entropy_of_several_blocks() {
    // Of 2^12 rows of the head, and 2^10 tokens.
    for (dtype, tokens, vocab) in [
        (DType::F32, 340, 50_001),
        (DType::F32, 4100, 1500),
        (DType::F32, 3, 11),
        (DType::BF16, 40, 3001),
    ] {
        // Logits of a few units: an error of theirs is a relative error of the probabilities.
        let (hidden, exact_hidden) = pair([tokens, 24], dtype);
        let (hidden, exact_hidden) = (hidden * 0.125, exact_hidden * 0.125);
        let (weight, exact_weight) = pair([vocab, 24], dtype);
        let ids: Vec<i64> = (0..tokens).map(|i| (i * 7919 % vocab) as i64).collect();
        let ids = TensorData::new(ids, [tokens]);
        let targets = Tensor::<Flex, 1, Int>::from_data(ids.clone(), &Default::default());
        let exact_targets = Tensor::<F64, 1, Int>::from_data(ids, &Default::default());
        let alone = Flex::linear_cross_entropy(hidden.clone(), weight.clone(), targets.clone());
        let (losses, gradients) = Flex::linear_cross_entropy_gradient(hidden, weight, targets);
        assert_eq!(alone.to_data(), losses.to_data());
        let (exact_losses, exact_gradients) =
            composed::cross_entropy_gradient(exact_hidden, exact_weight, exact_targets);
        assert_close(losses, exact_losses, vocab, "cross-entropy");
        assert_close(gradients, exact_gradients, vocab, "its gradient");
    }
}

/// Where the target is all but certain, what is left of the gradient is as exact as elsewhere: nothing is
/// subtracted from one.
#[test]
fn the_gradient_of_a_certain_token_is_exact() {
    let (tokens, d_model, vocab) = (4, 16, 300);
    let (weight, exact_weight) = pair([vocab, d_model], DType::F32);
    let ids = [0_i64, 7, 150, 299];
    let ids = TensorData::new(ids.to_vec(), [tokens]);
    let targets = Tensor::<Flex, 1, Int>::from_data(ids.clone(), &Default::default());
    let exact_targets = Tensor::<F64, 1, Int>::from_data(ids, &Default::default());
    let hidden = weight.clone().select(0, targets.clone());
    let exact_hidden = exact_weight.clone().select(0, exact_targets.clone());
    let (_, gradients) = Flex::linear_cross_entropy_gradient(hidden, weight, targets);
    let (losses, exact) =
        composed::cross_entropy_gradient(exact_hidden, exact_weight, exact_targets);
    let losses: Vec<f64> = losses.into_data().iter().collect();
    // The reference does subtract from one: below this its own error would show.
    assert!(losses[0] < 1e-4 && losses[0] > 1e-8, "{losses:?}");
    for token in 0..tokens {
        // A logit of some tens has an error of some units, and so has its exponential.
        let (ours, exact) = (
            gradients.clone().slice(token..=token),
            exact.clone().slice(token..=token),
        );
        let error = error(ours, exact);
        assert!(
            error < 64.0 * f64::from(f32::EPSILON),
            "token {token}: {error} {losses:?}"
        );
    }
}

/// No thread that computes can come to it while it waits for its share of the first one.
#[test]
fn a_second_step_runs_on_the_thread_that_asks_for_it() {
    let computes = || rayon::current_thread_index().is_some();
    let (first, second) = Flex::run_step(|| {
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| Flex::run_step(computes));
            second.join().expect("a step that ends")
        });
        (computes(), second)
    });
    assert!(first && !second);
}
