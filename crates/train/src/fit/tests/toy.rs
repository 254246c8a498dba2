//! The smallest model that a run can train, and what the tests say about a run of it.

use crate::Steps;
use crate::fit::index_loader::IndexLoader;
use crate::fit::*;
use crate::record::{LogRecord, TrainRecord};
use burn::backend::Autodiff;
use burn::module::{Module, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use burn_flex::Flex;
use burn_train::TrainOutput;
use std::fs;
use std::path::Path;
use std::sync::MutexGuard;

pub(super) type B = Autodiff<Flex>;

/// Rows of one number.
pub(super) type Batch = Vec<f32>;

/// `y = weight · x + bias`, to be taught `y = 3x - 1`.
#[derive(Module, Debug)]
pub(super) struct Toy<B: Backend> {
    pub(super) weight: Param<Tensor<B, 1>>,
    pub(super) bias: Param<Tensor<B, 1>>,
    /// Stands for the base model: large, and in no record.
    pub(super) frozen: Tensor<B, 1>,
}

pub(super) fn toy(weight: f32) -> Toy<B> {
    let device = Default::default();
    Toy {
        weight: Param::from_data([weight], &device),
        bias: Param::from_data([0.0], &device),
        frozen: Tensor::ones([100_000], &device),
    }
}

impl<B: Backend> Toy<B> {
    fn loss(&self, batch: &Batch, noise: f64) -> Tensor<B, 1> {
        let device = self.frozen.device();
        let x = Tensor::<B, 1>::from_floats(batch.as_slice(), &device);
        let spread = Distribution::Normal(0.0, noise);
        let target = x.clone() * 3.0 - 1.0 + Tensor::random([batch.len()], spread, &device);
        let predicted = x * self.weight.val() + self.bias.val();
        (predicted - target).square().mean() * self.frozen.clone().narrow(0, 0, 1)
    }
}

impl TrainStep for Toy<B> {
    type Input = Vec<Batch>;
    type Output = LmOutput;

    fn step(&self, batches: Vec<Batch>) -> TrainOutput<LmOutput> {
        let mut grads = GradientsAccumulator::new();
        let (mut sum, mut rows) = (0.0, 0);
        for batch in &batches {
            let loss = self.loss(batch, 0.01) / batches.len() as f32;
            sum += f64::from(loss.clone().into_scalar());
            rows += batch.len();
            grads.accumulate(self, GradientsParams::from_grads(loss.backward(), self));
        }
        TrainOutput {
            grads: grads.grads(),
            item: LmOutput::new(sum, rows, 2 * rows),
        }
    }
}

impl InferenceStep for Toy<Flex> {
    type Input = Batch;
    type Output = LmOutput;

    fn step(&self, batch: Batch) -> LmOutput {
        let loss = f64::from(self.loss(&batch, 0.0).into_scalar());
        LmOutput::new(loss, batch.len(), batch.len())
    }
}

/// Flex has one random generator for the process; runs at the same time would draw from each other.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static RUNS: Mutex<()> = Mutex::new(());
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) const TOTAL: usize = 20;

pub(super) fn options(dir: &Path, settings: &str) -> FitOptions {
    let text = format!(
        "train.learning_rate = 0.2\ntrain.max_steps = {TOTAL}\ntrain.warmup_steps = 2\n\
         train.logging_steps = 1\ntrain.weight_decay = 0.01\n{settings}"
    );
    let config = RunConfig::parse(&text, "test", &[]).unwrap();
    let plan = Plan::with_steps_per_epoch(&config.train, 8);
    let mut options = FitOptions::new(&config, plan);
    options.output_dir = dir.join("run");
    options.renderer = RendererChoice::Silent;
    options
}

/// Two micro-batches for each step, another pair each step.
pub(super) fn batches(step: usize) -> Vec<Batch> {
    let base = step as f32 * 0.37;
    vec![vec![base.sin(), base.cos()], vec![(base * 2.0).sin(), 0.5]]
}

pub(super) fn run(options: FitOptions) -> Result<(Toy<Flex>, FitSummary), Error> {
    let valid: Vec<Batch> = vec![vec![1.0, -1.0], vec![0.5]];
    let valid = IndexLoader::new(0..2, move |index| valid[index].clone());
    run_with(options, Validation::Losses(Arc::new(valid)))
}

pub(super) fn run_with(
    options: FitOptions,
    valid: Validation<B, Toy<B>>,
) -> Result<(Toy<Flex>, FitSummary), Error> {
    let train = IndexLoader::new(options.start_step()..options.plan.total_steps, batches);
    // Another start than the checkpoint's, so that a resume that forgets the model shows.
    let model = toy(if options.resume.is_some() { 9.0 } else { 0.5 });
    fit(
        model,
        Arc::new(train),
        Some(valid),
        &Default::default(),
        options,
    )
}

pub(super) fn bits(model: &Toy<Flex>) -> [u32; 2] {
    [&model.weight, &model.bias].map(|param| param.val().into_scalar().to_bits())
}

pub(super) fn records(dir: &Path) -> Vec<LogRecord> {
    let text = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(super) fn losses(dir: &Path) -> Vec<(usize, f64, f64)> {
    let train = records(dir).into_iter().filter_map(|record| match record {
        LogRecord::Train(TrainRecord {
            step,
            loss,
            learning_rate,
            ..
        }) => Some((step, loss, learning_rate)),
        LogRecord::Eval(_) => None,
    });
    train.collect()
}

/// Stops the run at a step, or fails there.
struct AtStep {
    step: usize,
    act: Box<dyn FnMut() -> Result<(), Error> + Send>,
}

impl Observer for AtStep {
    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        match record {
            LogRecord::Train(record) if record.step == self.step => (self.act)(),
            _ => Ok(()),
        }
    }
}

pub(super) fn at_step(
    step: usize,
    act: impl FnMut() -> Result<(), Error> + Send + 'static,
) -> Box<dyn Observer> {
    Box::new(AtStep {
        step,
        act: Box::new(act),
    })
}

pub(super) fn interrupt_at(mut options: FitOptions, step: usize) -> FitOptions {
    let interrupter = options.interrupter.clone();
    options.observers.push(at_step(step, move || {
        interrupter.stop(Some("test"));
        Ok(())
    }));
    options
}

impl FitOptions {
    pub(super) fn with_logging_steps(mut self, steps: usize) -> Self {
        self.train.logging_steps = Steps::Count(steps);
        self
    }
}

/// The newest checkpoint, with no newer one that is damaged.
pub(super) fn latest(dir: &Path) -> Result<Checkpoint, Error> {
    Checkpoint::latest(dir, &mut |error| panic!("{error}"))
}
