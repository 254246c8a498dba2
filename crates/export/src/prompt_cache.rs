//! Keys and values as the prompt cache file of mlx-lm.

use std::{collections::HashMap, path::Path};

use burn::tensor::{DType, Tensor, backend::Backend};
use burn_peft_decoder::LayerKv;
use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::Error;

/// The layout of the file. mlx-lm reads its own only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLayout {
    /// From mlx-lm 0.32.0 on.
    V0_32,
    /// Up to mlx-lm 0.31.3.
    V0_31,
}

/// Writes the keys and values of each layer to `file`, in their own type.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If they are neither f32 nor bf16.
pub fn save_prompt_cache<B: Backend>(
    file: &Path,
    layers: &[LayerKv<B>],
    model: &str,
    layout: CacheLayout,
) -> Result<(), Error> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut metadata = HashMap::new();
    // The place of the model's name and of each layer's class.
    let (named, classes) = match layout {
        CacheLayout::V0_32 => ("0", "1"),
        CacheLayout::V0_31 => ("1", "2"),
    };
    metadata.insert(format!("{named}.model"), model.to_owned());
    metadata.insert(format!("{named}.tokenizer_config"), "{}".to_owned());
    if layout == CacheLayout::V0_32 {
        metadata.insert("2.0".to_owned(), String::new());
    }
    for (index, LayerKv { key, value }) in layers.iter().enumerate() {
        metadata.insert(format!("{classes}.{index}"), "KVCache".to_owned());
        let tokens = key.dims()[1];
        for (part, states) in [key, value].into_iter().enumerate() {
            let (dtype, bytes) = bytes_of(states.clone());
            let shape = [&[1][..], &states.dims()].concat(); // [1, kv_heads, tokens, head_dim]
            tensors.push((format!("{index}.{part}"), dtype, shape, bytes));
        }
        match layout {
            CacheLayout::V0_32 => {
                let offset = (tokens as i32).to_le_bytes().to_vec();
                tensors.push((format!("{index}.2"), Dtype::I32, Vec::new(), offset));
                let place = index + 1;
                metadata.insert(format!("2.{place}.0"), format!("{index}.2"));
                metadata.insert(format!("2.{place}.1"), "scalar".to_owned());
            }
            CacheLayout::V0_31 => {
                metadata.insert(format!("0.{index}"), String::new());
            }
        }
    }
    let invalid = |error: safetensors::SafeTensorError| Error::File {
        path: file.to_owned(),
        reason: error.to_string(),
    };
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(invalid)?;
            Ok((name.clone(), view))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let bytes = serialize(views, Some(metadata)).map_err(invalid)?;
    Ok(burn_peft_files::write(file, &bytes)?)
}

fn bytes_of<B: Backend>(states: Tensor<B, 3>) -> (Dtype, Vec<u8>) {
    let dtype = match states.dtype() {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        other => panic!("mlx-lm's caches are written as f32 or bf16, not {other:?}"),
    };
    (dtype, states.into_data().bytes.to_vec())
}
