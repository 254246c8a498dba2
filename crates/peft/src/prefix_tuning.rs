//! Prefix Tuning: keys and values of every layer, made by an MLP that is dropped after training (Li and
//! Liang 2021).

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, TensorData, activation, backend::Backend},
};
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Error, InitTokens, Injection, ModuleListing, PTuningV2Config,
    linear::{self, Linear},
    method::Method,
    param::{Init, Source, trainable},
    prefix::{PrefixHeads, PrefixInit, PrefixShape, check_init, init_warning},
    virtual_tokens::{check_count, check_dropout},
};

/// Options of Prefix Tuning, under PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixTuningConfig {
    /// Length of the prefix, in virtual tokens; absent: the template's, else 20.
    pub num_virtual_tokens: Option<usize>,
    /// Whether an MLP makes the keys and values; without it this is P-Tuning v2.
    pub prefix_projection: bool,
    /// Width of the MLP; absent: that of one layer's keys, as in PEFT.
    pub encoder_hidden_size: Option<usize>,
    /// Heads that the keys and values have.
    pub prefix_heads: PrefixHeads,
    /// What the keys and values start as.
    pub init_weights: PrefixInit,
    /// The text to start from, with `text`.
    pub prefix_init_text: Option<String>,
    /// Dropout on the keys and values while training.
    pub prefix_dropout: f64,
}

impl Default for PrefixTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: None,
            // Li and Liang 2021, §4.3: without it, training is unstable. PEFT's default is without.
            prefix_projection: true,
            encoder_hidden_size: None,
            prefix_heads: PrefixHeads::Kv,
            // As for a table without MLP.
            init_weights: PTuningV2Config::default().init_weights,
            prefix_init_text: None,
            prefix_dropout: 0.0,
        }
    }
}

impl Method for PrefixTuningConfig {
    fn name(&self) -> &'static str {
        "prefix-tuning"
    }

    fn default_learning_rate(&self) -> f64 {
        match self.prefix_projection {
            // Li and Liang 2021 have 5e-5, over many epochs; PEFT's comparison trains prefixes at 5e-3. Between
            // them; the built-in task is trained at 1e-2.
            true => 1e-3,
            false => self.without_projection().default_learning_rate(),
        }
    }

    fn validate(&self) -> Result<(), Error> {
        check_count(self.num_virtual_tokens)?;
        check_dropout("prefix_dropout", self.prefix_dropout)?;
        if self.encoder_hidden_size == Some(0) {
            return Err(Error::option(
                "encoder_hidden_size",
                "it must be at least 1",
            ));
        }
        check_init(self.init_weights, self.prefix_init_text.as_deref())
    }

    fn num_trainable(&self, base: &DecoderConfig) -> usize {
        if !self.prefix_projection {
            return self.without_projection().num_trainable(base);
        }
        let shape = self.shape(base);
        let linears = self.linears(&shape).map(linear::count);
        shape.tokens * shape.token_dim() + linears.iter().sum::<usize>()
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        if !self.prefix_projection {
            return self.without_projection().modules(base);
        }
        let shape = self.shape(base);
        let [first, last] = self.linears(&shape);
        let transform = [
            ModuleListing::linear(first, true),
            ModuleListing::new("Tanh"),
            ModuleListing::linear(last, true),
        ];
        let table = [shape.tokens, shape.token_dim()];
        ModuleListing::new("PrefixEncoder")
            .child("embedding", ModuleListing::embedding(table))
            .child(
                "transform",
                ModuleListing::sequence("Sequential", transform),
            )
    }

    fn num_virtual_tokens(&self) -> Option<Option<usize>> {
        Some(self.num_virtual_tokens)
    }

    fn num_virtual_tokens_mut(&mut self) -> Option<&mut Option<usize>> {
        Some(&mut self.num_virtual_tokens)
    }

    fn init_text(&self) -> Option<&str> {
        let used = self.init_weights == PrefixInit::Text;
        self.prefix_init_text.as_deref().filter(|_| used)
    }

    fn warnings(&self, learning_rate: f64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.prefix_projection {
            if learning_rate > 0.1 {
                warnings.push(format!(
                    "a learning rate of {learning_rate:e} suits bare prompts; the MLP of Prefix Tuning \
                     diverges at such rates"
                ));
            }
        } else {
            warnings.extend(init_warning(self.init_weights, self.prefix_dropout));
            if self.encoder_hidden_size.is_some() {
                warnings.push("method.encoder_hidden_size has no effect without the MLP".into());
            }
        }
        warnings
    }
}

