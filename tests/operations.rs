//! The operations that a backend has of its own against the composed ones, on ndarray in f64.

use std::cell::RefCell;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_ndarray::NdArray;
use burn_peft_ops::{FrozenWeight, Kernels, NO_TOKEN, Visibility};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;

use crate::backends::TestBackend;

on_every_backend_with_its_own_operations!(
    linear_layers_of_few_and_of_many_tokens,
    norms,
    swiglu_and_its_gradients_leave_shared_inputs_alone,
    swiglu_between_linear_layers_of_few_and_of_many_tokens,
    rotations_of_states_in_either_order,
    attention_with_prefix_padding_and_grouped_heads,
    cross_entropy_of_several_blocks,
    the_gradient_of_a_certain_token_is_exact,
);

/// Overrides no operation.
type Exact = NdArray<f64>;

thread_local! {
    /// A test has a thread of its own, and so always the same numbers. (A backend's generator is shared.)
    static RANDOM: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// The types of a frozen base that the backend can compute in.
fn dtypes<B: TestBackend>() -> impl Iterator<Item = DType> {
    [DType::F32, DType::BF16]
        .into_iter()
        .filter(|dtype| B::supports_dtype(&Default::default(), *dtype))
}

/// The same numbers on both backends, N(0, 1), rounded to `dtype` before.
fn pair<B: TestBackend, const D: usize>(
    shape: [usize; D],
    dtype: DType,
) -> (Tensor<B, D>, Tensor<Exact, D>) {
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = RANDOM
        .with_borrow_mut(|random| (0..count).map(|_| random.sample(StandardNormal)).collect());
    let device = Default::default();
    let numbers = TensorData::new(numbers, shape).convert_dtype(dtype);
    let fast = Tensor::<B, D>::from_data(numbers, (&device, dtype));
    // Named, for ndarray's device remembers the type of the first backend that used it, which may be f32.
    let exact = (&Default::default(), DType::F64);
    let exact = Tensor::from_data(fast.to_data().convert::<f64>(), exact);
    (fast, exact)
}

/// Largest difference over the largest number.
fn error<B: TestBackend, const D: usize>(fast: Tensor<B, D>, exact: Tensor<Exact, D>) -> f64 {
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

/// A sum of `terms` numbers in f32 errs by about a unit (2⁻²³) for each doubling, or where it is taken one
/// after the other by the root of their number, as a random walk; add a few units for the functions on the
/// way. A rounding to bf16 errs by 2⁻⁸.
fn tolerance<B: TestBackend>(dtype: DType, terms: usize) -> f64 {
    let terms = terms as f64;
    let steps = match B::SEQUENTIAL_SUMS {
        true => terms.sqrt(),
        false => terms.log2(),
    };
    match dtype {
        DType::BF16 => B::ROUNDINGS * 2.0_f64.powi(-8),
        _ => 2.0_f64.powi(-23) * (6.0 + steps),
    }
}

#[track_caller]
fn assert_close<B: TestBackend, const D: usize>(
    fast: Tensor<B, D>,
    exact: Tensor<Exact, D>,
    terms: usize,
    what: &str,
) {
    let tolerance = tolerance::<B>(fast.dtype(), terms);
    assert_within(fast, exact, tolerance, what);
}

#[track_caller]
fn assert_within<B: TestBackend, const D: usize>(
    fast: Tensor<B, D>,
    exact: Tensor<Exact, D>,
    tolerance: f64,
    what: &str,
) {
    let (dtype, error) = (fast.dtype(), error(fast, exact));
    assert!(
        error <= tolerance,
        "{what} in {dtype:?}: {error:e} > {tolerance:e}"
    );
}

/// [`pair`] as weights.
fn frozen_pair<B: TestBackend>(
    shape: [usize; 2],
    dtype: DType,
) -> (FrozenWeight<B>, FrozenWeight<Exact>) {
    let (weight, exact) = pair::<B, _>(shape, dtype);
    (FrozenWeight::new(weight), FrozenWeight::new(exact))
}

/// The output of one layer.
fn linear<B: Kernels>(
    input: &Tensor<B, 2>,
    weight: &FrozenWeight<B>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    B::frozen_linears(input.clone(), &[(weight.clone(), bias)]).remove(0)
}

fn linear_layers_of_few_and_of_many_tokens<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        // Matrix-vector, and matrix-matrix with odd rests; 6000 rows of 1500 are two blocks of bf16.
        let shapes = [
            (1, 67, 45),
            (3, 130, 33),
            (9, 65, 70),
            (70, 1500, 700),
            (5, 1500, 6000),
        ];
        for (tokens, d_in, d_out) in shapes {
            let (input, exact_input) = pair::<B, _>([tokens, d_in], dtype);
            let (weight, exact_weight) = frozen_pair::<B>([d_out, d_in], dtype);
            let (bias, exact_bias) = pair::<B, _>([d_out], dtype);
            for with_bias in [false, true] {
                let fast = linear(&input, &weight, with_bias.then(|| bias.clone()));
                let exact_bias = with_bias.then(|| exact_bias.clone());
                let exact = linear(&exact_input, &exact_weight, exact_bias);
                assert_close(fast, exact, d_in, "a linear layer");
            }
            let (above, exact_above) = pair::<B, _>([tokens, d_out], dtype);
            assert_close(
                B::bias_gradient(above.clone()),
                Exact::bias_gradient(exact_above.clone()),
                tokens,
                "the gradient of its bias",
            );
            assert_close(
                B::frozen_linear_backward(above, &weight),
                Exact::frozen_linear_backward(exact_above, &exact_weight),
                d_out,
                "its gradient",
            );
        }
    }
}

