//! Keys and values for every layer: a table, optionally through an MLP.
//!
//! With the MLP this is Prefix Tuning (Li and Liang 2021), without it P-Tuning v2 (Liu et al. 2022). An adapter
//! folder holds the keys and values only, not the MLP.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, TensorData, activation, backend::Backend},
};
use burn_peft_decoder::DecoderConfig;

use crate::{
    Adapter, Error, Injection, ModuleListing,
    least_norm::least_norm_layer,
    linear::Linear,
    param::{Init, Source, Start, draw},
    prefix_shape::PrefixShape,
    virtual_tokens::cut_or_repeat,
};

crate::options! {
    /// What the keys and values of a prefix start as.
    pub enum PrefixInit {
        /// The keys and values of random tokens.
        SampleVocab = "sample_vocab",
        /// Zeros. A zero key takes part in the softmax, so the start is near the bare base, not equal to it.
        Zero = "zero",
        /// PEFT's default, random numbers: a table of N(0, 1), and with the MLP what its random layers give.
        Random = "random",
        /// The keys and values of `prefix_init_text`.
        Text = "text",
    }
}

/// The options that both methods share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefixSpec {
    pub(crate) shape: PrefixShape,
    /// Width of the MLP; `None` for no MLP.
    pub(crate) hidden_size: Option<usize>,
    pub(crate) init: PrefixInit,
    pub(crate) dropout: f64,
}

impl PrefixSpec {
    /// Rows of the table, and the width of each.
    fn table(&self) -> [usize; 2] {
        let width = match self.hidden_size {
            Some(_) => self.shape.token_dim(),
            None => self.shape.columns(),
        };
        [self.shape.tokens, width]
    }

    /// Inputs and outputs of the linear layers of an MLP of width `hidden`.
    fn linears(&self, hidden: usize) -> [[usize; 2]; 2] {
        [
            [self.shape.token_dim(), hidden],
            [hidden, self.shape.columns()],
        ]
    }

    /// The listing of PEFT's `PrefixEncoder`.
    pub(crate) fn modules(&self) -> ModuleListing {
        let embedding = ModuleListing::embedding(self.table());
        let listing = ModuleListing::new("PrefixEncoder").child("embedding", embedding);
        let Some(hidden) = self.hidden_size else {
            return listing;
        };
        let [first, last] = self.linears(hidden).map(|l| ModuleListing::linear(l, true));
        let transform = [first, ModuleListing::new("Tanh"), last];
        let transform = ModuleListing::sequence("Sequential", transform);
        listing.child("transform", transform)
    }

