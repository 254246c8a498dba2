//! `trainer_state.json`: what a run knows besides its tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::RunIdentity;
use crate::metrics::Window;
use crate::record::EvalRecord;
use crate::strategy::BestSoFar;

/// What a run knows besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Steps done; with `steps_per_epoch` and `seed` also the position in the data.
    pub step: usize,
    /// Steps of the run as it was planned then.
    pub total_steps: usize,
    /// Steps of one pass over the rows.
    pub steps_per_epoch: usize,
    /// Epochs done.
    pub epoch: f64,
    /// Seed of the run.
    pub seed: u64,
    /// The best evaluation so far.
    // Older checkpoints know of none.
    #[serde(default)]
    pub(crate) best: BestSoFar,
    /// The learning rate of the last step.
    #[serde(with = "exact")]
    pub(crate) learning_rate: f64,
    /// The last evaluation.
    pub eval: Option<EvalRecord>,
    /// The steps since the last logged record, whose mean the next one is.
    pub(crate) window: Window,
    /// Sums over all steps.
    pub(crate) totals: Totals,
    /// Shape of each parameter in `model.mpk`, by its path in the module.
    pub parameters: BTreeMap<String, Vec<usize>>,
    /// Which run this is.
    pub(crate) run: RunIdentity,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEval {
    /// Steps done.
    pub step: usize,
    /// The metric that makes it the best, as records have it: `eval_loss`, or another one.
    pub metric: String,
    /// Its value.
    #[serde(with = "exact")]
    pub value: f64,
}

/// Sums over all steps of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Of the losses of steps with supervised tokens.
    #[serde(with = "exact")]
    pub(crate) loss: f64,
    /// Steps with supervised tokens.
    pub(crate) steps: usize,
}

/// A number as text, bit for bit: serde_json reads numbers to within a unit in the last place.
pub(crate) mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:?}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_bit_for_bit() {
        for loss in [
            0.1 + 0.2,
            f64::MIN_POSITIVE,
            1e300,
            123.456_789_012_345_67,
            -0.0,
        ] {
            let totals = Totals { loss, steps: 3 };
            let text = serde_json::to_string(&totals).unwrap();
            let read: Totals = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (read.loss.to_bits(), read.steps),
                (loss.to_bits(), 3),
                "{text}"
            );
        }
    }
}