fn norms<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        // More rows than a task has.
        let (hidden, exact_hidden) = pair::<B, _>([600, 67], dtype);
        let (weight, exact_weight) = pair::<B, _>([67], dtype);
        let (above, exact_above) = pair::<B, _>([600, 67], dtype);
        // Rounded twice: before the weight and behind it.
        assert_within(
            B::rms_norm(hidden.clone(), weight.clone(), 1e-6),
            Exact::rms_norm(exact_hidden.clone(), exact_weight.clone(), 1e-6),
            2.0 * tolerance::<B>(dtype, 67),
            "RMSNorm",
        );
        assert_close(
            B::rms_norm_backward(hidden, weight, 1e-6, above),
            Exact::rms_norm_backward(exact_hidden, exact_weight, 1e-6, exact_above),
            67,
            "its gradient",
        );
    }
}

fn swiglu_and_its_gradients_leave_shared_inputs_alone<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        let (gate, exact_gate) = pair::<B, _>([130, 257], dtype);
        let (up, exact_up) = pair::<B, _>([130, 257], dtype);
        let (above, exact_above) = pair::<B, _>([130, 257], dtype);
        assert_close(
            B::swiglu(gate.clone(), up.clone()),
            Exact::swiglu(exact_gate.clone(), exact_up.clone()),
            1,
            "SwiGLU",
        );
        let before = (gate.to_data(), above.to_data());
        let fast = B::swiglu_backward(gate.clone(), up, above.clone());
        let exact = Exact::swiglu_backward(exact_gate, exact_up, exact_above);
        for (fast, exact) in fast.into_iter().zip(exact) {
            assert_close(fast, exact, 1, "its gradient");
        }
        assert_eq!(before, (gate.into_data(), above.into_data()));
    }
}

fn swiglu_between_linear_layers_of_few_and_of_many_tokens<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        // To bf16 before the products and behind them.
        let roundings = if dtype == DType::BF16 { 2.0 } else { 1.0 };
        // As a left factor in one part and in several.
        for (tokens, d_model, d_ff) in [(3, 20, 70), (70, 33, 257), (45, 70, 2500)] {
            let (gate, exact_gate) = pair::<B, _>([tokens, d_ff], dtype);
            let (up, exact_up) = pair::<B, _>([tokens, d_ff], dtype);
            let (above, exact_above) = pair::<B, _>([tokens, d_ff], dtype);
            let (down, exact_down) = frozen_pair::<B>([d_model, d_ff], dtype);
            let weights = [(); 2].map(|()| frozen_pair::<B>([d_ff, d_model], dtype));
            let exact_weights = weights.each_ref().map(|(_, exact)| exact);
            assert_within(
                B::swiglu_linear(gate.clone(), up.clone(), &down),
                Exact::swiglu_linear(exact_gate.clone(), exact_up.clone(), &exact_down),
                roundings * tolerance::<B>(dtype, d_ff),
                "SwiGLU and the layer behind it",
            );
            let weights = weights.each_ref().map(|(weight, _)| weight);
            assert_within(
                B::swiglu_linears_backward(gate, up, weights, above),
                Exact::swiglu_linears_backward(exact_gate, exact_up, exact_weights, exact_above),
                roundings * tolerance::<B>(dtype, 2 * d_ff),
                "the gradient of the layers before it",
            );
        }
    }
}

