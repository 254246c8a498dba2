//! What a new adapter may start from, of its base.

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_decoder::{AttentionMask, Decoder, DecoderConfig, KvCache, LayerKv};
use burn_peft_ops::Ops;

use crate::prefix_shape::prefix_table;

/// Numbers of a base, read to the host in f32. A trait, because an adapter whose values are given needs no
/// base and no backend that can run one.
pub(crate) trait BaseValues {
    fn config(&self) -> &DecoderConfig;

    /// Rows of the embedding table, row-major `[ids, d_model]`.
    fn embeddings(&self, ids: &[u32]) -> Vec<f32>;

    /// The keys and values that the base has for these tokens at the start of a row, row-major
    /// `[ids, layers · 2 · heads · head_dim]`. `heads` is a multiple of the base's key/value heads, which are
    /// then repeated.
    fn keys_and_values(&self, ids: &[u32], heads: usize) -> Vec<f32>;
}

impl<B: Ops> BaseValues for Decoder<B> {
    fn config(&self) -> &DecoderConfig {
        self.config()
    }

    fn embeddings(&self, ids: &[u32]) -> Vec<f32> {
        let ids = Tensor::<B, 1, Int>::from_data(signed(ids, [ids.len()]), &self.device());
        let rows = self.embedding_table().select(0, ids).into_data();
        rows.iter::<f32>().collect()
    }

    fn keys_and_values(&self, ids: &[u32], heads: usize) -> Vec<f32> {
        let layers = self.config().num_hidden_layers;
        let mut cache = KvCache::empty(layers, 1);
        let mask = AttentionMask::full(1, ids.len());
        let ids = Tensor::<B, 2, Int>::from_data(signed(ids, [1, ids.len()]), &self.device());
        let _ = self.decode(self.embed(ids), &mask, &mut cache);
        let layers = (0..layers)
            .map(|layer| cache.row(layer, 0))
            .map(|LayerKv { key, value }| LayerKv {
                key: repeat_heads(key, heads),
                value: repeat_heads(value, heads),
            });
        let table = prefix_table(layers.collect()).into_data();
        table.iter::<f32>().collect()
    }
}

fn signed<const D: usize>(ids: &[u32], shape: [usize; D]) -> TensorData {
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    TensorData::new(ids, shape)
}

/// Each head as often as it takes to have `heads` of them, side by side: `[heads, tokens, head_dim]`.
fn repeat_heads<B: Ops>(states: Tensor<B, 3>, heads: usize) -> Tensor<B, 3> {
    let [own, tokens, head_dim] = states.dims();
    Tensor::stack::<4>(vec![states; heads / own], 1).reshape([heads, tokens, head_dim])
}