impl PrefixTuningConfig {
    /// The same options for a table without an MLP.
    pub(crate) fn without_projection(&self) -> PTuningV2Config {
        PTuningV2Config {
            num_virtual_tokens: self.num_virtual_tokens,
            layers: None,
            prefix_heads: self.prefix_heads,
            init_weights: self.init_weights,
            prefix_init_text: self.prefix_init_text.clone(),
            prefix_dropout: self.prefix_dropout,
            init_from: None,
        }
    }

    pub(crate) fn shape(&self, base: &DecoderConfig) -> PrefixShape {
        self.without_projection().shape(base)
    }

    /// Width of the MLP.
    pub(crate) fn hidden_size(&self, shape: &PrefixShape) -> usize {
        self.encoder_hidden_size
            .unwrap_or_else(|| shape.token_dim())
    }

    /// Inputs and outputs of its two linear layers.
    fn linears(&self, shape: &PrefixShape) -> [[usize; 2]; 2] {
        let hidden = self.hidden_size(shape);
        [[shape.token_dim(), hidden], [hidden, shape.columns()]]
    }

    /// See [`MethodConfig::init`](crate::MethodConfig::init). Only for options with a projection.
    pub(crate) fn init<B: Ops>(
        &self,
        base: &Decoder<B>,
        tokens: &InitTokens,
        seed: u64,
    ) -> Result<PrefixTuning<B>, Error> {
        let device = base.device();
        let mut adapter = self.build(base.config(), Source::seeded(seed), &device);
        if let PrefixInit::SampleVocab | PrefixInit::Text = self.init_weights {
            let table = adapter.shape.start(self.init_weights, base, tokens, seed)?;
            adapter.fit(&table, &device);
        }
        Ok(adapter)
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> PrefixTuning<B> {
        let shape = self.shape(base);
        let [first, last] = self.linears(&shape);
        let table = [shape.tokens, shape.token_dim()];
        let last_init = match self.init_weights {
            PrefixInit::Random => Init::Uniform(last[0]),
            PrefixInit::SampleVocab | PrefixInit::Zero | PrefixInit::Text => Init::Zeros,
        };
        PrefixTuning {
            embedding: source.param("embedding.weight", table, Init::Normal(1.0), device),
            transform_0: Linear::new("transform.0", first, &mut source, device),
            transform_2: Linear::starting("transform.2", last, last_init, &mut source, device),
            dropout: DropoutConfig::new(self.prefix_dropout).init(),
            shape,
        }
    }
}

/// A table of vectors and the MLP that makes keys and values of them. Only what comes out is saved in an
/// adapter folder.
#[derive(Module, Debug)]
pub struct PrefixTuning<B: Backend> {
    /// `[num_virtual_tokens, token_dim]`.
    embedding: Param<Tensor<B, 2>>,
    /// `[token_dim → encoder_hidden_size]`; a tanh follows.
    transform_0: Linear<B>,
    /// `[encoder_hidden_size → layers · 2 · token_dim]`.
    transform_2: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    shape: PrefixShape,
}

impl<B: Backend> PrefixTuning<B> {
    /// What the last layer sees, `[tokens, encoder_hidden_size]`.
    fn features(&self) -> Tensor<B, 2> {
        activation::tanh(self.transform_0.forward(self.embedding.val()))
    }

