//! A short run whose learning rate rises from step to step, to see which rate to take (Smith 2017, section 3.3).

use burn::{
    data::dataloader::DataLoader, module::AutodiffModule, optim::Optimizer,
    tensor::backend::AutodiffBackend,
};
use burn_peft_decoder::Decoder;
use burn_peft_ops::Ops;
use burn_train::TrainStep;
use serde::Serialize;

use crate::{
    Error, Ranks, RunConfig, RunInputs, RunOptions, Stage, Trainee, clip_grad_norm, init_optimizer,
    run::{Machine, RunRows, new_model, step_loader},
    start::{check_init_from, settled},
};

/// The first and the last rate.
const RATES: [f64; 2] = [1e-5, 1.0];
/// Steps where the configuration names no number of them.
const STEPS: usize = 100;
/// How much of the mean of the losses is that of the steps before.
const MEMORY: f64 = 0.9;
/// The run ends where the mean is so many times the least one.
const DIVERGED: f64 = 1.5;
/// A fall of the mean by less than this share of it may be chance.
const FALL: f64 = 0.03;
/// The rate to take is so much below the one at which the mean is least: there, training is about to diverge.
const BELOW: f64 = 3.0;

/// The losses at rising rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LrCurve {
    /// One for each step.
    pub points: Vec<LrPoint>,
    /// The rate to take; `None` where the loss did not fall by more than chance.
    pub learning_rate: Option<f64>,
}

/// A step of a run with a rising rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LrPoint {
    /// Its rate.
    pub learning_rate: f64,
    /// Its loss, before its update.
    pub loss: f64,
    /// The mean of the losses so far, the last ones counting most.
    pub smoothed: f64,
}

impl LrCurve {
    fn of(points: Vec<LrPoint>) -> Self {
        // The first rates move nothing: what the losses are there is where they fall from.
        let first = points.len() / 10;
        let still = points.get(first).map(|point| point.smoothed);
        let least = points
            .iter()
            .skip(first)
            .min_by(|a, b| a.smoothed.total_cmp(&b.smoothed))
            .filter(|least| still.is_some_and(|still| least.smoothed < (1.0 - FALL) * still));
        Self {
            learning_rate: least.map(|least| (least.learning_rate / BELOW).max(RATES[0])),
            points,
        }
    }
}

/// Trains a new adapter as `config` says, but at a rate that rises from step to step, until the loss grows or the
/// steps are done: `max_steps`, or 100. Nothing is written.
///
/// # Errors
/// As [`run`](crate::run).
pub fn find_lr<B>(
    config: &RunConfig,
    inputs: RunInputs,
    options: RunOptions,
    device: &B::Device,
) -> Result<LrCurve, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    let RunOptions {
        dtype,
        memory,
        stop,
        mut progress,
        mut notes,
        ..
    } = options;
    let mut config = settled(config, &inputs.tokenizer)?;
    for warning in check_init_from(&config, &inputs)? {
        notes(&format!("warning: {warning}"));
    }
    if config.train.max_steps < 1 {
        config.train.max_steps = STEPS as i64;
    }
    // Only the training rows count.
    let inputs = &RunInputs {
        valid: None,
        test: None,
        ..inputs
    };
    let machine = Machine {
        dtype,
        memory,
        ranks: 1,
    };
    let rows = RunRows::read(
        &config.method,
        &config,
        inputs,
        machine,
        &mut progress,
        &mut notes,
    )?;
    let base = inputs
        .checkpoint
        .load::<B::InnerBackend>(dtype, device, &mut |done, all| {
            progress(Stage::Loading, done, all);
        })?;
    let base = Decoder::<B>::from_inner(base);
    let seed = config.train.seed;
    let model = new_model(&config.method, base, &rows.task, &rows.tokenizer, seed)?;
    let (train, mix) = (rows.train, rows.mix);
    let alone = Ranks::alone();
    let loader = step_loader::<B>(&config, train, mix, rows.padding, rows.plan, &alone, device)?;
    let mut trainee = Trainee::new(model).recomputing(rows.recompute);
    let mut optimizer = init_optimizer::<B, Trainee<B, _>>(&config.train);
    let (mut points, mut mean, steps) = (Vec::new(), Mean::default(), rows.plan.total_steps);
    for (step, batches) in loader.iter().enumerate() {
        progress(Stage::Training, step as u64, steps as u64);
        let learning_rate = rate_of(step, steps);
        let output = TrainStep::step(&trainee, batches);
        let loss = output.item.loss;
        if !loss.is_finite() || stop.interrupter().should_stop() {
            break;
        }
        let smoothed = mean.with(loss);
        points.push(LrPoint {
            learning_rate,
            loss,
            smoothed,
        });
        let least = points.iter().map(|point| point.smoothed);
        if smoothed > DIVERGED * least.fold(f64::INFINITY, f64::min) {
            break;
        }
        let (gradients, _) = clip_grad_norm(&trainee, output.grads, config.train.max_grad_norm);
        trainee = optimizer.step(learning_rate, trainee, gradients);
    }
    progress(Stage::Training, steps as u64, steps as u64);
    Ok(LrCurve::of(points))
}

/// The rate of a step, counted from 0: a geometric series.
fn rate_of(step: usize, steps: usize) -> f64 {
    let [first, last] = RATES;
    first * (last / first).powf(step as f64 / steps.saturating_sub(1).max(1) as f64)
}

/// A mean in which the last values count most, without the bias of its start.
#[derive(Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn with(&mut self, value: f64) -> f64 {
        self.sum = MEMORY * self.sum + (1.0 - MEMORY) * value;
        self.weight = MEMORY * self.weight + (1.0 - MEMORY);
        self.sum / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: &[f64]) -> LrCurve {
        let mut mean = Mean::default();
        let points = losses.iter().enumerate().map(|(step, &loss)| LrPoint {
            learning_rate: rate_of(step, losses.len()),
            loss,
            smoothed: mean.with(loss),
        });
        LrCurve::of(points.collect())
    }

    #[test]
    fn rates_rise_from_the_first_to_the_last_by_equal_factors() {
        let rates: Vec<f64> = (0..6).map(|step| rate_of(step, 6)).collect();
        for (found, expected) in rates.iter().zip([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(rate_of(0, 1), 1e-5);
    }

    #[test]
    fn the_rate_to_take_is_below_the_one_of_the_least_loss() {
        let falls = |step: usize| 4.0 - step as f64 / 30.0;
        let mut losses: Vec<f64> = (0..80).map(falls).collect();
        losses.extend([9.0; 20]);
        let found = curve(&losses).learning_rate.unwrap();
        assert!((found - rate_of(79, 100) / BELOW).abs() < 1e-12, "{found}");
    }

    #[test]
    fn a_loss_that_does_not_fall_gives_no_rate() {
        let losses: Vec<f64> = (0..10).map(|step| 1.0 + step as f64).collect();
        assert_eq!(curve(&losses).learning_rate, None);
        let noise: Vec<f64> = (0..50)
            .map(|step| 1.0 + f64::from(step % 3) / 50.0)
            .collect();
        assert_eq!(curve(&noise).learning_rate, None);
        assert_eq!(curve(&[]).learning_rate, None);
    }

    #[test]
    fn the_mean_of_equal_losses_is_that_loss_from_the_start() {
        let mut mean = Mean::default();
        for _ in 0..5 {
            assert!((mean.with(2.5) - 2.5).abs() < 1e-12);
        }
    }
}
