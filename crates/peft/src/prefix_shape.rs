//! The layout of a prefix: how a table becomes keys and values, and back.

use burn::tensor::{Tensor, backend::Backend, s};
use burn_peft_decoder::{DecoderConfig, LayerKv};

use crate::LayerRange;

crate::options! {
    /// How many heads the keys and values of a prefix have.
    pub enum PrefixHeads {
        /// One key and value for each key/value head, as in PEFT.
        // PEFT had the other before it knew grouped heads.
        Kv = "kv",
        /// One for each query head. PEFT does not load these where query heads share key/value heads.
        Attention = "attention",
    }
}

/// The sizes of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixShape {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    head_dim: usize,
    /// Layers of the base.
    layers: usize,
    /// Those that have a prefix.
    trained: LayerRange,
}

impl PrefixShape {
    /// A prefix of so many tokens for `layers` of `base`; `None` for all of them.
    pub(crate) fn new(
        tokens: usize,
        heads: PrefixHeads,
        layers: Option<LayerRange>,
        base: &DecoderConfig,
    ) -> Self {
        Self {
            tokens,
            heads: match heads {
                PrefixHeads::Kv => base.num_key_value_heads,
                PrefixHeads::Attention => base.num_attention_heads,
            },
            head_dim: base.head_dim,
            layers: base.num_hidden_layers,
            trained: layers.unwrap_or(LayerRange::all(base)),
        }
    }

    /// The sizes of a whole table `[tokens, columns]`, whose width says how many heads it has.
    pub(crate) fn of_table([tokens, columns]: [usize; 2], base: &DecoderConfig) -> Option<Self> {
        [PrefixHeads::Kv, PrefixHeads::Attention]
            .map(|heads| Self::new(tokens, heads, None, base))
            .into_iter()
            .find(|shape| shape.columns() == columns)
    }

    /// Width of one layer's keys: PEFT's `token_dim`.
    pub(crate) fn token_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of the table: a key and a value for each layer that has a prefix.
    pub(crate) fn columns(&self) -> usize {
        2 * self.token_dim() * (self.trained.last() + 1 - self.trained.first())
    }

    /// Columns that the table of all layers has.
    pub(crate) fn all_columns(&self) -> usize {
        2 * self.token_dim() * self.layers
    }

    /// The columns that train, of a table of all layers; both row-major.
    pub(crate) fn trained_columns(&self, table: &[f32]) -> Vec<f32> {
        let first = 2 * self.token_dim() * self.trained.first();
        let rows = table.chunks(self.all_columns());
        rows.flat_map(|row| &row[first..first + self.columns()])
            .copied()
            .collect()
    }

    /// A table `[tokens, columns]` as the keys and values of every layer. Layers without a prefix get zeros.
    ///
    /// PEFT's layout: a row is `[layers · 2, heads, head_dim]`; block `2i` is the key of layer `i`, block
    /// `2i + 1` its value. Keys enter the cache as they are and are never rotated.
    pub(crate) fn split<B: Backend>(&self, table: Tensor<B, 2>) -> Vec<LayerKv<B>> {
        let options = (&table.device(), table.dtype());
        let layer_shape = [self.heads, self.tokens, self.head_dim];
        let (first, last) = (self.trained.first(), self.trained.last());
        let blocks = table
            .reshape([
                self.tokens,
                2 * (last + 1 - first),
                self.heads,
                self.head_dim,
            ])
            .permute([1, 2, 0, 3]); // [trained layers · 2, heads, tokens, head_dim]
        let block = |index: usize| match index.checked_sub(2 * first) {
            Some(index) if index <= 2 * (last - first) + 1 => {
                let block = blocks.clone().slice(s![index..index + 1]);
                block.reshape(layer_shape)
            }
            _ => Tensor::zeros(layer_shape, options),
        };
        (0..self.layers)
            .map(|layer| LayerKv {
                key: block(2 * layer),
                value: block(2 * layer + 1),
            })
            .collect()
    }
}

/// Keys and values of every layer as the table that PEFT saves, `[tokens, layers · 2 · token_dim]`.
///
/// # Panics
/// If there are no layers.
#[must_use]
pub fn prefix_table<B: Backend>(prefix: Vec<LayerKv<B>>) -> Tensor<B, 2> {
    let blocks: Vec<Tensor<B, 3>> = prefix
        .into_iter()
        .flat_map(|LayerKv { key, value }| [key, value])
        .map(|states| states.swap_dims(0, 1)) // [tokens, heads, head_dim]
        .collect();
    Tensor::stack::<4>(blocks, 1).flatten::<2>(1, 3)
}
