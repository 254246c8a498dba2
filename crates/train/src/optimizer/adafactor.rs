//! Adafactor (Shazeer and Stern 2018) with a given learning rate and no first moment, which is how
//! Lester et al. 2021 trained prompts.
//!
//! It is `transformers.optimization.Adafactor` with `scale_parameter`, `relative_step` and
//! `warmup_init` switched off (the tests hold it to that one's numbers). A matrix `[.., rows,
//! columns]` keeps the running means of its squared gradients by row and by column only, and takes
//! their product, divided by the mean of the rows, for the second moment of each number; a vector
//! keeps its second moment whole. What memory this saves is little for a prompt, and much for a
//! reparameterising MLP.

use burn::optim::{LearningRate, SimpleOptimizer};
use burn::record::Record;
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};

// Shazeer and Stern 2018, algorithm 6.
/// ε₁: added to each squared gradient, so that no root is 0.
const EPSILON: f64 = 1e-30;
/// d: the root mean square that an update may have before the learning rate.
const CLIP_THRESHOLD: f64 = 1.0;
/// The second moment of step `t` keeps `1 − t^DECAY` of what it was.
const DECAY: f64 = -0.8;

/// Adafactor's update of one tensor.
///
/// In f32 or f64: 1e-30 is 0 in f16.
#[derive(Debug, Clone)]
pub struct Adafactor {
    weight_decay: f64,
}

impl Adafactor {
    /// With a decay of `lr · weight_decay` of the parameter at each step.
    pub(super) fn new(weight_decay: f64) -> Self {
        Self { weight_decay }
    }
}

/// What [`Adafactor`] keeps for one tensor.
#[derive(Record, Clone, Debug)]
pub struct AdafactorState<B: Backend, const D: usize> {
    steps: usize,
    second_moment: SecondMoment<B, D>,
}

/// The running mean of squared gradients.
#[derive(Record, Clone, Debug)]
enum SecondMoment<B: Backend, const D: usize> {
    /// Of a tensor with two or more dimensions.
    Factored(Factors<B, D>),
    /// Of a vector, in its shape.
    Full(Tensor<B, D>),
}

/// Means over the last dimension, `[.., rows, 1]`, and over the one before it, `[.., 1, columns]`.
#[derive(Record, Clone, Debug)]
struct Factors<B: Backend, const D: usize> {
    rows: Tensor<B, D>,
    columns: Tensor<B, D>,
}

impl<B: Backend> SimpleOptimizer<B> for Adafactor {
    type State<const D: usize> = AdafactorState<B, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<AdafactorState<B, D>>,
    ) -> (Tensor<B, D>, Option<AdafactorState<B, D>>) {
        let fresh = SecondMoment::of(grad.clone().square() + EPSILON);
        let (steps, second_moment) = match state {
            // At step 1 nothing of an older one is kept.
            None => (1, fresh),
            Some(state) => {
                let steps = state.steps + 1;
                let share = (steps as f64).powf(DECAY);
                (steps, state.second_moment.mix(fresh, share))
            }
        };
        let update = grad / second_moment.root();
        let rms = update.clone().square().mean().sqrt();
        let excess = (rms / CLIP_THRESHOLD).clamp_min(1.0).reshape([1; D]);
        let decay = tensor.clone() * (lr * self.weight_decay);
        let state = AdafactorState {
            steps,
            second_moment,
        };
        (tensor - decay - update / excess * lr, Some(state))
    }

    fn to_device<const D: usize>(
        mut state: AdafactorState<B, D>,
        device: &Device<B>,
    ) -> AdafactorState<B, D> {
        state.second_moment = match state.second_moment {
            SecondMoment::Factored(Factors { rows, columns }) => SecondMoment::Factored(Factors {
                rows: rows.to_device(device),
                columns: columns.to_device(device),
            }),
            SecondMoment::Full(moment) => SecondMoment::Full(moment.to_device(device)),
        };
        state
    }
}

impl<B: Backend, const D: usize> SecondMoment<B, D> {
    /// Of squared gradients.
    fn of(squares: Tensor<B, D>) -> Self {
        if D < 2 {
            return Self::Full(squares);
        }
        Self::Factored(Factors {
            rows: squares.clone().mean_dim(D - 1),
            columns: squares.mean_dim(D - 2),
        })
    }

    /// Puts `fresh` in the place of a share of it.
    fn mix(self, fresh: Self, share: f64) -> Self {
        let mix = |old: Tensor<B, D>, fresh: Tensor<B, D>| old * (1.0 - share) + fresh * share;
        match (self, fresh) {
            (Self::Factored(old), Self::Factored(fresh)) => Self::Factored(Factors {
                rows: mix(old.rows, fresh.rows),
                columns: mix(old.columns, fresh.columns),
            }),
            (Self::Full(old), Self::Full(fresh)) => Self::Full(mix(old, fresh)),
            _ => unreachable!("which of the two it is depends on the rank alone"),
        }
    }

