//! A trainable linear layer in PyTorch's layout, for the encoders.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};

use crate::param::{Init, Source};

/// `input · weightᵀ + bias`. Burn's own keeps the weight transposed; PEFT's state has it this way.
#[derive(Module, Debug)]
pub(crate) struct Linear<B: Backend> {
    /// `[d_out, d_in]`.
    pub(crate) weight: Param<Tensor<B, 2>>,
    /// `[d_out]`.
    pub(crate) bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    /// A layer whose parameters are called `name.weight` and `name.bias`, starting as PyTorch's does.
    pub(crate) fn new(
        name: &str,
        [d_in, d_out]: [usize; 2],
        source: &mut Source<'_>,
        device: &B::Device,
    ) -> Self {
        let init = [Init::Uniform(d_in); 2];
        Self::starting(name, [d_in, d_out], init, source, device)
    }

    /// The same with another start of weight and bias.
    pub(crate) fn starting(
        name: &str,
        [d_in, d_out]: [usize; 2],
        [weight, bias]: [Init<'_>; 2],
        source: &mut Source<'_>,
        device: &B::Device,
    ) -> Self {
        Self {
            weight: source.param(&format!("{name}.weight"), [d_out, d_in], weight, device),
            bias: source.param(&format!("{name}.bias"), [d_out], bias, device),
        }
    }

    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - output: `[tokens, d_out]`
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        input.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}
