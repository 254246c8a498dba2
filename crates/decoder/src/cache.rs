//! Keys and values of the tokens a model has seen.

use burn::tensor::{DType, Tensor, backend::Backend, s};

use burn_peft_ops::Ops;

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

impl<B: Backend> LayerKv<B> {
    /// The same in another type.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        Self {
            key: self.key.cast(dtype),
            value: self.value.cast(dtype),
        }
    }

    /// The same with each head as often as it takes to have `heads` of them, side by side.
    ///
    /// # Panics
    /// If `heads` is no multiple of the heads that there are.
    #[must_use]
    pub fn with_heads(self, heads: usize) -> Self {
        let repeat = |states: Tensor<B, 3>| repeat_heads(states.unsqueeze(), heads).squeeze_dim(0);
        Self {
            key: repeat(self.key),
            value: repeat(self.value),
        }
    }
}

/// The key/value cache of a batch. It owns the mask of what it holds, so that positions and masks
/// of the tokens to come follow from it.
#[derive(Debug, Clone)]
pub struct KvCache<B: Backend> {
    mask: AttentionMask,
    /// Per row and prefix token, the cell of the first cells to come that it stands in front of;
    /// `None` where the prefix stands in front of them all, and from then on.
    prefix_before: Option<Vec<Vec<usize>>>,
    /// Per layer key and value, `[batch, heads, kv_len or more, head_dim]`; absent while empty.
    layers: Vec<Option<[Tensor<B, 4>; 2]>>,
    /// Whether there may be more room than is filled; see [`reserve`](Self::reserve).
    roomy: bool,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `batch` rows.
    #[must_use]
    pub fn empty(layers: usize, batch: usize) -> Self {
        Self {
            mask: AttentionMask::full(batch, 0),
            prefix_before: None,
            layers: vec![None; layers],
            roomy: false,
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
            roomy: false,
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
        let len = self.len();
        let [key, value] =
            held.map(|states| states.slice(s![row..row + 1, .., ..len]).squeeze_dim(0));
        LayerKv { key, value }
    }

    /// Forgets every cell from `len` on, for rows that go on otherwise than before. Nothing is forgotten if no more
    /// cells are held.
    ///
    /// # Panics
    /// If a prefix [stands among](Self::prefix_among) the cells that are forgotten, or among some that did not come yet.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        assert!(
            self.prefix_before.is_none(),
            "a prefix whose place is not decided yet"
        );
        // The tensors stay as they are: what is behind the mask's end is written over.
        self.mask = self.mask.first(len);
    }

    /// Makes room for `more` cells, so that what comes next is written in place instead of a longer copy
    /// being made of everything. For generation: a tracked tensor would be copied all the same.
    pub(crate) fn reserve(&mut self, more: usize) {
        let len = self.len();
        for states in self.layers.iter_mut().flatten().flatten() {
            let [batch, heads, held, head_dim] = states.dims();
            if self.roomy && held >= len + more {
                continue;
            }
            let options = (&states.device(), states.dtype());
            let room = Tensor::zeros([batch, heads, len + more, head_dim], options);
            let filled = states.clone().slice(s![.., .., ..len, ..]);
            *states = room.slice_assign(s![.., .., ..len, ..], filled);
        }
        self.roomy = true;
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
            roomy: self.roomy,
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
}

impl<B: Ops> KvCache<B> {
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
        let Some(held) = self.layers[layer].take() else {
            self.layers[layer] = Some([key.clone(), value.clone()]);
            return [key, value];
        };
        let heads = held[0].dims()[1];
        let new = [key, value].map(|states| repeat_heads(states, heads));
        let (count, end) = (new[0].dims()[2], self.len());
        // Where there is no room nothing must be written in place: others may hold what is held here.
        let fits = self.roomy && end <= held[0].dims()[2];
        let batch = held[0].dims()[0];
        let cells = |row| (end - count..end).map(move |cell| [row, cell]);
        let places: Vec<_> = (0..batch).flat_map(cells).collect();
        let mut new = new.into_iter();
        let held = held.map(|held| {
            let new = new.next().expect("a key and a value");
            match fits {
                true => {
                    // Tokens in one list, each row's behind those of the row before it.
                    let [batch, heads, _, head_dim] = new.dims();
                    let new = new.swap_dims(0, 1);
                    let new = new.reshape([1, heads, batch * count, head_dim]);
                    B::write_cells(held, new, &places)
                }
                false => {
                    let past = match held.dims()[2] > end - count {
                        true => held.slice(s![.., .., ..end - count, ..]),
                        false => held,
                    };
                    // As the new ones come from their projection: a token's heads side by side.
                    let tokens = [past, new].map(|states| states.swap_dims(1, 2));
                    Tensor::cat(tokens.into(), 1).swap_dims(1, 2)
                }
            }
        });
        let all = held.each_ref().map(|held| match fits {
            true => held.clone().slice(s![.., .., ..end, ..]),
            false => held.clone(),
        });
        self.layers[layer] = Some(held);
        all
    }
}

/// Each head as often as it takes to have `heads` of them, side by side: `[batch, heads, seq, head_dim]`.
pub(crate) fn repeat_heads<B: Backend>(states: Tensor<B, 4>, heads: usize) -> Tensor<B, 4> {
    let [batch, own, seq, head_dim] = states.dims();
    if own == heads {
        return states;
    }
    assert!(heads.is_multiple_of(own), "{own} heads repeated to {heads}");
    // Stacked and not expanded: Burn 0.21 may misread an expanded view that is reshaped (#5071).
    Tensor::stack::<5>(vec![states; heads / own], 2).reshape([batch, heads, seq, head_dim])
}