    /// Replaces the last layer by the one of least norm that gives `table`, row-major `[tokens, columns]`.
    ///
    /// With features F (a column of ones appended for the bias) the layer is Fᵀ (F Fᵀ)⁻¹ · table: exact
    /// where the MLP is wider than the prefix is long, else the nearest in squared error. The paper trains
    /// the MLP until it gives the keys and values of real words; solving for them is the limit of that.
    fn fit(&mut self, table: &[f32], device: &B::Device) {
        let (tokens, columns) = (self.shape.tokens, self.shape.columns());
        let features = self.features();
        let hidden = features.dims()[1];
        let features: Vec<f64> = features.into_data().iter::<f64>().collect();
        let features: Vec<Vec<f64>> = features
            .chunks(hidden)
            .map(|row| [row, &[1.0]].concat())
            .collect();
        let table = table
            .chunks(columns)
            .map(|row| row.iter().map(|v| f64::from(*v)).collect());
        let dual = solve_gram(&features, table.collect()); // [tokens, columns]
        let entry = |column: usize, feature: usize| -> f64 {
            (0..tokens)
                .map(|token| features[token][feature] * dual[token][column])
                .sum()
        };
        let weight: Vec<f64> = (0..columns)
            .flat_map(|column| (0..hidden).map(move |feature| (column, feature)))
            .map(|(column, feature)| entry(column, feature))
            .collect();
        let bias: Vec<f64> = (0..columns).map(|column| entry(column, hidden)).collect();
        self.transform_2 = Linear {
            weight: trainable(
                "transform.2.weight",
                TensorData::new(weight, [columns, hidden]),
                device,
            ),
            bias: trainable("transform.2.bias", TensorData::new(bias, [columns]), device),
        };
    }
}

impl<B: Backend> Adapter<B> for PrefixTuning<B> {
    fn inject(&self) -> Injection<B> {
        let table = self.transform_2.forward(self.features());
        Injection::Prefix(self.shape.split(self.dropout.forward(table)))
    }
}

/// (F Fᵀ)⁻¹ · table for features F `[tokens, features]` and a table `[tokens, columns]`, by Cholesky's method.
/// Some tens of tokens in f64: a library of linear algebra would be most of this crate.
fn solve_gram(features: &[Vec<f64>], mut table: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let tokens = features.len();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let trace: f64 = features.iter().map(|row| dot(row, row)).sum();
    // Keeps the inverse finite where tokens outnumber features; far below f32's rounding otherwise.
    let ridge = 1e-12 * trace / tokens as f64;
    let mut lower: Vec<Vec<f64>> = Vec::with_capacity(tokens);
    for row in 0..tokens {
        let mut new: Vec<f64> = Vec::with_capacity(row + 1);
        for column in 0..=row {
            let gram = dot(&features[row], &features[column]);
            if column < row {
                new.push((gram - dot(&new, &lower[column][..column])) / lower[column][column]);
            } else {
                new.push((gram + ridge - dot(&new, &new)).max(ridge).sqrt());
            }
        }
        lower.push(new);
    }
    let subtract = |to: usize, from: usize, factor: f64, table: &mut Vec<Vec<f64>>| {
        let source = std::mem::take(&mut table[from]);
        for (value, other) in table[to].iter_mut().zip(&source) {
            *value -= factor * other;
        }
        table[from] = source;
    };
    for row in 0..tokens {
        for (before, factor) in lower[row][..row].iter().enumerate() {
            subtract(row, before, *factor, &mut table);
        }
        table[row]
            .iter_mut()
            .for_each(|value| *value /= lower[row][row]);
    }
    for row in (0..tokens).rev() {
        for (after, factors) in lower.iter().enumerate().skip(row + 1) {
            subtract(row, after, factors[row], &mut table);
        }
        table[row]
            .iter_mut()
            .for_each(|value| *value /= lower[row][row]);
    }
    table
}
