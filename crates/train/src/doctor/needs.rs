//! What a run needs of the machine.

use burn::tensor::DType;
use burn_peft_decoder::DecoderConfig;
use serde::Serialize;

use crate::{
    GradientCheckpointing, OptimizerKind, Plan, StepSize, TrainConfig, intervals::Intervals,
    memory::usable,
};

/// What a step takes of memory, as estimated for the decision about gradient checkpointing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryCheck {
    /// Bytes of the base's weights.
    pub weights: u64,
    /// Bytes of a step that keeps all states.
    pub keeping: u64,
    /// Bytes of a step that computes layers again.
    pub recomputing: u64,
    /// Whether layers are computed again.
    pub recompute: bool,
    /// Whether that was decided by the memory there is.
    pub decided: bool,
    /// Bytes that the device has, where that is known.
    pub available: Option<u64>,
    /// Whether a step fits.
    pub fits: Option<bool>,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Tokens of its longest row, virtual ones counted.
    pub seq: usize,
    /// The most rows that fit at this length.
    pub largest_batch: Option<usize>,
    /// The most rows that fit where layers are computed again.
    pub largest_batch_recomputing: Option<usize>,
}

/// What a run leaves on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskNeed {
    /// Bytes of a checkpoint: parameters and the optimizer's state.
    pub checkpoint: u64,
    /// Checkpoints that are kept.
    pub checkpoints: usize,
    /// All of them, and one more while it replaces another.
    pub total: u64,
}

impl MemoryCheck {
    /// `asked` is what the configuration says of gradient checkpointing, and `recompute` what became of it.
    pub(super) fn new(
        size: StepSize,
        base: &DecoderConfig,
        asked: GradientCheckpointing,
        recompute: bool,
        available: Option<u64>,
    ) -> Self {
        let bytes = |recompute| size.bytes(base, recompute) as u64;
        let largest = |recompute| Some(size.largest_batch(base, recompute, available?));
        Self {
            weights: (base.num_parameters() * DType::size(&size.dtype)) as u64,
            keeping: bytes(false),
            recomputing: bytes(true),
            recompute,
            decided: asked == GradientCheckpointing::Auto,
            available,
            fits: available.map(|memory| bytes(recompute) <= usable(memory)),
            batch: size.batch,
            seq: size.seq,
            largest_batch: largest(recompute),
            largest_batch_recomputing: largest(true),
        }
    }
}

impl DiskNeed {
    /// Of a run that trains so many parameters.
    pub(super) fn new(config: &TrainConfig, plan: Plan, parameters: usize) -> Self {
        // Parameters in f32, and AdamW's two moments. Of a matrix, Adafactor keeps a row and a column.
        let states = match config.optim {
            OptimizerKind::AdamW => 3,
            OptimizerKind::Adafactor => 1,
        };
        let checkpoint = (parameters * states * size_of::<f32>()) as u64;
        let [_, save_steps] = Intervals::new(config, &plan).eval_and_save_steps();
        let made = save_steps.map_or(0, |steps| plan.total_steps.div_ceil(steps));
        let checkpoints = made.min(config.save_total_limit.unwrap_or(usize::MAX));
        let replaced = u64::from(checkpoints < made);
        Self {
            checkpoint,
            checkpoints,
            total: checkpoint * (checkpoints as u64 + replaced),
        }
    }
}
