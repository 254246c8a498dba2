//! The model: embeddings in, hidden states out, and the head.

use burn::{
    module::Module,
    tensor::{DType, Int, Tensor, TensorData, backend::Backend},
};
use burn_peft_ops::{Ops, SharedPrompt, accumulation_dtype};

use crate::{
    AttentionMask, DecoderConfig, KvCache, LayerBiases,
    decoder::{DecoderLayer, FrozenRmsNorm, Pass, Sight},
    mask::Positions,
    rope::RotaryTable,
    weights::{self, TensorSource},
};

/// Qwen2 or Qwen2.5, frozen.
///
/// Every field is a plain tensor, not a `Param`: Burn leaves it out of records, visitors, parameter
/// counts and optimizers, and cloning it copies handles. Its surface is [`embed`](Self::embed),
/// [`decode`](Self::decode), [`logits`](Self::logits); whoever wants to change what goes in does so
/// between the first two.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// `[vocab, d_model]`.
    embed_tokens: Tensor<B, 2>,
    pub(crate) layers: Vec<DecoderLayer<B>>,
    pub(crate) norm: FrozenRmsNorm<B>,
    /// `[vocab, d_model]`; absent where the head is the embedding table.
    lm_head: Option<Tensor<B, 2>>,
    rotary: RotaryTable<B>,
    #[module(skip)]
    config: DecoderConfig,
}

impl<B: Backend> Decoder<B> {
    pub(crate) fn assemble(config: DecoderConfig, source: &mut impl TensorSource<B>) -> Self {
        let embed_tokens: Tensor<B, 2> = source.tensor(weights::EMBED_TOKENS);
        let rotary = RotaryTable::init(&config, embed_tokens.dtype(), source.device());
        Self {
            embed_tokens,
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::assemble(&config, layer, source))
                .collect(),
            norm: FrozenRmsNorm::new(source.tensor(weights::NORM), config.rms_norm_eps),
            lm_head: (!config.tie_word_embeddings).then(|| source.tensor(weights::LM_HEAD)),
            rotary,
            config,
        }
    }

    /// The architecture.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The type of every weight, and of the hidden states.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.embed_tokens.dtype()
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> B::Device {
        self.embed_tokens.device()
    }

    /// Embeddings of token ids.
    ///
    /// # Shapes
    /// - input_ids: `[batch, seq]`
    /// - output: `[batch, seq, d_model]`
    #[must_use]
    pub fn embed(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, seq] = input_ids.dims();
        self.embed_tokens
            .clone()
            .select(0, input_ids.reshape([batch * seq]))
            .reshape([batch, seq, self.config.hidden_size])
    }

    /// The embedding table, `[vocab, d_model]`.
    #[must_use]
    pub fn embedding_table(&self) -> Tensor<B, 2> {
        self.embed_tokens.clone()
    }

    /// The output head, `[vocab, d_model]`: the embedding table where it is tied.
    #[must_use]
    pub fn head(&self) -> Tensor<B, 2> {
        self.lm_head
            .clone()
            .unwrap_or_else(|| self.embed_tokens.clone())
    }

    /// The same model with something added to its biases: a changed copy that shares all the weights.
    /// The sum is taken in the type of what is added, f32 at least, and rounded once.
    ///
    /// # Panics
    /// If there is not one set of biases per layer.
    #[must_use]
    pub fn with_biases(&self, biases: Vec<LayerBiases<B>>) -> Self {
        assert_eq!(biases.len(), self.layers.len(), "one set of biases a layer");
        let dtype = self.dtype();
        let mut model = self.clone();
        for (layer, added) in model.layers.iter_mut().zip(biases) {
            for (module, delta) in added.iter() {
                let bias = layer.bias_mut(module);
                let sum = match bias.take() {
                    Some(own) => own.cast(delta.dtype()) + delta.clone(),
                    None => delta.clone(),
                };
                *bias = Some(sum.cast(dtype));
            }
        }
        model
    }
}

impl<B: Ops> Decoder<B> {
    /// Runs the decoder over `hidden` and notes its keys and values in `cache`. Positions and
    /// causality follow from what the cache holds and from `mask`.
    ///
    /// # Shapes
    /// - hidden: `[batch, seq, d_model]`, in the model's dtype
    /// - mask: `[batch, seq]`, of these cells only
    /// - output: `[batch, seq, d_model]`, behind the last norm
    #[must_use]
    pub fn decode(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        let shape = hidden.dims();
        self.run(None, cache, |cache| self.start(hidden, mask, cache))
            .reshape(shape)
    }

    /// [`decode`](Self::decode) for who reads some cells only: behind the attention of the last layer
    /// nothing is computed for the others. The cache gets the keys and values of all.
    ///
    /// # Shapes
    /// - cells: of the row-major `[batch, seq]`
    /// - output: `[cells, d_model]`
    #[must_use]
    pub fn decode_cells(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        cache: &mut KvCache<B>,
        cells: &[usize],
    ) -> Tensor<B, 2> {
        let cells = cell_indices(cells, &hidden.device());
        self.run(Some(cells), cache, |cache| self.start(hidden, mask, cache))
    }

