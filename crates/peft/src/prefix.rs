//! What Prefix Tuning and P-Tuning v2 share: a table of keys and values for every layer, its layout, and
//! what it starts from.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend, s};
use burn_peft_decoder::{AttentionMask, Decoder, DecoderConfig, KvCache, LayerKv};
use burn_peft_ops::Ops;
use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{
    Error, InitTokens,
    param::{Init, draw},
    virtual_tokens::cut_or_repeat,
};

/// How many heads a prefix's keys and values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixHeads {
    /// As many as the base has key/value heads: what PEFT has where heads are grouped.
    Kv,
    /// As many as it has query heads: each has a prefix of its own. PEFT had this before it knew
    /// grouped heads, and does not load it on a base that groups them.
    Attention,
}

/// What the keys and values of a prefix start as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixInit {
    /// The keys and values of random tokens. Real ones, of whatever words, do better than random numbers
    /// (Li and Liang 2021, §7.4).
    SampleVocab,
    /// All zero. A zero key takes part in the softmax: the start is near the bare base, not the base.
    Zero,
    /// As PyTorch starts the modules: a table of N(0, 1), and with an MLP what its random layers give.
    Random,
    /// The keys and values of a real text.
    Text,
}

/// The sizes of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixShape {
    pub(crate) tokens: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

impl PrefixShape {
    pub(crate) fn new(tokens: usize, heads: PrefixHeads, base: &DecoderConfig) -> Self {
        Self {
            tokens,
            layers: base.num_hidden_layers,
            heads: match heads {
                PrefixHeads::Kv => base.num_key_value_heads,
                PrefixHeads::Attention => base.num_attention_heads,
            },
            head_dim: base.head_dim,
        }
    }

    /// Width of one layer's keys: PEFT's `token_dim`.
    pub(crate) fn token_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of the table: a key and a value a layer.
    pub(crate) fn columns(&self) -> usize {
        2 * self.layers * self.token_dim()
    }

    /// A table `[tokens, columns]` as keys and values.
    ///
    /// PEFT's layout: a row is `[layers · 2, heads, head_dim]`; block `2i` is the key of layer `i`, block
    /// `2i + 1` its value. Keys enter the cache as they are and are never rotated.
    pub(crate) fn split<B: Backend>(&self, table: Tensor<B, 2>) -> Vec<LayerKv<B>> {
        let blocks = table
            .reshape([self.tokens, 2 * self.layers, self.heads, self.head_dim])
            .permute([1, 2, 0, 3]); // [layers · 2, heads, tokens, head_dim]
        let block = |index: usize| {
            let block = blocks.clone().slice(s![index..index + 1]);
            block.reshape([self.heads, self.tokens, self.head_dim])
        };
        (0..self.layers)
            .map(|layer| LayerKv {
                key: block(2 * layer),
                value: block(2 * layer + 1),
            })
            .collect()
    }

    /// What a prefix starts as, where that does not follow from the parameters of an MLP: row-major
    /// `[tokens, columns]`, f32, on the host.
    ///
    /// # Errors
    /// A text without tokens.
    pub(crate) fn start<B: Ops>(
        &self,
        init: PrefixInit,
        base: &Decoder<B>,
        tokens: &InitTokens,
        seed: u64,
    ) -> Result<Vec<f32>, Error> {
        let random = &mut StdRng::seed_from_u64(seed);
        let count = self.tokens * self.columns();
        Ok(match init {
            PrefixInit::SampleVocab => {
                let ids = tokens.sample(self.tokens, base.config().vocab_size, random);
                self.of_tokens(base, ids)
            }
            PrefixInit::Zero => draw(count, Init::Zeros, random),
            // PyTorch's start of an embedding, which is what PEFT holds the table in.
            PrefixInit::Random => draw(count, Init::Normal(1.0), random),
            // As PEFT's `initialize_kv_prefix_from_text` without a chat template, which refuses a text that
            // is too short.
            PrefixInit::Text => {
                let ids = cut_or_repeat(&tokens.text_ids, self.tokens, "prefix_init_text")?;
                self.of_tokens(base, ids)
            }
        })
    }

    /// The keys and values that the base has for so many tokens at the start of a row.
    fn of_tokens<B: Ops>(&self, base: &Decoder<B>, ids: Vec<u32>) -> Vec<f32> {
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let ids = TensorData::new(ids, [1, self.tokens]);
        let ids = Tensor::<B, 2, Int>::from_data(ids, &base.device());
        let mut cache = KvCache::empty(self.layers, 1);
        let mask = AttentionMask::full(1, self.tokens);
        let _ = base.decode(base.embed(ids), &mask, &mut cache, None);
        let wide = |states: Tensor<B, 3>| repeat_heads(states, self.heads);
        let layers = (0..self.layers)
            .map(|layer| cache.row(layer, 0))
            .map(|LayerKv { key, value }| LayerKv {
                key: wide(key),
                value: wide(value),
            })
            .collect();
        let table = prefix_table(layers).into_data();
        table.iter::<f32>().collect()
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

/// Each head as often as it takes to have `heads` of them, side by side: `[heads, tokens, head_dim]`.
fn repeat_heads<B: Backend>(states: Tensor<B, 3>, heads: usize) -> Tensor<B, 3> {
    let [own, tokens, head_dim] = states.dims();
    Tensor::stack::<4>(vec![states; heads / own], 1).reshape([heads, tokens, head_dim])
}

/// Refuses `init_weights = "text"` without its text.
pub(crate) fn check_init(init: PrefixInit, text: Option<&str>) -> Result<(), Error> {
    if init == PrefixInit::Text && text.unwrap_or_default().is_empty() {
        return Err(Error::option(
            "prefix_init_text",
            "`init_weights = \"text\"` needs a text",
        ));
    }
    Ok(())
}

/// What is known to train badly, of a prefix without an MLP.
pub(crate) fn init_warning(init: PrefixInit, dropout: f64) -> Option<String> {
    match init {
        // PEFT's comparison on MetaMathQA: 18.6 % from random, 35.8 % from zero, 41.6 % from a text.
        PrefixInit::Random => Some(
            "a random prefix is known to train badly; `init_weights = \"sample_vocab\"` or `\"text\"` \
             starts from real keys and values"
                .into(),
        ),
        // Equal tokens get equal gradients. Only dropout tells them apart.
        PrefixInit::Zero if dropout == 0.0 => Some(
            "virtual tokens that all start at zero stay the same as each other, and act as one; \
             `init_weights = \"sample_vocab\"` or some `prefix_dropout` sets them apart"
                .into(),
        ),
        _ => None,
    }
}
