//! Tables of the rotary embedding.

use burn::{
    module::Module,
    tensor::{DType, Int, Tensor, TensorData, backend::Backend, s},
};

use crate::{DecoderConfig, mask::Positions};

/// Cosines and sines of every position, computed on the host in f64 and rounded once.
#[derive(Module, Debug)]
pub(crate) struct RotaryTable<B: Backend> {
    /// `[max_position_embeddings, head_dim / 2]`.
    cos: Tensor<B, 2>,
    /// `[max_position_embeddings, head_dim / 2]`.
    sin: Tensor<B, 2>,
}

impl<B: Backend> RotaryTable<B> {
    pub(crate) fn init(config: &DecoderConfig, dtype: DType, device: &B::Device) -> Self {
        let half = config.head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| {
                config
                    .rope_theta
                    .powf(-(2.0 * i as f64) / config.head_dim as f64)
            })
            .map(|frequency| match &config.rope_scaling {
                Some(scaling) => scaling.stretch(frequency),
                None => frequency,
            })
            .collect();
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f64> = (0..config.max_position_embeddings)
                .flat_map(|position| frequencies.iter().map(move |f| of(position as f64 * f)))
                .collect();
            let data = TensorData::new(values, [config.max_position_embeddings, half]);
            Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Cosines and sines of `seq` cells: `[batch or 1, 1, seq, head_dim / 2]` each.
    pub(crate) fn at(&self, positions: &Positions, seq: usize) -> [Tensor<B, 4>; 2] {
        [&self.cos, &self.sin].map(|table| {
            let half = table.dims()[1];
            match positions {
                Positions::Shared { start } => table
                    .clone()
                    .slice(s![*start..start + seq])
                    .reshape([1, 1, seq, half]),
                Positions::PerRow(rows) => {
                    let flat: Vec<i64> = rows.iter().flatten().map(|p| *p as i64).collect();
                    let flat = TensorData::new(flat, [rows.len() * seq]);
                    let indices = Tensor::<B, 1, Int>::from_data(flat, &table.device());
                    table
                        .clone()
                        .select(0, indices)
                        .reshape([rows.len(), 1, seq, half])
                }
            }
        })
    }
}