    /// Its square root, in a shape that broadcasts to the tensor's.
    fn root(&self) -> Tensor<B, D> {
        match self {
            // One root for each factor: the product itself can be too small for f32.
            Self::Factored(Factors { rows, columns }) => {
                let mean = rows.clone().mean_dim(D - 2); // [.., 1, 1]
                (rows.clone() / mean).sqrt() * columns.clone().sqrt()
            }
            Self::Full(moment) => moment.clone().sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
    use burn::tensor::{Shape, TensorData};
    use burn_flex::Flex;
    use serde::Deserialize;

    /// What `tests/fixtures/make_adafactor.py` wrote.
    #[derive(Deserialize)]
    struct Case {
        lr: f64,
        weight_decay: f64,
        start: Values,
        steps: Vec<Step>,
    }

    #[derive(Deserialize)]
    struct Step {
        gradients: Values,
        values: Values,
    }

    #[derive(Deserialize)]
    struct Values {
        matrix: [[f32; 8]; 5],
        vector: [f32; 8],
        cube: [[[f32; 4]; 3]; 2],
    }

    fn case() -> Case {
        let text = include_str!("../../../../tests/fixtures/optimizer/adafactor.json");
        serde_json::from_str(text).unwrap()
    }

    type State<const D: usize> = AdafactorState<Flex, D>;

    /// One parameter's way through the steps of a case.
    fn values<const D: usize>(
        case: &Case,
        pick: impl Fn(&Values) -> TensorData,
        between: impl Fn(State<D>) -> State<D>,
    ) -> Vec<Tensor<Flex, D>> {
        let device = Default::default();
        let tensor = |values| Tensor::from_data(pick(values), &device);
        let adafactor = Adafactor::new(case.weight_decay);
        let (mut value, mut state) = (tensor(&case.start), None);
        let steps = case.steps.iter().map(|step| {
            let gradient = tensor(&step.gradients);
            let before = state.take().map(&between);
            (value, state) = adafactor.step(case.lr, value.clone(), gradient, before);
            value.clone()
        });
        steps.collect()
    }

    fn follows_transformers<const D: usize>(name: &str, pick: impl Fn(&Values) -> TensorData) {
        let case = case();
        let found = values::<D>(&case, &pick, |state| state);
        assert_eq!(found.len(), 20);
        for (index, (found, step)) in found.into_iter().zip(&case.steps).enumerate() {
            let expected = pick(&step.values);
            for (found, expected) in found.into_data().iter::<f32>().zip(expected.iter::<f32>()) {
                // Values reach 4.3, where f32 has steps of 5e-7: ten of them for 20 updates. Without
                // the decay, or with 1e-29 in the place of 1e-30, it is 1.5e-5 and more.
                assert!(
                    (found - expected).abs() < 5e-6,
                    "{name}, step {}: {found} is not {expected}",
                    index + 1
                );
            }
        }
    }

    #[test]
    fn twenty_steps_of_a_matrix_follow_transformers() {
        follows_transformers::<2>("matrix", |values| values.matrix.into());
    }

    #[test]
    fn twenty_steps_of_a_vector_follow_transformers() {
        follows_transformers::<1>("vector", |values| values.vector.into());
    }

    #[test]
    fn twenty_steps_of_three_dimensions_follow_transformers() {
        follows_transformers::<3>("cube", |values| values.cube.into());
    }

    #[test]
    fn a_matrix_keeps_one_number_a_row_and_column() {
        let ones = Tensor::<Flex, 3>::ones([2, 5, 8], &Default::default());
        let SecondMoment::Factored(factors) = SecondMoment::of(ones) else {
            panic!("a tensor of three dimensions was not factored");
        };
        assert_eq!(factors.rows.shape(), Shape::new([2, 5, 1]));
        assert_eq!(factors.columns.shape(), Shape::new([2, 1, 8]));
    }

    #[test]
    fn a_state_that_went_through_a_checkpoint_gives_the_same_bits() {
        fn through_bytes<const D: usize>(state: State<D>) -> State<D> {
            let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
            let bytes = Recorder::<Flex>::record(&recorder, state, ()).unwrap();
            Recorder::<Flex>::load(&recorder, bytes, &Default::default()).unwrap()
        }
        let case = case();
        let pick = |values: &Values| values.matrix.into();
        let whole = values::<2>(&case, pick, |state| state);
        let resumed = values::<2>(&case, pick, through_bytes);
        for (whole, resumed) in whole.into_iter().zip(resumed) {
            assert_eq!(whole.into_data(), resumed.into_data());
        }
    }
}
