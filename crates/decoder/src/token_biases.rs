//! Biases that differ from token to token, because the tokens are of rows with different adapters.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::{Decoder, LayerBiases, LayerModule};

/// One table a module: a row for each set of biases.
type LayerTables<B> = [Option<Tensor<B, 2>>; LayerModule::ALL.len()];

/// The biases of several adapters, side by side.
#[derive(Debug, Clone)]
pub struct BiasTables<B: Backend> {
    /// Per layer and module, `[sets, d_out]`; absent where no set adds anything.
    layers: Vec<LayerTables<B>>,
    sets: usize,
}

/// The set of each token.
#[derive(Debug, Clone)]
pub(crate) struct TokenBiases<'a, B: Backend> {
    tables: &'a BiasTables<B>,
    /// `[tokens]`.
    sets: Tensor<B, 1, Int>,
}

impl<B: Backend> BiasTables<B> {
    /// Set 0 is the model's own biases; the sets behind it are these with something added. The sums are those of
    /// [`Decoder::with_biases`].
    ///
    /// # Panics
    /// If a set has not as many layers as the model.
    #[must_use]
    pub fn new(model: &Decoder<B>, added: &[Vec<LayerBiases<B>>]) -> Self {
        let models: Vec<Decoder<B>> = std::iter::once(model.clone())
            .chain(added.iter().map(|set| model.with_biases(set.clone())))
            .collect();
        let table = |layer: usize, module: LayerModule| {
            let is_changed = added.iter().any(|set| set[layer].get(module).is_some());
            is_changed.then(|| {
                let width = module.width(model.config());
                let row = |model: &Decoder<B>| {
                    let bias = model.layers[layer].clone().bias_mut(module).take();
                    let none = || Tensor::zeros([width], (&model.device(), model.dtype()));
                    bias.unwrap_or_else(none)
                };
                Tensor::stack(models.iter().map(row).collect(), 0)
            })
        };
        let layers = 0..model.config().num_hidden_layers;
        Self {
            layers: layers
                .map(|layer| LayerModule::ALL.map(|module| table(layer, module)))
                .collect(),
            sets: models.len(),
        }
    }

    /// The sets of some tokens.
    pub(crate) fn of_tokens(&self, sets: &[usize], device: &B::Device) -> TokenBiases<'_, B> {
        assert!(sets.iter().all(|set| *set < self.sets), "a set of biases");
        let indices: Vec<i64> = sets.iter().map(|set| *set as i64).collect();
        TokenBiases {
            tables: self,
            sets: Tensor::from_data(TensorData::new(indices, [sets.len()]), device),
        }
    }
}

impl<B: Backend> TokenBiases<'_, B> {
    /// The bias of each token in `module`, `[tokens, d_out]`, in place of the module's own.
    pub(crate) fn get(&self, layer: usize, module: LayerModule) -> Option<Tensor<B, 2>> {
        let table = self.tables.layers[layer][module as usize].as_ref()?;
        Some(table.clone().select(0, self.sets.clone()))
    }

    /// Those of some of the tokens.
    pub(crate) fn at(&self, cells: Tensor<B, 1, Int>) -> Self {
        Self {
            tables: self.tables,
            sets: self.sets.clone().select(0, cells),
        }
    }
}