fn rotations_of_states_in_either_order<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        let (states, exact_states) = pair::<B, _>([2, 5, 3, 8], dtype);
        for rows in [1, 2] {
            let (cos, exact_cos) = pair::<B, _>([rows, 1, 5, 4], dtype);
            let (sin, exact_sin) = pair::<B, _>([rows, 1, 5, 4], dtype);
            let (view, exact_view) = (
                states.clone().swap_dims(1, 2),
                exact_states.clone().swap_dims(1, 2),
            );
            let exact = Exact::rotary(exact_view, exact_cos, exact_sin);
            // As the projection leaves them, and as attention's gradient does.
            let dense = Tensor::from_data(view.clone().into_data(), (&Default::default(), dtype));
            for states in [view, dense] {
                assert_close(
                    B::rotary(states, cos.clone(), sin.clone()),
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

fn attention_with_prefix_padding_and_grouped_heads<B: TestBackend>() {
    for dtype in dtypes::<B>() {
        // One query, as in generation; several blocks and a rest; heads with a key each.
        for (seq, kv_heads) in [(1, 2), (3, 1), (150, 2), (70, 6)] {
            let kv_len = seq + 5;
            let (query, exact_query) = pair::<B, _>([2, 6, seq, 16], dtype);
            let (key, exact_key) = pair::<B, _>([2, kv_heads, kv_len, 16], dtype);
            let (value, exact_value) = pair::<B, _>([2, kv_heads, kv_len, 16], dtype);
            let (above, exact_above) = pair::<B, _>([2, 6, seq, 16], dtype);
            let fast_mask = B::score_mask(visibility(seq), dtype, &Default::default());
            let exact_mask = Exact::score_mask(visibility(seq), DType::F64, &Default::default());
            assert_close(
                B::grouped_attention(query.clone(), key.clone(), value.clone(), &fast_mask),
                Exact::grouped_attention(
                    exact_query.clone(),
                    exact_key.clone(),
                    exact_value.clone(),
                    &exact_mask,
                ),
                kv_len,
                "attention",
            );
            let fast = B::grouped_attention_backward(query, key, value, &fast_mask, above);
            let exact = Exact::grouped_attention_backward(
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

fn cross_entropy_of_several_blocks<B: TestBackend>() {
    // Of 2^12 rows of the head, and 2^10 tokens.
    for (dtype, tokens, vocab) in [
        (DType::F32, 340, 50_001),
        (DType::F32, 4100, 1500),
        (DType::F32, 3, 11),
        (DType::BF16, 40, 3001),
    ] {
        if dtypes::<B>().all(|known| known != dtype) {
            continue;
        }
        // Logits of a few units: an error of theirs is a relative error of the probabilities.
        let (hidden, exact_hidden) = pair::<B, _>([tokens, 24], dtype);
        let (hidden, exact_hidden) = (hidden * 0.125, exact_hidden * 0.125);
        let (weight, exact_weight) = frozen_pair::<B>([vocab, 24], dtype);
        let ids: Vec<i64> = (0..tokens).map(|i| (i * 7919 % vocab) as i64).collect();
        let ids = TensorData::new(ids, [tokens]);
        let targets = Tensor::<B, 1, Int>::from_data(ids.clone(), &Default::default());
        let exact_targets = Tensor::<Exact, 1, Int>::from_data(ids, &Default::default());
        let alone = B::linear_cross_entropy(hidden.clone(), &weight, targets.clone());
        let (losses, gradients) = B::linear_cross_entropy_gradient(hidden, &weight, targets);
        assert_eq!(alone.to_data(), losses.to_data());
        let (exact_losses, exact_gradients) =
            Exact::linear_cross_entropy_gradient(exact_hidden, &exact_weight, exact_targets);
        assert_close(losses, exact_losses, vocab, "cross-entropy");
        assert_close(gradients, exact_gradients, vocab, "its gradient");
    }
}

/// Where the target is all but certain, what is left of the gradient is as exact as elsewhere: nothing is
/// subtracted from one.
fn the_gradient_of_a_certain_token_is_exact<B: TestBackend>() {
    let (tokens, d_model, vocab) = (4, 16, 300);
    let (weight, exact_weight) = pair::<B, _>([vocab, d_model], DType::F32);
    let ids = [0_i64, 7, 150, 299];
    let ids = TensorData::new(ids.to_vec(), [tokens]);
    let targets = Tensor::<B, 1, Int>::from_data(ids.clone(), &Default::default());
    let exact_targets = Tensor::<Exact, 1, Int>::from_data(ids, &Default::default());
    let hidden = weight.clone().select(0, targets.clone());
    let exact_hidden = exact_weight.clone().select(0, exact_targets.clone());
    let weight = FrozenWeight::new(weight);
    let exact_weight = FrozenWeight::new(exact_weight);
    let (_, gradients) = B::linear_cross_entropy_gradient(hidden, &weight, targets);
    let (losses, exact) =
        Exact::linear_cross_entropy_gradient(exact_hidden, &exact_weight, exact_targets);
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
