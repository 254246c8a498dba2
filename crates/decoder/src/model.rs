//! The model: embeddings in, hidden states out, and the head.

use burn::{
    module::Module,
    tensor::{DType, Int, Tensor, backend::Backend},
};
use burn_peft_ops::{FrozenWeight, Ops, accumulation_dtype};

use crate::{
    DecoderConfig, Error, LayerBiases,
    layer::{DecoderLayer, FrozenRmsNorm},
    rope::RotaryTable,
    weights::{self, TensorSource},
};

/// A frozen decoder-only language model.
///
/// No field is a `Param`: Burn leaves the model out of records, visitors, parameter counts and
/// optimizers, and cloning it copies handles. An adapter changes what goes in between
/// [`embed`](Self::embed) and [`decode`](Self::decode), or takes a copy
/// [with other biases](Self::with_biases).
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// `[vocab, d_model]`.
    embed_tokens: FrozenWeight<B>,
    pub(crate) layers: Vec<DecoderLayer<B>>,
    pub(crate) norm: FrozenRmsNorm<B>,
    /// `[vocab, d_model]`; absent where the head is the embedding table.
    lm_head: Option<FrozenWeight<B>>,
    pub(crate) rotary: RotaryTable<B>,
    #[module(skip)]
    config: DecoderConfig,
}

impl<B: Backend> Decoder<B> {
    /// # Errors
    /// If a tensor cannot be read.
    pub(crate) fn assemble(
        config: DecoderConfig,
        source: &mut impl TensorSource<B>,
    ) -> Result<Self, Error>
    where
        B: Ops,
    {
        let embed_tokens = source.weight(weights::EMBED_TOKENS)?;
        let rotary = RotaryTable::init(&config, embed_tokens.dtype(), source.device());
        let layers = (0..config.num_hidden_layers)
            .map(|layer| DecoderLayer::assemble(&config, layer, source))
            .collect::<Result<_, _>>()?;
        let norm = FrozenRmsNorm::new(source.tensor(weights::NORM)?, config.rms_norm_eps);
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(source.weight(weights::LM_HEAD)?),
        };
        Ok(Self {
            embed_tokens,
            layers,
            norm,
            lm_head,
            rotary,
            config,
        })
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
        self.norm.device()
    }

    /// The same model with something added to its biases: a copy that shares all the weights.
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
    /// Embeddings of token ids.
    ///
    /// # Shapes
    /// - input_ids: `[batch, seq]`
    /// - output: `[batch, seq, d_model]`
    #[must_use]
    pub fn embed(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, seq] = input_ids.dims();
        let ids = input_ids.reshape([batch * seq]);
        B::frozen_embedding(&self.embed_tokens, ids).reshape([batch, seq, self.config.hidden_size])
    }

    /// The output head, `[vocab, d_model]`: the embedding table where it is tied.
    fn head(&self) -> &FrozenWeight<B> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// The row of the output head that scores token `id`, `[d_model]`, in the model's type.
    #[must_use]
    pub fn head_row(&self, id: usize) -> Tensor<B, 1> {
        let id = Tensor::from_ints([id as i64], &self.device());
        B::frozen_embedding(self.head(), id).squeeze_dim(0)
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
