//! Biases of a layer, by module.

use burn::tensor::{Tensor, backend::Backend};

use crate::LayerModule;

/// Biases of one layer, by module: those that a model has, or what an adapter adds to them.
#[derive(Debug, Clone)]
pub struct LayerBiases<B: Backend>([Option<Tensor<B, 1>>; LayerModule::ALL.len()]);

impl<B: Backend> LayerBiases<B> {
    /// The bias of `module`, `[d_out]`, if there is one.
    #[must_use]
    pub fn get(&self, module: LayerModule) -> Option<&Tensor<B, 1>> {
        self.0[module as usize].as_ref()
    }

    /// Sets the bias of `module`, `[d_out]`.
    pub fn set(&mut self, module: LayerModule, bias: Tensor<B, 1>) {
        self.0[module as usize] = Some(bias);
    }

    /// The biases that there are.
    pub fn iter(&self) -> impl Iterator<Item = (LayerModule, &Tensor<B, 1>)> {
        LayerModule::ALL
            .into_iter()
            .filter_map(|module| Some((module, self.get(module)?)))
    }
}

impl<B: Backend> Default for LayerBiases<B> {
    fn default() -> Self {
        Self([const { None }; LayerModule::ALL.len()])
    }
}

impl<B: Backend> FromIterator<(LayerModule, Tensor<B, 1>)> for LayerBiases<B> {
    fn from_iter<I: IntoIterator<Item = (LayerModule, Tensor<B, 1>)>>(biases: I) -> Self {
        let mut all = Self::default();
        for (module, bias) in biases {
            all.set(module, bias);
        }
        all
    }
}
