//! The arithmetic of a run: how many steps it has, and where in the data each one stands.

use burn_peft_data::BatchOrder;

use crate::{Steps, TrainConfig};

/// How many steps a run has. A *step* is one optimizer update.
///
/// With the order of the rows a pure function of (seed, epoch), a step number says everything about
/// the position in the data; resuming is arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Steps of one pass over the rows.
    pub steps_per_epoch: usize,
    /// Steps of the run.
    pub total_steps: usize,
    /// Steps over which the learning rate rises.
    pub warmup_steps: usize,
}

impl Plan {
    /// The plan for `rows` training rows.
    ///
    /// Rounded as transformers' `Trainer` rounds: the last micro-batch and the last step of an epoch
    /// may be smaller, a part of an epoch and a share of a warm-up are rounded up.
    pub fn new(config: &TrainConfig, rows: usize) -> Self {
        Self::of_ranks(config, rows, 1)
    }

    /// The plan where each of `ranks` processes has `gradient_accumulation_steps` micro-batches of a step.
    pub fn of_ranks(config: &TrainConfig, rows: usize, ranks: usize) -> Self {
        let order = BatchOrder::new(
            config.seed,
            config.per_device_train_batch_size,
            config.gradient_accumulation_steps.saturating_mul(ranks),
        );
        Self::with_steps_per_epoch(config, order.steps_per_epoch(rows).max(1))
    }

    /// The plan where the steps of an epoch are known, as with batches grouped by length.
    pub fn with_steps_per_epoch(config: &TrainConfig, steps_per_epoch: usize) -> Self {
        let total_steps = match usize::try_from(config.max_steps) {
            Ok(steps) if steps > 0 => steps,
            _ => (config.num_train_epochs * steps_per_epoch as f64).ceil() as usize,
        };
        let warmup_steps = match config.warmup_steps {
            Steps::Count(0) => (config.warmup_ratio * total_steps as f64).ceil() as usize,
            steps => steps.of(total_steps),
        };
        Self {
            steps_per_epoch,
            total_steps,
            warmup_steps,
        }
    }

    /// Epochs that the run touches, the last one perhaps in part.
    pub fn epochs(&self) -> usize {
        self.total_steps.div_ceil(self.steps_per_epoch)
    }

    /// Epoch, from 0, and index within it, from 0, of step `index`, counted from 0.
    pub fn position(&self, index: usize) -> (usize, usize) {
        (index / self.steps_per_epoch, index % self.steps_per_epoch)
    }

    /// Epochs done after `steps` steps, as a fraction.
    pub fn epochs_after(&self, steps: usize) -> f64 {
        steps as f64 / self.steps_per_epoch as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_batches_steps_and_epochs_are_rounded_up() {
        let config = TrainConfig {
            per_device_train_batch_size: 4,
            gradient_accumulation_steps: 2,
            num_train_epochs: 1.5,
            warmup_ratio: 0.1,
            ..TrainConfig::default()
        };
        // 17 rows: 5 micro-batches, 3 steps; 4.5 steps in all.
        let plan = Plan::new(&config, 17);
        assert_eq!(
            plan,
            Plan {
                steps_per_epoch: 3,
                total_steps: 5,
                warmup_steps: 1
            }
        );
        assert_eq!((plan.epochs(), plan.position(4)), (2, (1, 1)));
        assert_eq!(plan.epochs_after(3), 1.0);
        // With two ranks: 2 steps.
        assert_eq!(Plan::of_ranks(&config, 17, 2).steps_per_epoch, 2);
    }

    #[test]
    fn max_steps_and_warmup_steps_go_before_epochs_and_ratio() {
        let config = TrainConfig {
            max_steps: 60,
            warmup_steps: Steps::Count(7),
            warmup_ratio: 0.5,
            ..TrainConfig::default()
        };
        let plan = Plan::with_steps_per_epoch(&config, 10);
        assert_eq!(
            plan,
            Plan {
                steps_per_epoch: 10,
                total_steps: 60,
                warmup_steps: 7
            }
        );
    }

    #[test]
    fn warmup_steps_below_one_are_a_share_as_in_transformers_5() {
        for (share, expected) in [(0.1, 6), (0.03, 2), (0.999, 60)] {
            let config = TrainConfig {
                max_steps: 60,
                warmup_steps: Steps::Share(share),
                ..TrainConfig::default()
            };
            let plan = Plan::with_steps_per_epoch(&config, 10);
            assert_eq!(plan.warmup_steps, expected, "{share}");
        }
    }
}
