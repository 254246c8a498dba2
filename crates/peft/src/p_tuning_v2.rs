//! P-Tuning v2: keys and values of every layer, learned directly (Liu et al. 2022). What PEFT calls Prefix
//! Tuning without projection.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, TensorData, backend::Backend, s},
};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Error, InitTokens, Injection, ModuleListing,
    layers::LayerRange,
    method::Method,
    param::trainable,
    prefix::{PrefixHeads, PrefixInit, PrefixShape, check_init, init_warning},
    virtual_tokens::{DEFAULT_TOKENS, check_count, check_dropout},
};

/// Options of P-Tuning v2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PTuningV2Config {
    /// Length of the prompt, in virtual tokens; absent: the template's, else 20.
    pub num_virtual_tokens: Option<usize>,
    /// First and last layer that get a prompt; absent: all do. The other layers get keys and values of
    /// zero, so that PEFT, which knows no range, computes the same.
    pub layers: Option<LayerRange>,
    /// Heads that the keys and values have.
    pub prefix_heads: PrefixHeads,
    /// What the keys and values start as.
    pub init_weights: PrefixInit,
    /// The text to start from, with `text`.
    pub prefix_init_text: Option<String>,
    /// Dropout on the keys and values while training.
    pub prefix_dropout: f64,
    /// An adapter folder to start from, in place of `init_weights`.
    pub init_from: Option<String>,
}

impl Default for PTuningV2Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: None,
            layers: None,
            prefix_heads: PrefixHeads::Kv,
            // Li and Liang 2021, §7.4; PEFT's comparison on MetaMathQA: 41.6 % from the keys and values of a
            // text, 35.8 % from zero, 18.6 % from random.
            init_weights: PrefixInit::SampleVocab,
            prefix_init_text: None,
            prefix_dropout: 0.0,
            init_from: None,
        }
    }
}

impl Method for PTuningV2Config {
    fn name(&self) -> &'static str {
        "p-tuning-v2"
    }

    fn default_learning_rate(&self) -> f64 {
        // Liu et al. 2022, appendix: 5e-3 to 6e-2; PEFT's comparison has 5e-3 from zero.
        5e-3
    }

    fn validate(&self) -> Result<(), Error> {
        check_count(self.num_virtual_tokens)?;
        check_dropout("prefix_dropout", self.prefix_dropout)?;
        check_init(self.init_weights, self.prefix_init_text.as_deref())
    }

    fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        self.layers.map_or(Ok(()), |range| range.check(base))
    }

    fn num_trainable(&self, base: &DecoderConfig) -> usize {
        let shape = self.shape(base);
        shape.tokens * self.columns(&shape).len()
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let shape = self.shape(base);
        let table = [shape.tokens, self.columns(&shape).len()];
        ModuleListing::new("PrefixEncoder").child("embedding", ModuleListing::embedding(table))
    }

    fn num_virtual_tokens(&self) -> Option<Option<usize>> {
        Some(self.num_virtual_tokens)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn init_text(&self) -> Option<&str> {
        let used = self.init_weights == PrefixInit::Text && self.init_from.is_none();
        self.prefix_init_text.as_deref().filter(|_| used)
    }

    fn init_from(&self) -> Option<&str> {
        self.init_from.as_deref()
    }

    fn warnings(&self, _learning_rate: f64) -> Vec<String> {
        let init = self.init_from.is_none().then_some(self.init_weights);
        init.and_then(|init| init_warning(init, self.prefix_dropout))
            .into_iter()
            .collect()
    }
}

impl PTuningV2Config {
    pub(crate) fn shape(&self, base: &DecoderConfig) -> PrefixShape {
        let tokens = self.num_virtual_tokens.unwrap_or(DEFAULT_TOKENS);
        PrefixShape::new(tokens, self.prefix_heads, base)
    }

    /// The columns of the whole table that are trained.
    fn columns(&self, shape: &PrefixShape) -> std::ops::Range<usize> {
        let layer = 2 * shape.token_dim();
        match self.layers {
            Some(range) => range.first() * layer..(range.last() + 1) * layer,
            None => 0..shape.columns(),
        }
    }

    /// See [`MethodConfig::init`](crate::MethodConfig::init).
    pub(crate) fn init<B: Ops>(
        &self,
        base: &Decoder<B>,
        tokens: &InitTokens,
        seed: u64,
    ) -> Result<PTuningV2<B>, Error> {
        let shape = self.shape(base.config());
        let table = shape.start(self.init_weights, base, tokens, seed)?;
        let table = TensorData::new(table, [shape.tokens, shape.columns()]);
        Ok(self.with_table(table, base.config(), &base.device()))
    }

    /// An adapter from a whole table, `[tokens, columns]`, of which only the trained layers are kept.
    pub(crate) fn with_table<B: Backend>(
        &self,
        table: TensorData,
        base: &DecoderConfig,
        device: &B::Device,
    ) -> PTuningV2<B> {
        let shape = self.shape(base);
        let columns = self.columns(&shape);
        let rows: Vec<f64> = table.iter::<f64>().collect();
        let kept = rows
            .chunks(shape.columns())
            .flat_map(|row| &row[columns.clone()]);
        let kept = TensorData::new(
            kept.copied().collect::<Vec<f64>>(),
            [shape.tokens, columns.len()],
        );
        PTuningV2 {
            embedding: trainable("embedding.weight", kept, device),
            dropout: DropoutConfig::new(self.prefix_dropout).init(),
            first_column: columns.start,
            shape,
        }
    }
}

/// A table of keys and values for the layers that have a prompt.
#[derive(Module, Debug)]
pub struct PTuningV2<B: Backend> {
    /// `[num_virtual_tokens, trained layers · 2 · token_dim]`.
    embedding: Param<Tensor<B, 2>>,
    dropout: Dropout,
    /// Where these columns begin in the table of all layers.
    first_column: usize,
    #[module(skip)]
    shape: PrefixShape,
}

impl<B: Backend> PTuningV2<B> {
    /// An adapter from a table of all layers, `[num_virtual_tokens, layers · 2 · token_dim]`, in PEFT's
    /// layout. The table's width says how many heads it has.
    ///
    /// # Panics
    /// If the table is as wide as neither number of heads asks for.
    #[must_use]
    pub fn from_data(table: TensorData, base: &DecoderConfig, device: &B::Device) -> Self {
        let [tokens, columns] = [table.shape[0], table.shape[1]];
        let config = [PrefixHeads::Kv, PrefixHeads::Attention]
            .map(|prefix_heads| PTuningV2Config {
                num_virtual_tokens: Some(tokens),
                prefix_heads,
                ..PTuningV2Config::default()
            })
            .into_iter()
            .find(|config| config.shape(base).columns() == columns)
            .expect("a prefix has a key and a value for each layer and head");
        config.with_table(table, base, device)
    }
}

impl<B: Backend> Adapter<B> for PTuningV2<B> {
    fn inject(&self) -> Injection<B> {
        let trained = self.dropout.forward(self.embedding.val());
        let [tokens, width] = trained.dims();
        let columns = self.shape.columns();
        let table = if width == columns {
            trained
        } else {
            let options = (&trained.device(), trained.dtype());
            let columns_trained = s![.., self.first_column..self.first_column + width];
            Tensor::zeros([tokens, columns], options).slice_assign(columns_trained, trained)
        };
        Injection::Prefix(self.shape.split(table))
    }
}
