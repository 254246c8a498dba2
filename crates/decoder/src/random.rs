//! A model of random weights, for measurements: made in memory, nothing is read.

use std::collections::HashMap;

use burn::tensor::{DType, Distribution, Shape, Tensor};
use burn_peft_ops::Ops;

use crate::{Decoder, DecoderConfig, Error, weights::TensorSource};

/// transformers' `initializer_range`.
const STANDARD_DEVIATION: f64 = 0.02;

impl<B: Ops> Decoder<B> {
    /// A model of this architecture whose norms are 1 and whose other weights are N(0, 0.02²), from the
    /// backend's generator (`Backend::seed`).
    ///
    /// # Errors
    /// A type that the backend cannot hold.
    pub fn random(config: DecoderConfig, dtype: DType, device: &B::Device) -> Result<Self, Error> {
        if !B::supports_dtype(device, dtype) {
            return Err(Error::Dtype {
                backend: B::name(device),
                dtype,
            });
        }
        let mut source = RandomTensors {
            shapes: config.tensor_shapes().into_iter().collect(),
            dtype,
            device,
        };
        let model = Self::assemble(config, &mut source)?;
        // What was drawn in a wider type.
        B::memory_cleanup(device);
        Ok(model)
    }
}

struct RandomTensors<'a, B: Ops> {
    shapes: HashMap<String, Vec<usize>>,
    dtype: DType,
    device: &'a B::Device,
}

impl<B: Ops> TensorSource<B> for RandomTensors<'_, B> {
    fn device(&self) -> &B::Device {
        self.device
    }

    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<B, D>, Error> {
        let shape = Shape::from(self.shapes[name].clone());
        if name.ends_with("norm.weight") {
            return Ok(Tensor::ones(shape, (self.device, self.dtype)));
        }
        // Drawn as f32, which every generator can, one tensor at a time.
        let normal = Distribution::Normal(0.0, STANDARD_DEVIATION);
        let drawn = Tensor::<B, D>::random(shape, normal, (self.device, DType::F32));
        let cast = |drawn: Tensor<B, D>| drawn.cast(self.dtype);
        Ok(B::memory_persistent_allocations(self.device, drawn, cast))
    }
}
