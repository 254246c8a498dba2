//! One optimizer step of a [`PeftModel`], as burn-train wants it.

mod reduce;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

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

use self::reduce::{Layout, MicroSum, Total};
pub use self::seed::StepSeed;
use crate::{
    LmOutput, Losses, Ranks,
    loss::{inputs, losses, losses_of, supervised},
    optimizer::scale_gradients,
    ranks::Group,
};

/// Bytes of gradients that a rank keeps before it hands them on. With several micro-batches at a time, ranks wait less for
/// the one whose rows are the longest.
const KEPT_GRADIENTS: usize = 64 << 20;

/// A [`PeftModel`] with burn-train's traits. (Both it and they belong to other crates.)
#[derive(Module, Debug)]
pub struct Trainee<B: Backend, A: Module<B>> {
    model: PeftModel<B, A>,
    #[module(skip)]
    recompute: bool,
    #[module(skip)]
    seed: StepSeed,
    #[module(skip)]
    ranks: Ranks,
    backend: PhantomData<B>,
}

impl<B: Backend, A: Module<B>> Trainee<B, A> {
    /// The model, to be trained.
    pub fn new(model: PeftModel<B, A>) -> Self {
        Self {
            model,
            recompute: false,
            seed: StepSeed::default(),
            ranks: Ranks::alone(),
            backend: PhantomData,
        }
    }

    /// Whether a step keeps each layer's input only, and computes the layer again for its gradient
    /// (gradient checkpointing): less memory for more time, and the same gradients up to rounding.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// With what the loop says of the step under way, so that a micro-batch draws the same numbers whichever process
    /// computes it.
    #[must_use]
    pub fn seeded(self, seed: StepSeed) -> Self {
        Self { seed, ..self }
    }

    /// As one of several processes that share each step: this one is given the micro-batches `rank`, `rank + size`, … of
    /// it, and all come to the same gradients.
    #[must_use]
    pub fn among(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
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
        if let Some(group) = self.ranks.group() {
            return self.shared_step(group, micro_batches);
        }
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
        for (index, batch) in micro_batches.iter().enumerate() {
            tokens += batch.tokens();
            self.seed_micro_batch(index);
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

impl<B, A> Trainee<B, A>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: Adapter<B> + AutodiffModule<B, InnerModule: Adapter<B::InnerBackend>>,
{
    /// [`optimizer_step`](Self::optimizer_step) of all ranks: the same numbers, added in the same order.
    fn shared_step(&self, group: &dyn Group, own: Vec<Batch<B>>) -> TrainOutput<LmOutput> {
        let device = self.model.base().device();
        let layout = Layout::of::<B, _>(self);
        let at_once = (KEPT_GRADIENTS / (4 * layout.len).max(1)).max(1);
        let numbers = (group.rank()..).step_by(group.size());
        let mut rest = numbers.zip(own).peekable();
        let mut computed = VecDeque::new();
        let mut total = Total::new(group, &layout);
        let mut reducing = Duration::ZERO;
        loop {
            if computed.is_empty() && rest.peek().is_some() {
                let batches: Vec<_> = rest.by_ref().take(at_once).collect();
                let (trainee, layout) = (self.clone(), &layout);
                computed = <B as Ops>::Plain::run_step(&device, move || {
                    let sums = batches.iter();
                    sums.map(|(index, batch)| trainee.micro_sum(*index, batch, layout))
                        .collect()
                });
            }
            let own = computed.pop_front();
            let more = !computed.is_empty() || rest.peek().is_some();
            let began = Instant::now();
            let goes_on = total.round(own, more);
            reducing += began.elapsed();
            if !goes_on {
                break;
            }
        }
        let began = Instant::now();
        let (sums, grads) = total.finish::<B, _>(self, &device);
        self.ranks.reduced(reducing + began.elapsed());
        let (label_tokens, tokens) = (sums.label_tokens as usize, sums.tokens as usize);
        TrainOutput {
            grads: scale_gradients(self, grads, 1.0 / label_tokens as f64),
            item: LmOutput::new(
                f64::from(sums.loss) / label_tokens as f64,
                label_tokens,
                tokens,
            ),
        }
    }

    /// What a micro-batch of this rank comes to, on the host. It has the number `index` among those of the step.
    fn micro_sum(&self, index: usize, batch: &Batch<B>, layout: &Layout) -> MicroSum {
        let nothing = MicroSum::of_tokens(batch.tokens(), layout);
        self.seed_micro_batch(index);
        let Some(outcome) = self.micro_step(batch) else {
            return nothing;
        };
        let mut accumulator = GradientsAccumulator::new();
        for gradients in outcome.gradients {
            accumulator.accumulate(self, GradientsParams::from_grads(gradients, self));
        }
        let loss = outcome.loss.into_data().iter::<f32>().sum();
        let (tokens, grads) = (outcome.label_tokens, accumulator.grads());
        nothing.learned::<B, _>(loss, tokens, self, &grads, layout)
    }

    /// The loop has seeded the first micro-batch with the step.
    fn seed_micro_batch(&self, index: usize) {
        if let Some(seed) = self.seed.of_micro_batch(index) {
            B::seed(&self.model.base().device(), seed);
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
