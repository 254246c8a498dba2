//! Tables of the rotary embedding.

use burn::{
    module::Module,
    tensor::{DType, Int, Tensor, TensorData, backend::Backend, s},
};

use crate::{DecoderConfig, mask::Positions};

/// Positions that the tables have. What stands further back is computed when it comes: a configuration may allow
/// more positions than there is memory for.
const TABLED: usize = 8192;

/// Cosines and sines of the first positions, computed on the host in f64 and rounded once.
#[derive(Module, Debug)]
pub(crate) struct RotaryTable<B: Backend> {
    /// `[positions, head_dim / 2]`.
    cos: Tensor<B, 2>,
    /// `[positions, head_dim / 2]`.
    sin: Tensor<B, 2>,
    /// Radians a token, `[head_dim / 2]`.
    #[module(skip)]
    frequencies: Vec<f64>,
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
        let positions: Vec<usize> = (0..config.max_position_embeddings.min(TABLED)).collect();
        let [cos, sin] = rows(&positions, &frequencies, dtype, device);
        Self {
            cos,
            sin,
            frequencies,
        }
    }

    /// Cosines and sines of `seq` cells: `[batch or 1, 1, seq, head_dim / 2]` each.
    pub(crate) fn at(&self, positions: &Positions, seq: usize) -> [Tensor<B, 4>; 2] {
        let [tabled, half] = self.cos.dims();
        let (count, last) = match positions {
            Positions::Shared { start } => (1, start + seq),
            Positions::PerRow(rows) => {
                let last = rows.iter().flatten().max();
                (rows.len(), last.map_or(0, |last| last + 1))
            }
        };
        if last > tabled {
            let positions = positions.clone().rows(1, seq).concat();
            let (device, dtype) = (self.cos.device(), self.cos.dtype());
            return rows(&positions, &self.frequencies, dtype, &device)
                .map(|table| table.reshape([count, 1, seq, half]));
        }
        [&self.cos, &self.sin].map(|table| match positions {
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
        })
    }
}

/// Cosines and sines of these positions, `[positions, head_dim / 2]` each.
fn rows<B: Backend>(
    positions: &[usize],
    frequencies: &[f64],
    dtype: DType,
    device: &B::Device,
) -> [Tensor<B, 2>; 2] {
    [f64::cos, f64::sin].map(|of| {
        let row = |position: &usize| {
            let position = *position as f64;
            frequencies.iter().map(move |f| of(position * f))
        };
        let values: Vec<f64> = positions.iter().flat_map(row).collect();
        let data = TensorData::new(values, [positions.len(), frequencies.len()]);
        Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
    })
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;

    #[test]
    fn positions_behind_the_table_go_on_as_those_in_it() {
        let text = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 1000000000}"#;
        let config = DecoderConfig::parse(text, "config.json").unwrap();
        let table = RotaryTable::<Flex>::init(&config, DType::F32, &Default::default());
        let values = |tensor: Tensor<Flex, 4>| tensor.into_data().to_vec::<f32>().unwrap();
        let single = |position| {
            let [cos, sin] = table.at(&Positions::Shared { start: position }, 1);
            (values(cos), values(sin))
        };
        // Across the end of the table, for rows that count alike and for rows that do not.
        let across = [TABLED - 1, TABLED, TABLED + 1];
        let (cos, sin): (Vec<_>, Vec<_>) = across.map(single).into_iter().unzip();
        let expected = [cos.concat(), sin.concat()];
        let shared = Positions::Shared { start: across[0] };
        let per_row = Positions::PerRow(vec![across.to_vec(), vec![0, 1, 2]]);
        for (positions, count) in [(shared, 1), (per_row, 2)] {
            let found = table.at(&positions, 3);
            for (found, expected) in found.into_iter().zip(&expected) {
                assert_eq!(found.dims(), [count, 1, 3, 4]);
                assert_eq!(&values(found)[..12], &expected[..]);
            }
        }
        // The first frequency is one radian a token.
        let (cos, _) = single(1_000_000);
        assert_eq!(cos[0], 1_000_000_f64.cos() as f32);
    }
}
