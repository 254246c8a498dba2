//! How trainable parameters are made: their names, their ids, and where their values come from.

use burn::{
    module::{Param, ParamId},
    tensor::{Element, Tensor, TensorData, backend::Backend},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal};

use crate::{InitTokens, base_values::BaseValues};

/// The id of the trainable parameter called `name`.
///
/// It is a hash of the name, not a random number, so that the state an optimizer kept for it finds it again
/// in another process. Names are those of PEFT's modules, such as `mlp_head.0.weight`.
#[must_use]
pub fn param_id(name: &str) -> ParamId {
    // FNV-1a, 64 bits.
    let id = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ParamId::from(id)
}

/// What a parameter of a new adapter starts as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init<'v> {
    /// All zeros.
    Zeros,
    /// N(0, deviation²).
    Normal(f64),
    /// Uniform between ±1/√n: PyTorch's start of linear layers (n their inputs) and LSTMs (n their
    /// units).
    Uniform(usize),
    /// These numbers, row-major.
    Values(&'v [f32]),
}

/// Where the values of an adapter's parameters come from.
pub(crate) enum Source<'a> {
    /// Nowhere: the adapter is new, and each parameter starts as its [`Init`] says.
    New(Box<Start<'a>>),
    /// Given, by the parameter's name.
    Given(&'a dyn Fn(&str) -> TensorData),
}

/// What the start of a new adapter may be computed from. All of it is on the host, so that every backend
/// starts from the same numbers.
pub(crate) struct Start<'a> {
    pub(crate) base: &'a dyn BaseValues,
    pub(crate) tokens: &'a InitTokens,
    seed: u64,
    random: StdRng,
}

impl Start<'_> {
    /// Random numbers that follow from the seed alone, not from the parameters drawn so far.
    pub(crate) fn fresh_random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new_from(base: &'a dyn BaseValues, tokens: &'a InitTokens, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self::New(Box::new(Start {
            base,
            tokens,
            seed,
            random,
        }))
    }

    /// What a start is computed from; `None` where the values are given.
    pub(crate) fn start(&self) -> Option<&Start<'a>> {
        match self {
            Self::New(start) => Some(start),
            Self::Given(_) => None,
        }
    }

    /// The parameter called `name`. `init` counts for a new adapter only.
    ///
    /// # Panics
    /// If a given value has another shape.
    pub(crate) fn param<B: Backend, const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init<'_>,
        device: &B::Device,
    ) -> Param<Tensor<B, D>> {
        let value = match self {
            Self::New(start) => {
                let values = draw(shape.iter().product(), init, &mut start.random);
                TensorData::new(values, shape)
            }
            Self::Given(values) => values(name),
        };
        assert_eq!(value.shape.as_slice(), shape, "the shape of {name}");
        given(name, value, device)
    }
}

/// The trainable parameter called `name` with this value.
pub(crate) fn given<B: Backend, const D: usize>(
    name: &str,
    value: TensorData,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    // The backend's own float: f32, and f64 where gradients are checked. Without it the device's
    // default is taken, which is f32 for `NdArray<f64>` too.
    let dtype = B::FloatElem::dtype();
    let value = Tensor::from_data(value.convert_dtype(dtype), (device, dtype));
    Param::initialized(param_id(name), value.require_grad())
}

/// `count` numbers.
pub(crate) fn draw(count: usize, init: Init<'_>, random: &mut StdRng) -> Vec<f32> {
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Normal(deviation) => {
            let normal =
                Normal::new(0.0, deviation).expect("a deviation is finite and not negative");
            (0..count).map(|_| normal.sample(random) as f32).collect()
        }
        Init::Uniform(n) => {
            let bound = (n as f32).sqrt().recip();
            (0..count)
                .map(|_| random.random_range(-bound..=bound))
                .collect()
        }
        Init::Values(values) => values.to_vec(),
    }
}