    /// [`decode_cells`](Self::decode_cells) of rows behind a prompt that they share. What its tokens are to the
    /// rows does not depend on the rows: they run once, beside them. Nothing is cached.
    ///
    /// # Shapes
    /// - prompt: `[tokens, d_model]`, in the model's dtype
    /// - cells: of the row-major `[batch, seq]`, and behind them the prompt's tokens
    #[must_use]
    pub fn decode_behind(
        &self,
        prompt: Tensor<B, 2>,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        cells: &[usize],
    ) -> Tensor<B, 2> {
        let cells = cell_indices(cells, &hidden.device());
        self.run(Some(cells), &mut KvCache::empty(0, 0), |_| {
            self.start_behind(prompt, hidden, mask)
        })
    }

    fn run(
        &self,
        cells: Option<Tensor<B, 1, Int>>,
        cache: &mut KvCache<B>,
        start: impl FnOnce(&mut KvCache<B>) -> (Pass<B>, Tensor<B, 2>) + Send,
    ) -> Tensor<B, 2> {
        B::run_step(&self.device(), || {
            let (pass, mut hidden) = start(cache);
            for (index, layer) in self.layers.iter().enumerate() {
                let cells = self.cells_of(index, &cells);
                hidden = layer.forward(index, hidden, cells, &pass, cache);
            }
            self.norm.forward(hidden)
        })
    }

    /// The cells whose output a layer is asked for: of those that are read, if that is the last one.
    pub(crate) fn cells_of(
        &self,
        layer: usize,
        cells: &Option<Tensor<B, 1, Int>>,
    ) -> Option<Tensor<B, 1, Int>> {
        let last = layer + 1 == self.layers.len();
        cells.clone().filter(|_| last)
    }

    /// What all layers share, and the first one's input, `[batch · seq, d_model]`.
    pub(crate) fn start(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        cache: &mut KvCache<B>,
    ) -> (Pass<B>, Tensor<B, 2>) {
        let [batch, seq, d_model] = hidden.dims();
        debug_assert_eq!(
            hidden.dtype(),
            self.dtype(),
            "hidden states of another type"
        );
        let all = cache.extend(mask);
        let [cos, sin] = self.rotary.at(&all.positions(seq), seq);
        let mask = B::score_mask(all.visibility(seq), self.dtype(), &hidden.device());
        let pass = Pass {
            batch,
            seq,
            cos,
            sin,
            sight: Sight::Cache(mask),
        };
        (pass, hidden.reshape([batch * seq, d_model]))
    }

    /// The same of rows behind a prompt: the input is `[batch · seq + tokens, d_model]`, as one row.
    pub(crate) fn start_behind(
        &self,
        prompt: Tensor<B, 2>,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
    ) -> (Pass<B>, Tensor<B, 2>) {
        let ([batch, seq, d_model], tokens) = (hidden.dims(), prompt.dims()[0]);
        debug_assert!(
            [prompt.dtype(), hidden.dtype()] == [self.dtype(); 2],
            "hidden states of another type"
        );
        let all = AttentionMask::full(batch, tokens).then(mask);
        let positions = all.positions(seq).rows(batch, seq).concat();
        let positions = Positions::PerRow(vec![positions.into_iter().chain(0..tokens).collect()]);
        let seq_of_all = batch * seq + tokens;
        let [cos, sin] = self.rotary.at(&positions, seq_of_all);
        let score_mask = |mask: &AttentionMask, seq| {
            B::score_mask(mask.visibility(seq), self.dtype(), &hidden.device())
        };
        let shared = SharedPrompt {
            batch,
            seq,
            row_mask: score_mask(&all, seq),
            prompt_mask: score_mask(&AttentionMask::full(1, tokens), tokens),
        };
        let pass = Pass {
            batch: 1,
            seq: seq_of_all,
            cos,
            sin,
            sight: Sight::Prompt(shared),
        };
        let hidden = hidden.reshape([batch * seq, d_model]);
        (pass, Tensor::cat(vec![hidden, prompt], 0))
    }

    /// Scores of every next token, in f32.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`, as [`decode`](Self::decode) returns them
    /// - output: `[tokens, vocab]`
    #[must_use]
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        B::frozen_linear(hidden, self.head(), None).cast(accumulation_dtype(self.dtype()))
    }

    /// Negative log-likelihood of `targets` given the hidden states in front of them, in f32.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`, as [`decode`](Self::decode) returns them
    /// - targets, output: `[tokens]`
    #[must_use]
    pub fn token_losses(&self, hidden: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
        B::linear_cross_entropy(hidden, self.head(), targets)
    }
}

/// Indices on the device.
pub(crate) fn cell_indices<B: Backend>(cells: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let indices: Vec<i64> = cells.iter().map(|cell| *cell as i64).collect();
    Tensor::from_data(TensorData::new(indices, [cells.len()]), device)
}
