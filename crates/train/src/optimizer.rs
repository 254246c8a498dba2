//! The optimizers of a run behind one type, and clipping by the norm over all gradients.
//!
//! Burn's AdamW is PyTorch's: `p ← p·(1 − lr·λ) − lr·m̂ / (√v̂ + ε)`, decay first and decoupled, ε
//! outside the root (burn-optim `adamw.rs`; checked below against PyTorch's update written out in
//! f64). Its default ε of 1e-5 and decay of 1e-4 are not PyTorch's, so both are always given.
//! Adafactor is our own: Burn 0.21 has none.
//!
//! Which optimizer a run uses is known only when it starts, but a `Learner` has its type; hence an
//! enum, and an enum for its state.

mod adafactor;
mod clip;

pub use self::clip::clip_grad_norm;
pub(crate) use self::clip::scale_gradients;

use std::fmt;

use burn::module::AutodiffModule;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{
    AdamW, AdamWConfig, AdamWState, GradientsParams, LearningRate, MultiGradientsParams, Optimizer,
    SimpleOptimizer,
};
use burn::record::Record;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor};
use burn_peft::Head;

use self::adafactor::{Adafactor, AdafactorState};
use crate::{OptimizerKind, TrainConfig};

/// The optimizer that a run uses: with one learning rate for the adapter, and one for the head.
#[derive(Clone)]
pub struct RunOptimizer<M: AutodiffModule<B>, B: AutodiffBackend> {
    optimizer: OptimizerAdaptor<AnyOptimizer, M, B>,
    /// The rate of the head, as a multiple of the adapter's.
    head_rate: f64,
}

/// The optimizer that `[train]` describes.
pub fn init_optimizer<B: AutodiffBackend, M: AutodiffModule<B>>(
    config: &TrainConfig,
) -> RunOptimizer<M, B> {
    let rates = config.head_learning_rate.zip(config.learning_rate);
    RunOptimizer {
        optimizer: AnyOptimizer::new(config).into(),
        head_rate: rates.map_or(1.0, |(head, adapter)| head / adapter),
    }
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> Optimizer<M, B> for RunOptimizer<M, B> {
    type Record = <OptimizerAdaptor<AnyOptimizer, M, B> as Optimizer<M, B>>::Record;

    fn step(&mut self, rate: LearningRate, module: M, mut grads: GradientsParams) -> M {
        // Parameters without a gradient stay as they are, so each of the two updates has its own ones.
        let mut head = GradientsParams::new();
        let [weight, bias] = Head::<B>::param_ids();
        if let Some(grad) = grads.remove::<B::InnerBackend, 2>(weight) {
            head.register(weight, grad);
        }
        if let Some(grad) = grads.remove::<B::InnerBackend, 1>(bias) {
            head.register(bias, grad);
        }
        let module = self.optimizer.step(rate, module, grads);
        match head.is_empty() {
            true => module,
            false => self.optimizer.step(self.head_rate * rate, module, head),
        }
    }

    fn step_multi(&mut self, rate: LearningRate, module: M, grads: MultiGradientsParams) -> M {
        // For several devices, which a run does not use.
        self.optimizer.step_multi(rate, module, grads)
    }

    fn to_record(&self) -> Self::Record {
        self.optimizer.to_record()
    }

    fn load_record(self, record: Self::Record) -> Self {
        Self {
            optimizer: self.optimizer.load_record(record),
            ..self
        }
    }
}

/// The update of one tensor by whichever optimizer `train.optim` names.
#[derive(Clone)]
pub enum AnyOptimizer {
    /// `"adamw"`.
    AdamW(AdamW),
    /// `"adafactor"`.
    Adafactor(Adafactor),
}

impl AnyOptimizer {
    fn new(config: &TrainConfig) -> Self {
        match config.optim {
            OptimizerKind::AdamW => Self::AdamW(
                AdamWConfig::new()
                    .with_beta_1(config.adam_beta1 as f32)
                    .with_beta_2(config.adam_beta2 as f32)
                    .with_epsilon(config.adam_epsilon as f32)
                    .with_weight_decay(config.weight_decay as f32)
                    .with_cautious_weight_decay(false)
                    .with_amsgrad(false)
                    .build(),
            ),
            OptimizerKind::Adafactor => Self::Adafactor(Adafactor::new(config.weight_decay)),
        }
    }
}

// By hand: Burn's adaptor and its AdamW have no `Debug`.
impl<M: AutodiffModule<B>, B: AutodiffBackend> fmt::Debug for RunOptimizer<M, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RunOptimizer")
            .field("head_rate", &self.head_rate)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AnyOptimizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdamW(_) => formatter.write_str("AdamW"),
            Self::Adafactor(adafactor) => adafactor.fmt(formatter),
        }
    }
}

/// What [`AnyOptimizer`] keeps for one tensor between two steps.
#[derive(Record, Clone)]
pub enum AnyState<B: Backend, const D: usize> {
    /// Of [`AnyOptimizer::AdamW`].
    AdamW(AdamWState<B, D>),
    /// Of [`AnyOptimizer::Adafactor`].
    Adafactor(AdafactorState<B, D>),
}

impl<B: Backend, const D: usize> fmt::Debug for AnyState<B, D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AdamW(_) => "AdamW",
            Self::Adafactor(_) => "Adafactor",
        })
    }
}

