//! What is random in a step.

use std::sync::{Arc, Mutex, PoisonError};

/// The seed of the step under way, which the training loop sets and the model's micro-batches draw theirs from. Clones are
/// of the same. Until it is set, the micro-batches of a step draw one after the other from whatever there is.
#[derive(Debug, Clone, Default)]
pub struct StepSeed(Arc<Mutex<Option<u64>>>);

impl StepSeed {
    /// A step begins.
    pub fn set(&self, seed: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seed);
    }

    /// The seed of a micro-batch by its number in the step, whichever process computes it. That of the first is the step's.
    pub(super) fn of_micro_batch(&self, index: usize) -> Option<u64> {
        // A multiplier of SplitMix64 (Steele et al. 2014) that is not the one between steps.
        const APART: u64 = 0xbf58_476d_1ce4_e5b9;
        let step = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(step?.wrapping_add((index as u64).wrapping_mul(APART)))
    }
}
