//! What a new adapter may start from, of its base.

use burn::tensor::{Int, Tensor, TensorData};
use burn_peft_decoder::{AttentionMask, Decoder, DecoderConfig, KvCache};
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
        let rows = self.embed(on_device(ids, self)).into_data();
        rows.iter::<f32>().collect()
    }

    fn keys_and_values(&self, ids: &[u32], heads: usize) -> Vec<f32> {
        let layers = self.config().num_hidden_layers;
        let mut cache = KvCache::empty(layers, 1);
        let mask = AttentionMask::full(1, ids.len());
        let hidden = self.embed(on_device(ids, self));
        let _ = self.decode(hidden, &mask, &mut cache, None);
        let layers = (0..layers).map(|layer| cache.row(layer, 0).with_heads(heads));
        let table = prefix_table(layers.collect()).into_data();
        table.iter::<f32>().collect()
    }
}

/// Ids as one row, `[1, ids]`.
fn on_device<B: Ops>(ids: &[u32], base: &Decoder<B>) -> Tensor<B, 2, Int> {
    let values: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), &base.device())
}
