//! How trainable parameters are made: their names, their ids, and what they start from.

use burn::{
    module::{Param, ParamId},
    tensor::{Element, Tensor, TensorData, backend::Backend},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Normal};

/// The id of the trainable parameter called `name`.
///
/// A hash of the name, not a random number, so that the state an optimizer kept for it finds it again
/// in another process. Names are those of PEFT's modules, such as `mlp_head.0.weight`.
#[must_use]
pub fn param_id(name: &str) -> ParamId {
    // FNV-1a, 64 bits.
    let id = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ParamId::from(id)
}

/// A trainable parameter called `name`.
pub(crate) fn trainable<B: Backend, const D: usize>(
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

/// What a parameter starts as, unless it is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// All zeros.
    Zeros,
    /// N(0, deviation²).
    Normal(f64),
    /// Uniform between ±1/√n: PyTorch's start of linear layers (n their inputs) and LSTMs (n their
    /// units).
    Uniform(usize),
}

/// Where the values of an adapter's parameters come from.
pub(crate) enum Source<'a> {
    /// Drawn on the host, so that every backend starts from the same numbers.
    Random(Box<StdRng>),
    /// Given, by name.
    Given(&'a dyn Fn(&str) -> TensorData),
}

impl Source<'_> {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Random(Box::new(StdRng::seed_from_u64(seed)))
    }

    /// The parameter called `name`.
    ///
    /// # Panics
    /// If a given value has another shape.
    pub(crate) fn param<B: Backend, const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
        device: &B::Device,
    ) -> Param<Tensor<B, D>> {
        let value = match self {
            Self::Random(random) => {
                TensorData::new(draw(shape.iter().product(), init, random), shape)
            }
            Self::Given(values) => values(name),
        };
        assert_eq!(value.shape.as_slice(), shape, "the shape of {name}");
        trainable(name, value, device)
    }
}

/// `count` numbers.
pub(crate) fn draw(count: usize, init: Init, random: &mut StdRng) -> Vec<f32> {
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
    }
}
