//! One optimizer step of a [`PeftModel`], as burn-train wants it.

use std::marker::PhantomData;

use burn::{
    module::{AutodiffModule, Module},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use burn_peft::{Adapter, PeftModel};
use burn_peft_data::Batch;
use burn_peft_ops::Ops;
use burn_train::{InferenceStep, TrainOutput, TrainStep};

use crate::{LmOutput, loss::token_losses, optimizer::scale_gradients};

/// A [`PeftModel`] with burn-train's traits. (Both it and they belong to other crates.)
#[derive(Module, Debug)]
pub struct Trainee<B: Backend, A: Module<B>> {
    model: PeftModel<B, A>,
    backend: PhantomData<B>,
}

impl<B: Backend, A: Module<B>> Trainee<B, A> {
    /// The model, to be trained.
    pub fn new(model: PeftModel<B, A>) -> Self {
        Self {
            model,
            backend: PhantomData,
        }
    }

    /// The model, trained.
    pub fn into_model(self) -> PeftModel<B, A> {
        self.model
    }
}

impl<B, A> TrainStep for Trainee<B, A>
where
    B: AutodiffBackend + Ops,
    A: Adapter<B> + AutodiffModule<B, InnerModule: Adapter<B::InnerBackend>>,
{
    /// The micro-batches of one optimizer step.
    type Input = Vec<Batch<B>>;
    type Output = LmOutput;

    /// The gradient of the mean over all supervised tokens of the step: what one batch of all its
    /// rows would give. The micro-batches' gradients are summed over tokens and divided once.
    fn step(&self, micro_batches: Vec<Batch<B>>) -> TrainOutput<LmOutput> {
        let mut accumulator = GradientsAccumulator::new();
        let mut label_tokens = 0;
        let mut tokens = 0;
        let mut total: Option<Tensor<B::InnerBackend, 1>> = None;
        for batch in &micro_batches {
            tokens += batch.tokens();
            let Some(losses) = token_losses(&self.model, batch) else {
                continue;
            };
            label_tokens += losses.rows.len();
            let sum = losses.nll.sum();
            let gradients = sum.backward();
            accumulator.accumulate(self, GradientsParams::from_grads(gradients, self));
            let sum = sum.inner();
            total = Some(match total {
                Some(total) => total + sum,
                None => sum,
            });
        }
        let total = total.map_or(f64::NAN, |total| total.into_data().iter::<f64>().sum());
        let loss = total / label_tokens as f64;
        TrainOutput {
            grads: scale_gradients(self, accumulator.grads(), 1.0 / label_tokens as f64),
            item: LmOutput::new(loss, label_tokens, tokens),
        }
    }
}

impl<B: Ops, A: Adapter<B>> InferenceStep for Trainee<B, A> {
    type Input = Batch<B>;
    type Output = LmOutput;

    fn step(&self, batch: Batch<B>) -> LmOutput {
        match token_losses(&self.model, &batch) {
            None => LmOutput::new(0.0, 0, batch.tokens()),
            Some(losses) => {
                let loss = losses.nll.mean().into_data().iter::<f64>().sum();
                LmOutput::new(loss, losses.rows.len(), batch.tokens())
            }
        }
    }
}
