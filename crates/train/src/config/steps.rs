//! When things happen in a run: numbers of steps, shares of them, and strategies.

use burn_peft::{OptionType, options};
use serde::{Deserialize, Serialize};

/// A number of steps, or a share of all steps of the run, as transformers has both in one key.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Number", into = "Number")]
pub enum Steps {
    /// So many steps.
    Count(usize),
    /// This share of all steps, above 0 and below 1.
    Share(f64),
}

impl Steps {
    /// The number of steps in a run of `total_steps`. A share is rounded up, as in transformers.
    #[must_use]
    pub fn of(self, total_steps: usize) -> usize {
        match self {
            Self::Count(steps) => steps,
            Self::Share(share) => (total_steps as f64 * share).ceil() as usize,
        }
    }
}

impl OptionType for Steps {
    fn kind() -> String {
        "whole number, or below 1 a share of all steps".into()
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number, 0 or more, or a share of the steps, as in 0.1"
)]
enum Number {
    Whole(i64),
    Part(f64),
}

impl TryFrom<Number> for Steps {
    type Error = String;

    fn try_from(number: Number) -> Result<Self, String> {
        let wrong = |number: &dyn std::fmt::Display| {
            format!(
                "{number} is neither a whole number, 0 or more, nor a share of the steps, as in 0.1"
            )
        };
        match number {
            Number::Whole(count) => match usize::try_from(count) {
                Ok(count) => Ok(Self::Count(count)),
                Err(_) => Err(wrong(&count)),
            },
            Number::Part(share) if share > 0.0 && share < 1.0 => Ok(Self::Share(share)),
            // 20.0 is 20, as in transformers. Numbers of steps are far below 2^53.
            Number::Part(count) if (0.0..1e15).contains(&count) && count.fract() == 0.0 => {
                Ok(Self::Count(count as usize))
            }
            Number::Part(number) => Err(wrong(&number)),
        }
    }
}

impl From<Steps> for Number {
    fn from(steps: Steps) -> Self {
        match steps {
            Steps::Count(count) => Self::Whole(i64::try_from(count).unwrap_or(i64::MAX)),
            Steps::Share(share) => Self::Part(share),
        }
    }
}

options! {
    /// When something happens that can happen at any step.
    pub enum IntervalStrategy {
        /// Never.
        No = "no",
        /// After a number of steps.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
    }
}

options! {
    /// When checkpoints are saved.
    pub enum SaveStrategy {
        /// Only where the run is stopped.
        No = "no",
        /// Every `save_steps`.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
        /// After each evaluation that is the best so far.
        Best = "best",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Result<Steps, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_below_one_is_a_share() {
        for (text, expected) in [
            ("0", Steps::Count(0)),
            ("7", Steps::Count(7)),
            ("20.0", Steps::Count(20)),
            ("1.0", Steps::Count(1)),
            ("0.0", Steps::Count(0)),
            ("0.1", Steps::Share(0.1)),
        ] {
            let found = steps(text).unwrap();
            assert_eq!(found, expected, "{text}");
            let written = serde_json::to_string(&found).unwrap();
            assert_eq!(steps(&written).unwrap(), expected, "{text} as {written}");
        }
        for text in ["-1", "1.5", "-0.5", "1e300", "\"all\"", "true"] {
            let message = steps(text).unwrap_err();
            assert!(
                message.contains("a share of the steps"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn a_share_is_rounded_up() {
        // math.ceil(max_steps * num_steps), transformers' TrainerState.compute_steps.
        let cases = [
            (0.1, 60, 6),
            (0.1, 61, 7),
            (0.5, 3, 2),
            (0.001, 7, 1),
            (0.07, 100, 8),
        ];
        for (share, total, expected) in cases {
            assert_eq!(
                Steps::Share(share).of(total),
                expected,
                "{share} of {total}"
            );
        }
        assert_eq!(Steps::Count(5).of(3), 5);
    }
}
