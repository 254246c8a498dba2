//! A head: the classes, or the ends of an answer, of hidden states.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal};

use crate::param::given;

/// The spread of a new head's weights: transformers' `initializer_range`.
const INITIALIZER_RANGE: f64 = 0.02;

/// A linear layer over the hidden states of a base, in place of the language-model head: transformers' `score` of
/// sequence and token classification, and its `qa_outputs` of questions.
#[derive(Module, Debug)]
pub struct Head<B: Backend> {
    /// `[outputs, d_model]`, f32.
    weight: Param<Tensor<B, 2>>,
    /// `[outputs]`, f32. Sequence classification has none.
    bias: Option<Param<Tensor<B, 1>>>,
    /// Whether it trains.
    #[module(skip)]
    trains: bool,
}

impl<B: Backend> Head<B> {
    /// A new head, N(0, 0.02²) with a bias of zeros, as transformers makes it. It follows from the seed alone.
    #[must_use]
    pub fn init(
        [outputs, d_model]: [usize; 2],
        has_bias: bool,
        seed: u64,
        device: &B::Device,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let normal = Normal::new(0.0, INITIALIZER_RANGE).expect("a spread is not negative");
        let weight = (0..outputs * d_model).map(|_| normal.sample(&mut random) as f32);
        let weight = TensorData::new(weight.collect::<Vec<f32>>(), [outputs, d_model]);
        let bias = has_bias.then(|| TensorData::new(vec![0.0_f32; outputs], [outputs]));
        Self::from_data(weight, bias, device)
    }

    /// A head with these values, trainable.
    ///
    /// # Shapes
    /// - weight: `[outputs, d_model]`
    /// - bias: `[outputs]`
    #[must_use]
    pub fn from_data(weight: TensorData, bias: Option<TensorData>, device: &B::Device) -> Self {
        Self {
            weight: given("head.weight", weight, device),
            bias: bias.map(|bias| given("head.bias", bias, device)),
            trains: true,
        }
    }

    /// The head as it is, which does not train.
    #[must_use]
    pub fn frozen(self) -> Self {
        Self {
            weight: self.weight.set_require_grad(false),
            bias: self.bias.map(|bias| bias.set_require_grad(false)),
            trains: false,
        }
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
            true => self.num_params(),
            false => 0,
        }
    }

    /// The weight, `[outputs, d_model]`, and the bias, `[outputs]`.
    #[must_use]
    pub fn values(&self) -> (TensorData, Option<TensorData>) {
        let bias = self.bias.as_ref();
        (
            self.weight.val().into_data(),
            bias.map(|bias| bias.val().into_data()),
        )
    }

    /// The outputs for some states, in the head's own type whatever the states are in.
    ///
    /// # Shapes
    /// - states: `[cells, d_model]`
    /// - output: `[cells, outputs]`
    #[must_use]
    pub fn forward(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weight.val();
        let logits = states.cast(weight.dtype()).matmul(weight.transpose());
        match &self.bias {
            Some(bias) => logits + bias.val().unsqueeze(),
            None => logits,
        }
    }
}
