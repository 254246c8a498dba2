//! How long a run still takes: learned from what its steps, evaluations and checkpoints took so far.

/// What a run does after a certain number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// Steps of the run.
    pub(super) total: usize,
    /// Steps between two evaluations; `None` without validation rows.
    pub(super) eval_steps: Option<usize>,
    /// Steps between two checkpoints.
    pub(super) save_steps: usize,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Steps done.
    pub(super) steps: usize,
    /// Whether the last of them was evaluated, if it is to be.
    pub(super) evaluated: bool,
    /// Whether it was saved, if it is to be.
    pub(super) saved: bool,
}

/// What the parts of a run took so far.
#[derive(Debug, Clone, Default)]
pub(super) struct TimeLeft {
    steps: Times,
    evaluations: Times,
    saves: Times,
    /// Seconds that the run takes after its last step.
    closing: f64,
}

impl TimeLeft {
    /// Of a run that takes `closing` seconds after its last step, and whose evaluations take about `evaluation` seconds
    /// where one was made already.
    pub(super) fn new(evaluation: Option<f64>, closing: f64) -> Self {
        let mut times = Self {
            closing,
            ..Self::default()
        };
        times.evaluations.expected = evaluation;
        times
    }

    pub(super) fn step(&mut self, seconds: f64) {
        self.steps.push(seconds);
    }

    pub(super) fn evaluation(&mut self, seconds: f64) {
        self.evaluations.push(seconds);
    }

    pub(super) fn save(&mut self, seconds: f64) {
        self.saves.push(seconds);
    }

    /// Seconds until the end; `None` before the first step.
    pub(super) fn seconds(&self, rhythm: Rhythm, done: Done) -> Option<f64> {
        let Rhythm {
            total,
            eval_steps,
            save_steps,
        } = rhythm;
        let step = self.steps.mean()?;
        let counted = |every, last_is_done| {
            let from = match last_is_done {
                true => done.steps,
                false => done.steps.saturating_sub(1),
            };
            times_due(from, total, every) as f64
        };
        let evaluations = eval_steps.map_or(0.0, |every| counted(every, done.evaluated));
        let saves = counted(save_steps, done.saved);
        Some(
            step * total.saturating_sub(done.steps) as f64
                + self.evaluations.mean().unwrap_or(0.0) * evaluations
                + self.saves.mean().unwrap_or(0.0) * saves
                + self.closing,
        )
    }
}

/// How often something comes behind step `from` that comes every so many steps and after the last one.
fn times_due(from: usize, total: usize, every: usize) -> usize {
    if from >= total {
        return 0;
    }
    total / every - from / every + usize::from(!total.is_multiple_of(every))
}

/// How long something took each time.
#[derive(Debug, Clone, Default)]
struct Times {
    first: Option<f64>,
    sum: f64,
    count: usize,
    /// What it may take, before it was done for the first time.
    expected: Option<f64>,
}

impl Times {
    fn push(&mut self, seconds: f64) {
        if self.first.is_none() {
            self.first = Some(seconds);
            return;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// Without the first time where there are others: buffers are made in it, and on a GPU kernels compiled.
    fn mean(&self) -> Option<f64> {
        match self.count {
            0 => self.first.or(self.expected),
            count => Some(self.sum / count as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_every_few_steps_comes_after_the_last_one_too() {
        // After steps 5, 10, 15 and 17.
        for (from, expected) in [(0, 4), (4, 4), (5, 3), (14, 2), (15, 1), (16, 1), (17, 0)] {
            assert_eq!(times_due(from, 17, 5), expected, "{from}");
        }
        assert_eq!(times_due(0, 20, 5), 4);
        assert_eq!(times_due(0, 3, 500), 1);
    }

    const RHYTHM: Rhythm = Rhythm {
        total: 100,
        eval_steps: Some(20),
        save_steps: 50,
    };

    fn done(steps: usize, evaluated: bool, saved: bool) -> Done {
        Done {
            steps,
            evaluated,
            saved,
        }
    }

    #[test]
    fn steps_evaluations_checkpoints_and_the_end_all_count() {
        let mut times = TimeLeft::new(None, 7.0);
        assert_eq!(times.seconds(RHYTHM, done(0, false, false)), None);
        for seconds in [9.0, 2.0, 2.0, 2.0] {
            times.step(seconds);
        }
        times.evaluation(10.0);
        times.save(3.0);
        // 60 steps of 2 s; evaluations after 40 (still to come), 60, 80 and 100; checkpoints after 50 and 100.
        let found = times.seconds(RHYTHM, done(40, false, false));
        assert_eq!(found, Some(120.0 + 40.0 + 6.0 + 7.0));
        let found = times.seconds(RHYTHM, done(40, true, false));
        assert_eq!(found, Some(120.0 + 30.0 + 6.0 + 7.0));
        let end = times.seconds(RHYTHM, done(100, true, true));
        assert_eq!(end, Some(7.0));
    }

    #[test]
    fn before_the_first_evaluation_the_bases_is_the_measure() {
        let mut times = TimeLeft::new(Some(30.0), 0.0);
        times.step(1.0);
        let first = times.seconds(RHYTHM, done(1, false, false));
        assert_eq!(first, Some(99.0 + 5.0 * 30.0));
        times.evaluation(40.0);
        let second = times.seconds(RHYTHM, done(20, true, false));
        assert_eq!(second, Some(80.0 + 4.0 * 40.0));
    }

    #[test]
    fn without_validation_rows_no_evaluation_counts() {
        let mut times = TimeLeft::new(None, 0.0);
        times.step(1.0);
        let rhythm = Rhythm {
            eval_steps: None,
            ..RHYTHM
        };
        assert_eq!(times.seconds(rhythm, done(1, false, false)), Some(99.0));
    }
}
