//! The learning rate of each step: a warm-up, then linear, cosine or constant.
//!
//! Burn's own schedulers decay during the warm-up when composed, restart (cosine), or take no rate
//! above 1 (linear); these are the functions of transformers' `optimization.py`.

use burn::lr_scheduler::LrScheduler;
use burn::optim::LearningRate;
use burn::tensor::backend::Backend;

use crate::LrSchedulerType;

/// The learning rate as a function of the number of updates done.
///
/// Update `k`, counted from 0, uses `base · λ(k)`. With a warm-up, `λ(0) = 0`: the first update moves
/// nothing, in transformers as here. A constant rate honours the warm-up too, as
/// `constant_with_warmup` does in transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: LrSchedulerType,
    base: LearningRate,
    warmup_steps: usize,
    total_steps: usize,
    done: usize,
}

impl Schedule {
    /// A schedule that reaches `base` after `warmup_steps` and ends with `total_steps`.
    pub fn new(
        kind: LrSchedulerType,
        base: LearningRate,
        warmup_steps: usize,
        total_steps: usize,
    ) -> Self {
        Self {
            kind,
            base,
            warmup_steps,
            total_steps,
            done: 0,
        }
    }

    /// The rate of update `update`, counted from 0.
    pub fn at(&self, update: usize) -> LearningRate {
        self.base * self.lambda(update)
    }

    fn lambda(&self, update: usize) -> f64 {
        if update < self.warmup_steps {
            return update as f64 / self.warmup_steps.max(1) as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (update - self.warmup_steps) as f64 / decay_steps;
        match self.kind {
            LrSchedulerType::Constant => 1.0,
            LrSchedulerType::Linear => (1.0 - progress).max(0.0),
            // Half a period, as transformers' num_cycles = 0.5; past the end it stays at 0.
            LrSchedulerType::Cosine => {
                0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
            }
        }
    }
}

impl LrScheduler for Schedule {
    /// The number of updates done. The shape itself comes from the configuration, so that a run may
    /// be resumed with more steps than it was started with.
    type Record<B: Backend> = usize;

    fn step(&mut self) -> LearningRate {
        let rate = self.at(self.done);
        self.done += 1;
        rate
    }

    fn to_record<B: Backend>(&self) -> usize {
        self.done
    }

    fn load_record<B: Backend>(mut self, done: usize) -> Self {
        self.done = done;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    fn rates(kind: LrSchedulerType, warmup: usize, total: usize) -> Vec<f64> {
        let mut schedule = Schedule::new(kind, 2.0, warmup, total);
        (0..total + 1).map(|_| schedule.step()).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-12,
                "{found} is not {expected}"
            );
        }
    }

    #[test]
    fn linear_warms_up_from_zero_and_falls_to_zero() {
        // get_linear_schedule_with_warmup(num_warmup_steps=2, num_training_steps=6), base 2.
        assert_close(
            &rates(LrSchedulerType::Linear, 2, 6),
            &[0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0],
        );
        assert_close(
            &rates(LrSchedulerType::Linear, 0, 4),
            &[2.0, 1.5, 1.0, 0.5, 0.0],
        );
    }

    #[test]
    fn cosine_is_half_a_period() {
        // get_cosine_schedule_with_warmup(num_warmup_steps=1, num_training_steps=5), base 2.
        let quarter = 0.5_f64.sqrt();
        let expected = [0.0, 2.0, 1.0 + quarter, 1.0, 1.0 - quarter, 0.0];
        assert_close(&rates(LrSchedulerType::Cosine, 1, 5), &expected);
        let schedule = Schedule::new(LrSchedulerType::Cosine, 2.0, 1, 5);
        assert!(
            schedule.at(9) < 1e-12,
            "the rate must not rise again after the end"
        );
    }

    #[test]
    fn constant_stays_after_the_warmup() {
        assert_close(
            &rates(LrSchedulerType::Constant, 2, 3),
            &[0.0, 1.0, 2.0, 2.0],
        );
    }

    #[test]
    fn a_warmup_longer_than_the_run_does_not_divide_by_zero() {
        assert_close(&rates(LrSchedulerType::Linear, 4, 2), &[0.0, 0.5, 1.0]);
    }

    #[test]
    fn a_resumed_schedule_goes_on_where_it_stopped() {
        let mut whole = Schedule::new(LrSchedulerType::Cosine, 2.0, 3, 10);
        let mut first = whole.clone();
        for _ in 0..4 {
            assert_eq!(whole.step(), first.step());
        }
        let record = first.to_record::<Flex>();
        let fresh = Schedule::new(LrSchedulerType::Cosine, 2.0, 3, 10);
        let mut resumed = fresh.load_record::<Flex>(record);
        for _ in 4..10 {
            assert_eq!(whole.step(), resumed.step());
        }
    }
}
