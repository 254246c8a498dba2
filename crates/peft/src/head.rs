//! A head: what it makes of hidden states in place of the language-model head.

use burn::{
    module::{Module, Param, ParamId},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, TensorData, backend::Backend},
};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal};

use crate::{param::given, param_id};

/// The spread of a new head's weights: transformers' `initializer_range`.
const INITIALIZER_RANGE: f64 = 0.02;

/// The names of the parameters.
const WEIGHT: &str = "head.weight";
const BIAS: &str = "head.bias";

/// Which states a head reads, and what its outputs mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// The class of a row, at its last token: the `score` of transformers' `ForSequenceClassification`.
    Sequence,
    /// The class of each token: the `score` of `ForTokenClassification`.
    Token,
    /// Whether an answer starts and ends at a token: the `qa_outputs` of `ForQuestionAnswering`.
    Span,
}

impl HeadKind {
    /// Whether the head has a bias, as in transformers.
    #[must_use]
    pub fn has_bias(self) -> bool {
        self != Self::Sequence
    }
}

/// A linear layer over the hidden states of a base.
#[derive(Module, Debug)]
pub struct Head<B: Backend> {
    /// `[outputs, d_model]`.
    weight: Param<Tensor<B, 2>>,
    /// `[outputs]`.
    bias: Option<Param<Tensor<B, 1>>>,
    dropout: Dropout,
    #[module(skip)]
    kind: HeadKind,
    #[module(skip)]
    trains: bool,
}

impl<B: Backend> Head<B> {
    /// A new head, N(0, 0.02²) with a bias of zeros, as transformers makes it. It follows from the seed alone.
    #[must_use]
    pub fn init(
        kind: HeadKind,
        [outputs, d_model]: [usize; 2],
        seed: u64,
        device: &B::Device,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let normal = Normal::new(0.0, INITIALIZER_RANGE).expect("a spread is not negative");
        let weight = (0..outputs * d_model).map(|_| normal.sample(&mut random) as f32);
        let weight = TensorData::new(weight.collect::<Vec<f32>>(), [outputs, d_model]);
        let bias = TensorData::new(vec![0.0_f32; outputs], [outputs]);
        Self::from_data(kind, weight, kind.has_bias().then_some(bias), device)
    }

    /// A head with these values, trainable.
    ///
    /// # Shapes
    /// - weight: `[outputs, d_model]`
    /// - bias: `[outputs]`
    #[must_use]
    pub fn from_data(
        kind: HeadKind,
        weight: TensorData,
        bias: Option<TensorData>,
        device: &B::Device,
    ) -> Self {
        Self {
            weight: given(WEIGHT, weight, device),
            bias: bias.map(|bias| given(BIAS, bias, device)),
            dropout: DropoutConfig::new(0.0).init(),
            kind,
            trains: true,
        }
    }

    /// The head with dropout of the states that it reads, in training (transformers' `classifier_dropout`).
    #[must_use]
    pub fn with_dropout(self, probability: f64) -> Self {
        Self {
            dropout: DropoutConfig::new(probability).init(),
            ..self
        }
    }

    /// The head as it is, which does not train.
    #[must_use]
    pub fn frozen(self) -> Self {
        Self {
            weight: self.weight.set_require_grad(false),
            bias: self.bias.map(|bias| bias.set_require_grad(false)),
            trains: false,
            ..self
        }
    }

    /// The ids of the weight and the bias of every head.
    #[must_use]
    pub fn param_ids() -> [ParamId; 2] {
        [WEIGHT, BIAS].map(param_id)
    }

    /// Which states it reads.
    #[must_use]
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// The number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// The number of parameters that train.
    #[must_use]
    pub fn num_trainable(&self) -> usize {
        match self.trains {
            true => Module::num_params(self),
            false => 0,
        }
    }

    /// The weight, `[outputs, d_model]`, and the bias, `[outputs]`.
    #[must_use]
    pub fn values(&self) -> (TensorData, Option<TensorData>) {
        let bias = self.bias.as_ref();
        let bias = bias.map(|bias| bias.val().into_data());
        (self.weight.val().into_data(), bias)
    }

    /// The outputs for some states, in the head's own type whatever the states are in.
    ///
    /// # Shapes
    /// - states: `[cells, d_model]`
    /// - output: `[cells, outputs]`
    #[must_use]
    pub fn forward(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weight.val();
        let states = self.dropout.forward(states.cast(weight.dtype()));
        let logits = states.matmul(weight.transpose());
        match &self.bias {
            Some(bias) => logits + bias.val().unsqueeze(),
            None => logits,
        }
    }
}
