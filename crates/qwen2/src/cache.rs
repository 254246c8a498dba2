//! Keys and values of the tokens a model has seen.

use burn::tensor::{Tensor, backend::Backend, s};

use crate::AttentionMask;

/// Keys and values of one layer that are the same for every row, as they enter the cache: after
/// rotary embedding.
#[derive(Debug, Clone)]
pub struct LayerKv<B: Backend> {
    /// `[heads, tokens, head_dim]`; as many heads as the model has keys, or as it has queries.
    pub key: Tensor<B, 3>,
    /// `[heads, tokens, head_dim]`.
    pub value: Tensor<B, 3>,
}

/// The key/value cache of a batch. It owns the mask of what it holds, so that positions and masks
/// of the tokens to come follow from it.
#[derive(Debug, Clone)]
pub struct KvCache<B: Backend> {
    mask: AttentionMask,
    /// Per row and prefix token, the cell of the first cells to come that it stands in front of;
    /// `None` where the prefix stands in front of them all, and from then on.
    prefix_before: Option<Vec<Vec<usize>>>,
    /// Per layer key and value, `[batch, heads, kv_len, head_dim]`; absent while empty.
    layers: Vec<Option<[Tensor<B, 4>; 2]>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` rows.
    #[must_use]
    pub fn empty(layers: usize, batch: usize) -> Self {
        Self {
            mask: AttentionMask::full(batch, 0),
            prefix_before: None,
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
            prefix_before: None,
            layers: prefix
                .into_iter()
                .map(|layer| Some([to_rows(layer.key), to_rows(layer.value)]))
                .collect(),
        }
    }

    /// The same prefix, standing among the first cells to come: token `i` of row `r` in front of cell
    /// `before[r][i]`. Cells in front of it do not see it, and take the positions before it.
    #[must_use]
    pub fn prefix_among(mut self, before: Vec<Vec<usize>>) -> Self {
        self.prefix_before = Some(before);
        self
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

    /// The keys and values of one row in layer `layer`, padding included.
    ///
    /// # Panics
    /// If nothing is held there.
    #[must_use]
    pub fn row(&self, layer: usize, row: usize) -> LayerKv<B> {
        let held = self.layers[layer]
            .clone()
            .expect("a cache that holds something");
        let [key, value] = held.map(|states| states.slice(s![row..row + 1]).squeeze_dim(0));
        LayerKv { key, value }
    }

    /// The same with other tensors, as `states` makes them.
    pub(crate) fn map<C: Backend>(
        self,
        states: impl Fn(Tensor<B, 4>) -> Tensor<C, 4>,
    ) -> KvCache<C> {
        let layers = self.layers.into_iter();
        KvCache {
            mask: self.mask,
            prefix_before: self.prefix_before,
            layers: layers
                .map(|layer| layer.map(|held| held.map(&states)))
                .collect(),
        }
    }

    /// Takes out what a layer holds, if anything.
    pub(crate) fn take(&mut self, layer: usize) -> Option<[Tensor<B, 4>; 2]> {
        self.layers[layer].take()
    }

    /// Lets a layer hold these.
    pub(crate) fn put(&mut self, layer: usize, states: [Tensor<B, 4>; 2]) {
        self.layers[layer] = Some(states);
    }

    /// Notes that `mask`'s cells come next, and returns the mask of everything.
    pub(crate) fn extend(&mut self, mask: &AttentionMask) -> &AttentionMask {
        self.mask = match self.prefix_before.take() {
            Some(before) => self.mask.among(mask, &before),
            None => self.mask.then(mask),
        };
        &self.mask
    }

    /// Puts the keys and values of new cells behind those of `layer`, and returns all of them. Where
    /// a prefix has a head for every query, the new ones are repeated to as many.
    ///
    /// # Shapes
    /// - key, value: `[batch, n_kv_heads, seq, head_dim]`
    /// - output: two of `[batch, heads, kv_len, head_dim]`
    pub(crate) fn append(
        &mut self,
        layer: usize,
        key: Tensor<B, 4>,
        value: Tensor<B, 4>,
    ) -> [Tensor<B, 4>; 2] {
        let all = match self.layers[layer].take() {
            None => [key, value],
            Some([past_key, past_value]) => {
                let heads = past_key.dims()[1];
                [
                    Tensor::cat(vec![past_key, repeat_heads(key, heads)], 2),
                    Tensor::cat(vec![past_value, repeat_heads(value, heads)], 2),
                ]
            }
        };
        self.layers[layer] = Some(all.clone());
        all
    }
}

/// Each head as often as it takes to have `heads` of them, side by side: `[batch, heads, seq, head_dim]`.
fn repeat_heads<B: Backend>(states: Tensor<B, 4>, heads: usize) -> Tensor<B, 4> {
    let [batch, own, seq, head_dim] = states.dims();
    if own == heads {
        return states;
    }
    // Stacked and not expanded: Burn 0.21 may misread an expanded view that is reshaped (#5071).
    Tensor::stack::<5>(vec![states; heads / own], 2).reshape([batch, heads, seq, head_dim])
}
