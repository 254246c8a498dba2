//! Each operation against the plainest form of itself, in f64 with autodiff.

use burn::{
    backend::Autodiff,
    tensor::{DType, Distribution, Int, Tensor, TensorData, Tolerance, activation::log_softmax, s},
};
use burn_ndarray::{NdArray, NdArrayDevice};

use crate::{FrozenWeight, Kernels, Ops, Visibility};

type B = Autodiff<NdArray<f64>>;

/// Named, for ndarray's device remembers the type of the first backend that used it, which may be f32.
const F64: (&NdArrayDevice, DType) = (&NdArrayDevice::Cpu, DType::F64);

fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), F64).require_grad()
}

fn frozen(weight: &Tensor<B, 2>) -> FrozenWeight<B> {
    B::freeze(weight.clone())
}

/// f64 keeps 15 digits; a dozen operations lose two or three of them.
fn assert_close(found: TensorData, expected: TensorData) {
    found.assert_approx_eq::<f64>(&expected, Tolerance::absolute(1e-11));
}

#[test]
fn cross_entropy_and_its_gradient_equal_log_softmax() {
    let hidden = random([7, 5]);
    let weight = random([11, 5]).detach();
    let targets = Tensor::<B, 1, Int>::from_ints([0, 10, 3, 3, 7, 1, 9], &Default::default());
    // A different weight for each token: each one's gradient must be scaled by its own.
    let scale = random([7]).detach();

    let found = B::linear_cross_entropy(hidden.clone(), &frozen(&weight), targets.clone());
    let found_grads = (found.clone() * scale.clone()).sum().backward();

    let logits = hidden.clone().matmul(weight.transpose());
    let expected = log_softmax(logits, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .squeeze_dim::<1>(1)
        .neg();
    let expected_grads = (expected.clone() * scale).sum().backward();

    assert_close(found.into_data(), expected.into_data());
    assert_close(
        hidden.grad(&found_grads).expect("a gradient").into_data(),
        hidden
            .grad(&expected_grads)
            .expect("a gradient")
            .into_data(),
    );
}

#[test]
fn swiglu_and_its_gradients_equal_the_formula() {
    let (gate, up) = (random([4, 9]), random([4, 9]));
    let scale = random([4, 9]).detach();
    let found = B::swiglu(gate.clone(), up.clone());
    let found_grads = (found.clone() * scale.clone()).sum().backward();
    // silu(x) = x / 2 · (1 + tanh(x / 2)), which goes through no exponential of ours.
    let half = gate.clone().div_scalar(2.0);
    let expected = half.clone() * (half.tanh() + 1.0) * up.clone();
    let expected_grads = (expected.clone() * scale).sum().backward();
    assert_close(found.into_data(), expected.into_data());
    for input in [gate, up] {
        assert_close(
            input.grad(&found_grads).expect("a gradient").into_data(),
            input.grad(&expected_grads).expect("a gradient").into_data(),
        );
    }
}

#[test]
fn swiglu_of_extreme_gates_is_finite_with_finite_gradients() {
    fn check<I: Kernels>() {
        let device = Default::default();
        let gate = Tensor::<Autodiff<I>, 2>::from_floats([[-1e4, -100.0, 100.0, 1e4]], &device)
            .require_grad();
        let up = Tensor::<Autodiff<I>, 2>::ones([1, 4], &device);
        let output = <Autodiff<I> as Ops>::swiglu(gate.clone(), up);
        let grads = output.sum().backward();
        let slope = gate.grad(&grads).expect("a gradient").into_data();
        let slope: Vec<f64> = slope.iter::<f64>().collect();
        let off = slope
            .iter()
            .zip([0.0, 0.0, 1.0, 1.0])
            .map(|(a, b)| (a - b).abs());
        // The slope at −100 is −3.7e-42, if the processor keeps numbers that small.
        assert!(off.fold(0.0, f64::max) < 1e-40, "{slope:?}");
    }
    check::<NdArray<f32>>();
    check::<burn_flex::Flex>();
}

#[test]
fn rms_norm_and_its_gradient_equal_the_formula() {
    let (hidden, weight) = (random([3, 6]), random([6]).detach());
    let scale = random([3, 6]).detach();
    let found = B::rms_norm(hidden.clone(), weight.clone(), 1e-3);
    let found_grads = (found.clone() * scale.clone()).sum().backward();
    let mean_square = hidden.clone().powf_scalar(2.0).mean_dim(1) + 1e-3;
    let expected = hidden.clone() * mean_square.powf_scalar(-0.5) * weight.unsqueeze();
    let expected_grads = (expected.clone() * scale).sum().backward();
    assert_close(found.into_data(), expected.into_data());
    assert_close(
        hidden.grad(&found_grads).expect("a gradient").into_data(),
        hidden
            .grad(&expected_grads)
            .expect("a gradient")
            .into_data(),
    );
}

#[test]
fn rms_norm_is_exact_to_f32_on_every_cpu_backend() {
    fn check<I: Ops>() {
        // Long enough for vector loops with a rest.
        let values: Vec<f32> = (0..67).map(|i| (i as f32 * 0.37).sin()).collect();
        let data = TensorData::new(values.clone(), [1, 67]);
        let hidden = Tensor::<I, 2>::from_data(data, &Default::default());
        let weight = Tensor::<I, 1>::ones([67], &Default::default());
        let found: Vec<f64> = I::rms_norm(hidden, weight, 1e-6)
            .into_data()
            .iter()
            .collect();
        let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let root = (square / 67.0 + 1e-6).sqrt();
        for (found, value) in found.iter().zip(&values) {
            // A sum of 67 terms, a root and a division in f32.
            assert!((found - f64::from(*value) / root).abs() < 1e-6);
        }
    }
    check::<NdArray<f32>>();
    check::<burn_flex::Flex>();
}

#[test]
fn grouped_attention_equals_repeating_each_key_for_its_group() {
    let (query, key, value) = (
        random([2, 6, 4, 3]),
        random([2, 2, 5, 3]),
        random([2, 2, 5, 3]),
    );
    let inputs = (query.clone(), key.clone(), value.clone());
    // A key that all see, and behind it one for each query.
    let visibility = Visibility::new(1, vec![1, 2, 3, 4], vec![0, 1, 2, 3, 4]);
    let hidden = |query: usize, key: usize| if key > query + 1 { -1e9 } else { 0.0 };
    let scores = (0..20).map(|i| hidden(i / 5, i % 5)).collect();
    let added = TensorData::new(scores, [1, 1, 4, 5]);
    let added = Tensor::<B, 4>::from_data(added, F64);
    let mask = B::score_mask(visibility, DType::F64, &Default::default());
    let repeat = |states: &Tensor<B, 4>| {
        let head = |h: usize| states.clone().slice(s![.., h..h + 1, .., ..]);
        Tensor::cat(
            vec![head(0), head(0), head(0), head(1), head(1), head(1)],
            1,
        )
    };
    let found = B::grouped_attention(query.clone(), key.clone(), value.clone(), &mask);
    let scale = random([2, 6, 4, 3]).detach();
    // Before the second graph is built: a backward pass consumes all that hangs on the same leaves.
    let found_grads = (found.clone() * scale.clone()).sum().backward();
    // Not a division: the gradient of Burn's division by a number goes through f32.
    let scores = query.matmul(repeat(&key).swap_dims(2, 3));
    let scores = scores.mul_scalar(3.0_f64.powf(-0.5)) + added;
    let expected = log_softmax(scores, 3).exp().matmul(repeat(&value));
    let expected_grads = (expected.clone() * scale).sum().backward();
    assert_close(found.into_data(), expected.into_data());
    for input in [inputs.0, inputs.1, inputs.2] {
        assert_close(
            input.grad(&found_grads).expect("a gradient").into_data(),
            input.grad(&expected_grads).expect("a gradient").into_data(),
        );
    }
}

#[test]
fn a_linear_layer_and_its_gradients_equal_the_formula() {
    let (input, bias) = (random([4, 3]), random([5]));
    let weight = random([5, 3]).detach();
    let scale = random([4, 5]).detach();
    for with_bias in [false, true] {
        let added = with_bias.then(|| bias.clone());
        let found = B::frozen_linear(input.clone(), &frozen(&weight), added);
        let found_grads = (found.clone() * scale.clone()).sum().backward();
        let product = input.clone().matmul(weight.clone().transpose());
        let expected = match with_bias {
            true => product + bias.clone().unsqueeze(),
            false => product,
        };
        let expected_grads = (expected.clone() * scale.clone()).sum().backward();
        assert_close(found.into_data(), expected.into_data());
        assert_close(
            input.grad(&found_grads).expect("a gradient").into_data(),
            input.grad(&expected_grads).expect("a gradient").into_data(),
        );
        let [found, expected] = [found_grads, expected_grads].map(|grads| bias.grad(&grads));
        assert_eq!(found.is_some(), with_bias);
        if let (Some(found), Some(expected)) = (found, expected) {
            assert_close(found.into_data(), expected.into_data());
        }
    }
}

#[test]
fn a_gated_mlp_and_its_gradient_equal_the_formula() {
    let input = random([4, 3]);
    let [gate, up] = [(); 2].map(|()| random([7, 3]).detach());
    let (down, scale) = (random([3, 7]).detach(), random([4, 3]).detach());
    let found = B::gated_mlp(
        input.clone(),
        &[&gate, &up, &down].map(|weight| (frozen(weight), None)),
    );
    let found_grads = (found.clone() * scale.clone()).sum().backward();
    let gate = input.clone().matmul(gate.transpose());
    let up = input.clone().matmul(up.transpose());
    let half = gate.clone().div_scalar(2.0);
    let silu = half.clone() * (half.tanh() + 1.0);
    let expected = (silu * up).matmul(down.transpose());
    let expected_grads = (expected.clone() * scale).sum().backward();
    assert_close(found.into_data(), expected.into_data());
    assert_close(
        input.grad(&found_grads).expect("a gradient").into_data(),
        input.grad(&expected_grads).expect("a gradient").into_data(),
    );
}

#[test]
fn the_gradient_of_a_rotation_turns_back() {
    let states = random([2, 3, 4, 6]);
    let angles = random([2, 1, 4, 3]).detach();
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let scale = random([2, 3, 4, 6]).detach();
    let output = B::rotary(states.clone(), cos.clone(), sin.clone());
    let grads = (output * scale.clone()).sum().backward();
    let expected = B::rotary(scale, cos, -sin);
    let found = states.grad(&grads).expect("a gradient");
    assert_close(found.into_data(), expected.into_data());
}

#[test]
fn rotary_turns_dimension_i_with_dimension_i_plus_half() {
    let device = Default::default();
    let states = Tensor::<B, 4>::from_floats([[[[1.0, 2.0, 3.0, 4.0]]]], &device);
    let angles = Tensor::<B, 4>::from_floats([[[[0.3, 1.1]]]], &device);
    let found = B::rotary(states, angles.clone().cos(), angles.sin());
    let turn = |a: f64, b: f64, angle: f64| {
        let (sin, cos) = angle.sin_cos();
        (a * cos - b * sin, b * cos + a * sin)
    };
    let ((a, c), (b, d)) = (turn(1.0, 3.0, 0.3), turn(2.0, 4.0, 1.1));
    // The angles were given as f32 literals, hence the wider tolerance.
    found.into_data().assert_approx_eq::<f64>(
        &TensorData::from([[[[a, b, c, d]]]]),
        Tolerance::absolute(1e-6),
    );
}

#[test]
fn a_chunked_loss_equals_an_unchunked_one() {
    // A vocabulary of 2^24 entries leaves two tokens a chunk; on flex it has 2^12 blocks.
    fn check<I: Ops>() {
        let device = Default::default();
        let weight = Tensor::<I, 2>::random([1 << 24, 1], Distribution::Normal(0.0, 1.0), &device);
        let hidden = Tensor::<I, 2>::random([3, 1], Distribution::Normal(0.0, 1.0), &device);
        let targets = Tensor::<I, 1, Int>::from_ints([5, 1 << 23, 77], &device);
        let weight = I::freeze(weight);
        let together = I::linear_cross_entropy(hidden.clone(), &weight, targets.clone());
        for row in 0..3 {
            let alone = I::linear_cross_entropy(
                hidden.clone().slice(s![row..row + 1]),
                &weight,
                targets.clone().slice(s![row..row + 1]),
            );
            // The same sums in the same order.
            alone
                .into_data()
                .assert_eq(&together.clone().slice(s![row..row + 1]).into_data(), true);
        }
    }
    check::<NdArray<f32>>();
    check::<burn_flex::Flex>();
}
