//! What a step costs: the run's own step and optimizer on one synthetic batch, with a clock.

use std::time::Instant;

use burn::{
    module::AutodiffModule,
    optim::Optimizer,
    tensor::{
        Int, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};
use burn_peft::{Adapter, Inputs, NoAdapter, PeftModel, Placement};
use burn_peft_data::{Batch, IGNORE_INDEX};
use burn_peft_decoder::{AttentionMask, Decoder, GenerationOptions};
use burn_peft_ops::Ops;
use burn_train::TrainStep;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{TrainConfig, Trainee, clip_grad_norm, init_optimizer};

/// Small enough not to move random weights to infinity.
const LEARNING_RATE: f64 = 1e-4;

/// The batch that a measurement runs on: random ids, no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticBatch {
    /// Rows.
    pub batch: usize,
    /// Tokens a row, virtual ones not counted.
    pub seq: usize,
    /// Supervised tokens a row: its last ones.
    pub labels: usize,
}

impl SyntheticBatch {
    fn collate<B: Backend>(&self, vocab: usize, device: &B::Device) -> Batch<B> {
        let Self { batch, seq, labels } = *self;
        let ids = random_ids(batch * seq, vocab);
        let label = |(cell, id): (usize, &i64)| match cell % seq + labels >= seq {
            true => *id,
            false => IGNORE_INDEX,
        };
        Batch {
            labels: ids.iter().enumerate().map(label).collect(),
            input_ids: Tensor::from_data(TensorData::new(ids, [batch, seq]), device),
            attention_mask: vec![true; batch * seq],
            row_labels: vec![None; batch],
            placement: None,
            batch,
            seq,
            indices: (0..batch).collect(),
        }
    }
}

fn random_ids(count: usize, vocab: usize) -> Vec<i64> {
    let mut random = StdRng::seed_from_u64(0);
    let ids = 0..vocab as i64;
    (0..count)
        .map(|_| random.random_range(ids.clone()))
        .collect()
}

/// Seconds of each of `steps` optimizer steps (forward, backward, clip, AdamW) behind one that warms up.
/// `after_step` is called with the steps done, the first counted as 0.
///
/// # Panics
/// If `steps` is 0.
pub fn time_steps<B, A>(
    mut trainee: Trainee<B, A>,
    shape: SyntheticBatch,
    steps: usize,
    after_step: &mut dyn FnMut(usize),
) -> Vec<f64>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: Adapter<B> + AutodiffModule<B, InnerModule: Adapter<B::InnerBackend>>,
{
    assert!(steps > 0, "a measurement has a step");
    let base = trainee.model().base();
    let (device, vocab) = (base.device(), base.config().vocab_size);
    let config = TrainConfig::default();
    let mut optimizer = init_optimizer::<B, Trainee<B, A>>(&config);
    let mut seconds = Vec::with_capacity(steps);
    for step in 0..=steps {
        let batch = shape.collate::<B>(vocab, &device);
        let began = Instant::now();
        let output = TrainStep::step(&trainee, vec![batch]);
        let (gradients, _) = clip_grad_norm(&trainee, output.grads, config.max_grad_norm);
        trainee = optimizer.step(LEARNING_RATE, trainee, gradients);
        wait_for::<B>(&device);
        if step > 0 {
            seconds.push(began.elapsed().as_secs_f64());
        }
        after_step(step);
    }
    seconds
}

/// Seconds of each of `tokens` greedy tokens behind a prompt of `shape`, the first not counted: it ends the
/// prompt's own pass.
pub fn time_decoding<B: Ops>(
    base: Decoder<B>,
    batch: usize,
    prompt: usize,
    tokens: usize,
) -> Vec<f64> {
    let (device, vocab) = (base.device(), base.config().vocab_size);
    let ids = random_ids(batch * prompt, vocab);
    let inputs = Inputs {
        input_ids: Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, prompt]), &device),
        attention_mask: AttentionMask::full(batch, prompt),
        placement: Placement::Front,
    };
    let model = PeftModel::new(base, NoAdapter::default());
    let mut seconds = Vec::with_capacity(tokens);
    let mut began = None;
    let options = GenerationOptions::greedy(tokens + 1, Vec::new());
    let _ = model.generate(inputs, &options, &mut |row, _| {
        // The rows of a batch get their token together.
        if row == 0 {
            let now = Instant::now();
            if let Some(before) = began.replace(now) {
                seconds.push((now - before).as_secs_f64());
            }
        }
        std::ops::ControlFlow::Continue(())
    });
    seconds
}

/// Until the device has done all that it was asked.
pub(crate) fn wait_for<B: Backend>(device: &B::Device) {
    if let Err(error) = B::sync(device) {
        panic!("the device failed: {error:?}");
    }
}
