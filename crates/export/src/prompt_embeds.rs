//! A tensor as `torch.save` writes it: what vLLM takes as `prompt_embeds`.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use half::bf16;
use zip::{CompressionMethod, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::Error;

/// The number type of a saved tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TorchType {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl TorchType {
    fn storage(self) -> &'static str {
        match self {
            Self::F32 => "FloatStorage",
            Self::Bf16 => "BFloat16Storage",
        }
    }
}

/// Writes `values` `[tokens, d_model]` to `file`, so that `torch.load(file, weights_only=True)` returns them.
///
/// # Errors
/// If the file cannot be written.
pub fn save_prompt_embeds(
    file: &Path,
    values: &[f32],
    shape: [usize; 2],
    dtype: TorchType,
) -> Result<(), Error> {
    let bytes = torch_file(values, shape, dtype).map_err(|error| Error::File {
        path: file.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(burn_peft_files::write(file, &bytes)?)
}

fn torch_file(values: &[f32], shape: [usize; 2], dtype: TorchType) -> Result<Vec<u8>, ZipError> {
    let data: Vec<u8> = match dtype {
        TorchType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TorchType::Bf16 => values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
    };
    let pickle = pickle(shape, dtype);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // Torch maps what is stored as it is, at a multiple of 64.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(64);
    for (name, bytes) in [
        ("data.pkl", &pickle[..]),
        ("byteorder", b"little"),
        ("data/0", &data),
        ("version", b"3\n"),
    ] {
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// The pickle (protocol 2) of one contiguous tensor, as `torch._utils._rebuild_tensor_v2` takes it.
fn pickle([rows, columns]: [usize; 2], dtype: TorchType) -> Vec<u8> {
    let text = |text: &str| {
        let length = (text.len() as u32).to_le_bytes();
        [b"X", &length[..], text.as_bytes()].concat()
    };
    let global = |module: &str, name: &str| format!("c{module}\n{name}\n").into_bytes();
    let number = |number: usize| [b"J", &(number as u32).to_le_bytes()[..]].concat();
    let (mark, tuple, tuple_of_two) = (b"(".to_vec(), b"t".to_vec(), vec![0x86]);
    let (persistent_id, reduce) = (b"Q".to_vec(), b"R".to_vec());
    [
        vec![0x80, 2],
        global("torch._utils", "_rebuild_tensor_v2"),
        mark.clone(),
        mark,
        text("storage"),
        global("torch", dtype.storage()),
        text("0"),
        text("cpu"),
        number(rows * columns),
        tuple.clone(),
        persistent_id,
        // Offset, shape, strides.
        number(0),
        number(rows),
        number(columns),
        tuple_of_two.clone(),
        number(columns),
        number(1),
        tuple_of_two,
        // No gradient, no hooks.
        vec![0x89],
        global("collections", "OrderedDict"),
        b")".to_vec(),
        reduce.clone(),
        tuple,
        reduce,
        b".".to_vec(),
    ]
    .concat()
}
