//! The learning rate of each step: a warm-up, then a shape of transformers'.
//!
//! Burn's own schedulers decay during the warm-up when composed, restart (cosine), or take no rate
//! above 1 (linear); these are the functions of transformers' `optimization.py`.

use burn::lr_scheduler::LrScheduler;
use burn::optim::LearningRate;
use burn::tensor::backend::Backend;

use crate::{LrSchedulerKwargs, LrSchedulerType};

/// The learning rate as a function of the number of updates done.
///
/// Update `k`, counted from 0, uses `base · λ(k)`. With a warm-up, `λ(0) = 0`: the first update moves
/// nothing, in transformers as here. A constant rate honours the warm-up too, as
/// `constant_with_warmup` does in transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: LrSchedulerType,
    kwargs: LrSchedulerKwargs,
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
            kwargs: LrSchedulerKwargs::default(),
            base,
            warmup_steps,
            total_steps,
            done: 0,
        }
    }

    /// The same with options of its shape.
    #[must_use]
    pub fn with(self, kwargs: LrSchedulerKwargs) -> Self {
        Self { kwargs, ..self }
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
        let kwargs = &self.kwargs;
        match self.kind {
            LrSchedulerType::Constant => 1.0,
            LrSchedulerType::Linear => (1.0 - progress).max(0.0),
            LrSchedulerType::Cosine => self.wave(progress),
            LrSchedulerType::CosineWithMinLr => {
                let least = kwargs.min_lr.map(|least| least / self.base);
                let least = least.or(kwargs.min_lr_rate).unwrap_or(0.0);
                self.wave(progress) * (1.0 - least) + least
            }
            LrSchedulerType::CosineWithRestarts if progress >= 1.0 => 0.0,
            LrSchedulerType::CosineWithRestarts => {
                half_cosine((kwargs.num_cycles.unwrap_or(1.0) * progress).fract())
            }
            LrSchedulerType::Polynomial => {
                let end = kwargs.lr_end.unwrap_or(1e-7) / self.base;
                let left = (1.0 - progress).max(0.0);
                (1.0 - end) * left.powf(kwargs.power.unwrap_or(1.0)) + end
            }
            LrSchedulerType::InverseSqrt => {
                let warmup = self.warmup_steps as f64;
                let default = if warmup > 0.0 { warmup } else { 10_000.0 };
                let timescale = kwargs.timescale.unwrap_or(default);
                1.0 / ((update as f64 + timescale - warmup) / timescale).sqrt()
            }
        }
    }

    /// Waves over the run, half a one by default: down to 0. Past the end the rate stays.
    fn wave(&self, progress: f64) -> f64 {
        half_cosine(2.0 * self.kwargs.num_cycles.unwrap_or(0.5) * progress.min(1.0))
    }
}

/// From 1 at 0 down to 0 at 1.
fn half_cosine(at: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * at).cos())
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

    /// A row of tests/fixtures/trainer/schedules.json, which make_schedules.py made with transformers' `get_scheduler`.
    #[derive(serde::Deserialize)]
    struct Case {
        lr_scheduler_type: LrSchedulerType,
        lr_scheduler_kwargs: LrSchedulerKwargs,
        warmup_steps: usize,
        total_steps: usize,
        /// At a highest rate of 0.5.
        rates: Vec<f64>,
    }

    #[test]
    fn every_shape_is_transformers() {
        let text = include_str!("../../../tests/fixtures/trainer/schedules.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        for kind in LrSchedulerType::ALL {
            assert!(
                cases.iter().any(|case| case.lr_scheduler_type == kind),
                "{kind:?}"
            );
        }
        for case in cases {
            let kind = case.lr_scheduler_type;
            let schedule = Schedule::new(kind, 0.5, case.warmup_steps, case.total_steps);
            let schedule = schedule.with(case.lr_scheduler_kwargs);
            let found: Vec<f64> = (0..case.total_steps)
                .map(|step| schedule.at(step))
                .collect();
            assert_close(&found, &case.rates);
        }
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
