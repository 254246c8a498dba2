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
use burn_peft::{Adapter, PeftModel, Predictors, Recorded};
use burn_peft_data::Batch;
use burn_peft_ops::{Kernels, Ops};
use burn_train::{InferenceStep, TrainOutput, TrainStep};

use crate::{
    LmOutput, Losses,
    loss::{inputs, losses, losses_of, supervised},
    optimizer::scale_gradients,
};

/// A [`PeftModel`] with burn-train's traits. (Both it and they belong to other crates.)
#[derive(Module, Debug)]
pub struct Trainee<B: Backend, A: Module<B>> {
    model: PeftModel<B, A>,
    #[module(skip)]
    recompute: bool,
    backend: PhantomData<B>,
}

impl<B: Backend, A: Module<B>> Trainee<B, A> {
    /// The model, to be trained.
    pub fn new(model: PeftModel<B, A>) -> Self {
        Self {
            model,
            recompute: false,
            backend: PhantomData,
        }
    }

    /// Whether a step keeps each layer's input only, and computes the layer again for its gradient
    /// (gradient checkpointing): less memory for more time, and the same gradients up to rounding.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// The model.
    pub fn model(&self) -> &PeftModel<B, A> {
        &self.model
    }

    /// The model, trained.
    pub fn into_model(self) -> PeftModel<B, A> {
        self.model
    }
}

impl<B, A> TrainStep for Trainee<B, A>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: Adapter<B> + AutodiffModule<B, InnerModule: Adapter<B::InnerBackend>>,
{
    /// The micro-batches of one optimizer step.
    type Input = Vec<Batch<B>>;
    type Output = LmOutput;

    /// The gradient of the mean over all supervised tokens of the step: what one batch of all its
    /// rows would give. The micro-batches' gradients are summed over tokens and divided once.
    fn step(&self, micro_batches: Vec<Batch<B>>) -> TrainOutput<LmOutput> {
        // Handles of the same tensors.
        let trainee = self.clone();
        let device = self.model.base().device();
        <B as Ops>::Plain::run_step(&device, move || trainee.optimizer_step(&micro_batches))
    }
}

impl<B, A> Trainee<B, A>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: Adapter<B> + AutodiffModule<B, InnerModule: Adapter<B::InnerBackend>>,
{
    fn optimizer_step(&self, micro_batches: &[Batch<B>]) -> TrainOutput<LmOutput> {
        let mut accumulator = GradientsAccumulator::new();
        let mut label_tokens = 0;
        let mut tokens = 0;
        let mut total: Option<Tensor<B::InnerBackend, 1>> = None;
        for batch in micro_batches {
            tokens += batch.tokens();
            let Some(outcome) = self.micro_step(batch) else {
                continue;
            };
            label_tokens += outcome.label_tokens;
            for gradients in outcome.gradients {
                let gradients = GradientsParams::from_grads(gradients, self);
                accumulator.accumulate(self, gradients);
            }
            let sum = outcome.loss;
            total = Some(match total {
                Some(total) => total + sum,
                None => sum,
            });
        }
        // Before the loss is read, for which the host waits.
        let grads = scale_gradients(self, accumulator.grads(), 1.0 / label_tokens as f64);
        let total = total.map_or(f64::NAN, |total| total.into_data().iter::<f64>().sum());
        let loss = total / label_tokens as f64;
        TrainOutput {
            grads,
            item: LmOutput::new(loss, label_tokens, tokens),
        }
    }
}

/// Loss and gradients of one micro-batch.
struct Outcome<B: AutodiffBackend> {
    /// The sum over supervised tokens, `[1]`.
    loss: Tensor<B::InnerBackend, 1>,
    label_tokens: usize,
    /// Gradients of `loss`, of some of the parameters each.
    gradients: Vec<B::Gradients>,
}

impl<B, A> Trainee<B, A>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: Adapter<B>,
{
    fn micro_step(&self, batch: &Batch<B>) -> Option<Outcome<B>> {
        let (losses, recorded) = match self.recompute {
            true => {
                let (losses, recorded) = self.recorded_losses(batch)?;
                (losses, Some(recorded))
            }
            false => (losses(&self.model, batch)?, None),
        };
        let sum = losses.nll.sum();
        let gradients = sum.backward();
        Some(Outcome {
            loss: sum.inner(),
            label_tokens: losses.rows.len(),
            gradients: match recorded {
                // A head is behind the pass that is computed again, all else before it.
                Some(recorded) => vec![recorded.backward(&gradients), gradients],
                None => vec![gradients],
            },
        })
    }

    /// The losses of a pass that keeps each layer's input only.
    fn recorded_losses(&self, batch: &Batch<B>) -> Option<(Losses<B>, Recorded<B>)> {
        let (prepared, head) = (self.model.prepare(inputs(batch)), self.model.head());
        let cells = supervised(head, batch);
        let (states, recorded) = match head {
            None => prepared.record_predictors(&cells)?,
            Some(_) if cells.is_empty() => return None,
            Some(_) => {
                let (hidden, recorded) = prepared.record_states(&cells);
                (Predictors { cells, hidden }, recorded)
            }
        };
        Some((losses_of(&prepared, head, states, batch)?, recorded))
    }
}

impl<B: Ops, A: Adapter<B>> InferenceStep for Trainee<B, A> {
    type Input = Batch<B>;
    type Output = LmOutput;

    fn step(&self, batch: Batch<B>) -> LmOutput {
        match losses(&self.model, &batch) {
            None => LmOutput::new(0.0, 0, batch.tokens()),
            Some(losses) => {
                let loss = losses.nll.mean().into_data().iter::<f64>().sum();
                LmOutput::new(loss, losses.rows.len(), batch.tokens())
            }
        }
    }
}