    /// A new adapter, or one with given values.
    ///
    /// # Errors
    /// A text to start from that has no tokens.
    pub(crate) fn build<B: Backend>(
        &self,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> Result<Prefix<B>, Error> {
        let target = source.start().map(|start| self.target(start));
        let target = target.transpose()?.flatten();
        let init = match (self.hidden_size, &target) {
            // PyTorch's start of an embedding.
            (Some(_), _) => Init::Normal(1.0),
            (None, Some(target)) => Init::Values(target),
            (None, None) => Init::Zeros,
        };
        let embedding = source.param("embedding.weight", self.table(), init, device);
        let transform = |hidden| {
            let target = target.as_deref();
            self.transform(&embedding, hidden, target, &mut source, device)
        };
        Ok(Prefix {
            transform: self.hidden_size.map(transform),
            embedding,
            dropout: DropoutConfig::new(self.dropout).init(),
            shape: self.shape,
        })
    }

    /// The keys and values to start from, row-major `[tokens, columns]`; `None` for zeros, and where the MLP
    /// makes random ones.
    fn target(&self, start: &Start<'_>) -> Result<Option<Vec<f32>>, Error> {
        let (tokens, random) = (self.shape.tokens, &mut start.fresh_random());
        let table = match self.init {
            PrefixInit::SampleVocab => {
                let vocab = start.base.config().vocab_size;
                let ids = start.tokens.sample(tokens, vocab, random);
                start.base.keys_and_values(&ids, self.shape.heads)
            }
            // As PEFT's `initialize_kv_prefix_from_text` without a chat template, which refuses a text that
            // is too short.
            PrefixInit::Text => {
                let ids = cut_or_repeat(&start.tokens.text_ids, tokens, "prefix_init_text")?;
                start.base.keys_and_values(&ids, self.shape.heads)
            }
            PrefixInit::Random if self.hidden_size.is_none() => {
                let count = tokens * self.shape.all_columns();
                draw(count, Init::Normal(1.0), random)
            }
            PrefixInit::Random | PrefixInit::Zero => return Ok(None),
        };
        Ok(Some(self.shape.trained_columns(&table)))
    }

    /// The MLP. Its last layer is solved for where there is a `target`.
    fn transform<B: Backend>(
        &self,
        embedding: &Param<Tensor<B, 2>>,
        hidden: usize,
        target: Option<&[f32]>,
        source: &mut Source<'_>,
        device: &B::Device,
    ) -> Transform<B> {
        let [first, last] = self.linears(hidden);
        let first = Linear::new("transform.0", first, source, device);
        let solved = target.map(|target| {
            let features = Transform::features(&first, embedding.val()).into_data();
            let features: Vec<f64> = features.iter::<f64>().collect();
            least_norm_layer(&features, target, self.shape.tokens)
        });
        let init = match (&solved, self.init) {
            (Some([weight, bias]), _) => [Init::Values(weight), Init::Values(bias)],
            (None, PrefixInit::Random) => [Init::Uniform(hidden); 2],
            (None, _) => [Init::Zeros; 2],
        };
        Transform {
            transform_2: Linear::starting("transform.2", last, init, source, device),
            transform_0: first,
        }
    }
}

/// A prefix that trains.
#[derive(Module, Debug)]
pub struct Prefix<B: Backend> {
    /// `[num_virtual_tokens, trained layers · 2 · token_dim]`; with an MLP `[num_virtual_tokens, token_dim]`.
    embedding: Param<Tensor<B, 2>>,
    transform: Option<Transform<B>>,
    dropout: Dropout,
    #[module(skip)]
    shape: PrefixShape,
}

/// PEFT's `transform`: two linear layers with a tanh between them.
#[derive(Module, Debug)]
struct Transform<B: Backend> {
    /// `[token_dim → encoder_hidden_size]`.
    transform_0: Linear<B>,
    /// `[encoder_hidden_size → layers · 2 · token_dim]`.
    transform_2: Linear<B>,
}

impl<B: Backend> Transform<B> {
    /// The input of the last layer, `[tokens, encoder_hidden_size]`.
    fn features(first: &Linear<B>, table: Tensor<B, 2>) -> Tensor<B, 2> {
        activation::tanh(first.forward(table))
    }

    fn forward(&self, table: Tensor<B, 2>) -> Tensor<B, 2> {
        self.transform_2
            .forward(Self::features(&self.transform_0, table))
    }
}

impl<B: Backend> Prefix<B> {
    /// An adapter without an MLP, from a table of all layers, `[num_virtual_tokens, layers · 2 · token_dim]`, in
    /// PEFT's layout. The table's width says how many heads it has.
    ///
    /// # Panics
    /// If the table is as wide as neither number of heads asks for.
    #[must_use]
    pub fn from_data(table: TensorData, base: &DecoderConfig, device: &B::Device) -> Self {
        let shape = PrefixShape::of_table([table.shape[0], table.shape[1]], base)
            .expect("a prefix has a key and a value for each layer and head");
        let spec = PrefixSpec {
            shape,
            hidden_size: None,
            init: PrefixInit::Zero,
            dropout: 0.0,
        };
        let given = Source::Given(&|_| table.clone());
        spec.build(given, device)
            .expect("given values start from no text")
    }
}

impl<B: Backend> Adapter<B> for Prefix<B> {
    fn inject(&self) -> Injection<B> {
        let mut table = self.embedding.val();
        if let Some(transform) = &self.transform {
            table = transform.forward(table);
        }
        Injection::Prefix(self.shape.split(self.dropout.forward(table)))
    }
}
