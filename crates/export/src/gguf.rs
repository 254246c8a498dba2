//! A checkpoint as one GGUF file, for llama.cpp and what is built on it.
//!
//! The file has what llama.cpp's own converter writes, under the same names. It is written here, so that nothing else has to
//! be installed, and so that a tokenizer is recognised by what it does and not by a hash of what it makes of a text.

mod file;
mod model;
mod numbers;
mod pre_tokenizer;
mod vocabulary;

use std::path::Path;

use burn_peft_decoder::Checkpoint;
use burn_peft_files::StagedFile;

use crate::Error;
use file::{Header, Value};
pub use numbers::GgufType;

/// What a GGUF file says of its model, and how.
#[derive(Debug, Clone, Copy)]
pub struct GgufOptions<'a> {
    /// What the model is called.
    pub name: &'a str,
    /// The number type of matrices. Vectors (norms, biases) are F32 always.
    pub outtype: GgufType,
    /// Whether texts begin with the names of virtual tokens. The BOS that the tokenizer adds was behind them in training,
    /// and llama.cpp, which would put it in front of them, adds none.
    pub virtual_tokens_first: bool,
}

/// A GGUF file that was written.
#[derive(Debug, Clone)]
pub struct GgufFile {
    /// Number of tensors.
    pub tensors: usize,
    /// Tensors that are F16 although Q8_0 was asked for, because the width of their rows is no multiple of 32.
    pub not_quantised: usize,
    /// What its user has to know, a sentence each.
    pub notes: Vec<String>,
}

/// Whether a GGUF file of this checkpoint can be written, as far as configuration and tokenizer say. `folder` is the
/// checkpoint's.
///
/// # Errors
/// Why not, as [`save_gguf`] says it.
pub fn check_gguf(checkpoint: &Checkpoint, folder: &Path) -> Result<(), Error> {
    let options = GgufOptions {
        name: "",
        outtype: GgufType::F16,
        virtual_tokens_first: false,
    };
    describe(checkpoint, folder, options).map(|_| ())
}

/// Writes the checkpoint in `folder` to `file`. One piece of a tensor is in memory at a time. `path` is what messages call
/// the folder. `progress` is called with the bytes written and all.
///
/// # Errors
/// What llama.cpp does not compute (rotary scaling outside of Llama, some biases), a tokenizer that it does not have,
/// values that the type does not hold, and what reading and writing can meet.
pub fn save_gguf(
    folder: &Path,
    file: &Path,
    options: GgufOptions<'_>,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<GgufFile, Error> {
    let checkpoint = Checkpoint::open(folder)?;
    let (mut header, notes) = describe(&checkpoint, folder, options)?;
    let tensors = model::tensors(&checkpoint, path, options.outtype)?;
    for tensor in &tensors {
        header.tensor(&tensor.name, &tensor.shape, tensor.element);
    }
    let total = header.data_len();
    let mut output = StagedFile::new(file)?;
    output.add(&header.to_bytes())?;
    let mut written = 0;
    for tensor in &tensors {
        let mut len = 0;
        tensor.pieces(&checkpoint, path, &mut |bytes| {
            output.add(bytes)?;
            len += bytes.len();
            progress(written + len as u64, total);
            Ok(())
        })?;
        output.add(&vec![0; file::padding(len)])?;
        written += (len + file::padding(len)) as u64;
    }
    output.commit()?;
    let is_whole =
        |tensor: &&model::Tensor| tensor.shape.len() == 1 || tensor.element == options.outtype;
    Ok(GgufFile {
        tensors: tensors.len(),
        not_quantised: tensors.len() - tensors.iter().filter(is_whole).count(),
        notes,
    })
}

/// The header without its tensors, and what its user has to know.
fn describe(
    checkpoint: &Checkpoint,
    folder: &Path,
    options: GgufOptions<'_>,
) -> Result<(Header, Vec<String>), Error> {
    let mut header = Header::default();
    header.set("general.type", Value::text("model"));
    header.set("general.name", Value::text(options.name));
    model::describe(checkpoint.config(), folder, options.outtype, &mut header)?;
    let notes = vocabulary::describe(
        checkpoint.config().vocab_size,
        folder,
        options.virtual_tokens_first,
        &mut header,
    )?;
    Ok((header, notes))
}

/// What llama.cpp has not, in one line with the nearest thing that can be done.
fn cannot(path: &Path, what: &str) -> Error {
    Error::CannotExport {
        path: path.to_owned(),
        reason: format!("{what}; transformers, vLLM and mlx-lm load what --to checkpoint writes"),
    }
}
