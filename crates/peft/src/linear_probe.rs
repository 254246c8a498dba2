//! A linear probe: the head of a task alone, on a base that is as it was. What an adapter adds is measured against it.

use burn::tensor::backend::Backend;
use burn_peft_decoder::DecoderConfig;

use crate::{
    Error, ModuleListing, NoAdapter,
    method::{Method, RateBasis},
    param::Source,
};

crate::options! {
    /// Options of the linear probe: it has none.
    pub struct LinearProbeConfig {}
}

impl Method for LinearProbeConfig {
    fn default_learning_rate(&self, _base: RateBasis<'_>) -> f64 {
        // docs/results.md: the best of three. Nothing moves beside it.
        1e-2
    }

    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }

    fn modules(&self, _base: &DecoderConfig) -> ModuleListing {
        ModuleListing::nothing()
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }
}

impl LinearProbeConfig {
    pub(crate) fn build<B: Backend>(
        &self,
        _base: &DecoderConfig,
        _source: Source<'_>,
        _device: &B::Device,
    ) -> Result<NoAdapter<B>, Error> {
        Ok(NoAdapter::default())
    }
}
