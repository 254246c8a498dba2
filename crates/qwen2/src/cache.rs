//! Keys and values of the tokens a model has seen.

use burn::tensor::{Tensor, backend::Backend};

use crate::AttentionMask;

/// Keys and values of one layer that are the same for every row, as they enter the cache: after
/// rotary embedding.
#[derive(Debug, Clone)]
pub struct LayerKv<B: Backend> {
    /// `[kv_heads, tokens, head_dim]`.
    pub key: Tensor<B, 3>,
    /// `[kv_heads, tokens, head_dim]`.
    pub value: Tensor<B, 3>,
}

/// The key/value cache of a batch. It owns the mask of what it holds, so that positions and masks
/// of the tokens to come follow from it.
#[derive(Debug, Clone)]
pub struct KvCache<B: Backend> {
    mask: AttentionMask,
    /// Per layer key and value, `[batch, n_kv_heads, kv_len, head_dim]`; absent while empty.
    layers: Vec<Option<[Tensor<B, 4>; 2]>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` rows.
    #[must_use]
    pub fn empty(layers: usize, batch: usize) -> Self {
        Self {
            mask: AttentionMask::full(batch, 0),
            layers: vec![None; layers],
        }
    }

    /// A cache in which every row starts with the same keys and values.
    #[must_use]
    pub fn with_prefix(prefix: Vec<LayerKv<B>>, batch: usize) -> Self {
        let tokens = prefix.first().map_or(0, |layer| layer.key.dims()[1]);
        let to_rows = |states: Tensor<B, 3>| {
            let [heads, tokens, head_dim] = states.dims();
            states
                .unsqueeze::<4>()
                .expand([batch, heads, tokens, head_dim])
        };
        Self {
            mask: AttentionMask::full(batch, tokens),
            layers: prefix
                .into_iter()
                .map(|layer| Some([to_rows(layer.key), to_rows(layer.value)]))
                .collect(),
        }
    }

    /// Positions held, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mask.seq()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most tokens held by any row, padding not counted: the next position.
    #[must_use]
    pub fn longest_row(&self) -> usize {
        (0..self.mask.batch())
            .map(|row| self.mask.row(row).iter().filter(|cell| **cell).count())
            .max()
            .unwrap_or(0)
    }

    /// Notes that `mask`'s cells come next, and returns the mask of everything.
    pub(crate) fn extend(&mut self, mask: &AttentionMask) -> &AttentionMask {
        self.mask = self.mask.then(mask);
        &self.mask
    }

    /// Puts the keys and values of new cells behind those of `layer`, and returns all of them.
    ///
    /// # Shapes
    /// - key, value: `[batch, n_kv_heads, seq, head_dim]`
    /// - output: two of `[batch, n_kv_heads, kv_len, head_dim]`
    pub(crate) fn append(
        &mut self,
        layer: usize,
        key: Tensor<B, 4>,
        value: Tensor<B, 4>,
    ) -> [Tensor<B, 4>; 2] {
        let all = match self.layers[layer].take() {
            None => [key, value],
            Some([past_key, past_value]) => [
                Tensor::cat(vec![past_key, key], 2),
                Tensor::cat(vec![past_value, value], 2),
            ],
        };
        self.layers[layer] = Some(all.clone());
        all
    }
}
