//! A range of decoder layers, as options name it.

use burn_peft_decoder::DecoderConfig;
use serde::{Deserialize, Serialize};

use crate::Error;

/// `layers = [first, last]`, counted from 0, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerRange([usize; 2]);

impl LayerRange {
    /// The layers from `first` to `last`, both included.
    #[must_use]
    pub fn new(first: usize, last: usize) -> Self {
        Self([first, last])
    }

    /// All layers of `base`.
    pub(crate) fn all(base: &DecoderConfig) -> Self {
        Self([0, base.num_hidden_layers - 1])
    }

    pub(crate) fn first(self) -> usize {
        self.0[0]
    }

    pub(crate) fn last(self) -> usize {
        self.0[1]
    }

    /// Refuses a range that `base` does not have.
    pub(crate) fn check(self, base: &DecoderConfig) -> Result<(), Error> {
        let [first, last] = self.0;
        let layers = base.num_hidden_layers;
        if first <= last && last < layers {
            return Ok(());
        }
        Err(Error::option(
            "layers",
            format!(
                "[{first}, {last}] is no range of layers; the base has 0 to {}",
                layers - 1
            ),
        ))
    }
}