impl<B: Backend> SimpleOptimizer<B> for AnyOptimizer {
    type State<const D: usize> = AnyState<B, D>;

    /// # Panics
    /// Where the state is another optimizer's. [`Checkpoint`](crate::Checkpoint) refuses to resume then.
    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<AnyState<B, D>>,
    ) -> (Tensor<B, D>, Option<AnyState<B, D>>) {
        match self {
            Self::AdamW(adamw) => {
                let state = state.map(|state| match state {
                    AnyState::AdamW(state) => state,
                    AnyState::Adafactor(_) => panic!("Adafactor's state was given to AdamW"),
                });
                let (tensor, state) = adamw.step(lr, tensor, grad, state);
                (tensor, state.map(AnyState::AdamW))
            }
            Self::Adafactor(adafactor) => {
                let state = state.map(|state| match state {
                    AnyState::Adafactor(state) => state,
                    AnyState::AdamW(_) => panic!("AdamW's state was given to Adafactor"),
                });
                let (tensor, state) = adafactor.step(lr, tensor, grad, state);
                (tensor, state.map(AnyState::Adafactor))
            }
        }
    }

    fn to_device<const D: usize>(state: AnyState<B, D>, device: &Device<B>) -> AnyState<B, D> {
        match state {
            AnyState::AdamW(state) => AnyState::AdamW(AdamW::to_device(state, device)),
            AnyState::Adafactor(state) => AnyState::Adafactor(Adafactor::to_device(state, device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::Autodiff,
        module::{Module, Param},
        tensor::{TensorData, Tolerance},
    };
    use burn_flex::Flex;
    use burn_peft::HeadKind;

    use super::*;

    /// torch.optim.AdamW's single-tensor update, written out.
    fn adamw_reference(start: f64, grads: &[f64], lr: f64, decay: f64) -> f64 {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let (mut value, mut m, mut v) = (start, 0.0, 0.0);
        for (index, grad) in grads.iter().enumerate() {
            let step = index as i32 + 1;
            value *= 1.0 - lr * decay;
            m = beta1 * m + (1.0 - beta1) * grad;
            v = beta2 * v + (1.0 - beta2) * grad * grad;
            let denominator = (v / (1.0 - f64::powi(beta2, step))).sqrt() + epsilon;
            value -= lr / (1.0 - f64::powi(beta1, step)) * m / denominator;
        }
        value
    }

    /// An adapter of one tensor, and a head.
    #[derive(Module, Debug)]
    struct Pair<B: Backend> {
        adapter: Param<Tensor<B, 1>>,
        head: Head<B>,
    }

    #[test]
    fn a_head_moves_at_its_own_rate() {
        type B = Autodiff<Flex>;
        let device = Default::default();
        let weight = TensorData::from([[0.5_f32, -0.5]]);
        let bias = Some(TensorData::from([0.0_f32]));
        let pair = Pair::<B> {
            adapter: Param::from_tensor(Tensor::from_floats([1.0, 2.0], &device)),
            head: Head::from_data(HeadKind::Token, weight, bias, &device),
        };
        let mut optimizer = init_optimizer::<B, Pair<B>>(&TrainConfig {
            learning_rate: Some(0.1),
            head_learning_rate: Some(0.01),
            ..TrainConfig::default()
        });
        // At half of the schedule.
        let rate = 0.05;
        let outputs = pair.head.forward(pair.adapter.val().unsqueeze());
        let gradients = GradientsParams::from_grads(outputs.sum().backward(), &pair);
        let moved = optimizer.step(rate, pair.clone(), gradients);
        // AdamW's first step is the rate against the sign of the gradient.
        let expected = [1.0 - 0.05, 2.0 + 0.05_f32];
        let tolerance = Tolerance::<f32>::absolute(1e-5);
        let found = moved.adapter.val().into_data();
        found.assert_approx_eq(&TensorData::from(expected), tolerance);
        let (weight, bias) = moved.head.values();
        weight.assert_approx_eq(
            &TensorData::from([[0.5 - 0.005, -0.5 - 0.005_f32]]),
            tolerance,
        );
        bias.unwrap()
            .assert_approx_eq(&TensorData::from([-0.005_f32]), tolerance);
    }

    #[test]
    fn adamw_is_that_of_pytorch() {
        let device = Default::default();
        for decay in [0.0, 0.1] {
            let optimizer = AnyOptimizer::new(&TrainConfig {
                weight_decay: decay,
                ..TrainConfig::default()
            });
            let start = [0.5, -0.25, 2.0, 1e-3_f32];
            let mut tensor = Tensor::<Flex, 1>::from_floats(start, &device);
            let mut state = None;
            // The last number's gradients are small enough for ε to matter.
            let history: Vec<[f32; 4]> = (0..50)
                .map(|step| {
                    [1.0, -0.5, (step as f32 * 0.7).sin(), 1e-8].map(|g| g / (1.0 + step as f32))
                })
                .collect();
            for grads in &history {
                let grads = Tensor::from_floats(*grads, &device);
                (tensor, state) = optimizer.step(1e-2, tensor, grads, state);
            }
            for (index, found) in tensor.into_data().iter::<f64>().enumerate() {
                let grads: Vec<f64> = history.iter().map(|g| f64::from(g[index])).collect();
                let expected = adamw_reference(f64::from(start[index]), &grads, 1e-2, decay);
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{index}: {found} is not {expected}"
                );
            }
        }
    }
}
