//! An adapter in other programs' forms: merged into a checkpoint, or a prompt as a bare tensor.

use std::collections::BTreeMap;
use std::path::Path;

use burn_peft::LayerModule;
use burn_peft_decoder::{Checkpoint, Copied};

use crate::atomic::write_whole;
use crate::folder::AdapterFolder;
use crate::tensors::{AdapterTensors, PROMPT_EMBEDDINGS};
use crate::{BaseDims, Error, MethodOptions, VirtualTokenOptions};

/// Name of the only tensor of an exported prompt, and stem of its file's usual name.
const PROMPT_EMBEDS: &str = "prompt_embeds";

/// The usual file name of an exported prompt.
pub const PROMPT_EMBEDS_FILE: &str = "prompt_embeds.safetensors";

impl AdapterFolder {
    /// Writes `base` again to the folder `output`, with the biases of this BEFT folder added to its
    /// own; see [`Checkpoint::save_with_deltas`] for types and files. `path` is for messages.
    ///
    /// Loaded as f32, the checkpoint computes exactly what base and adapter compute together.
    ///
    /// # Errors
    /// Another method; biases that a Qwen2 checkpoint has no place for; changes that are not finite;
    /// an adapter that does not fit; and what writing can meet.
    pub fn merge_into(
        &self,
        base: &Checkpoint,
        output: &Path,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, Error> {
        let cannot = |reason: String| Error::CannotMerge {
            path: path.into(),
            reason,
        };
        let MethodOptions::Beft(_) = self.config.method else {
            return Err(cannot(format!(
                "what {} trains is no part of the model's weights",
                self.config.method.peft_type()
            )));
        };
        self.check(&base.config().into(), path)?;
        let biases = self.biases();
        let homeless: Vec<_> = LayerModule::ALL
            .into_iter()
            .filter(|kind| {
                !kind.has_bias(base.config()) && biases.iter().any(|bias| bias.1 == *kind)
            })
            .map(|kind| format!("`{kind}`"))
            .collect();
        if !homeless.is_empty() {
            return Err(cannot(format!(
                "a Qwen2 checkpoint has no place for biases of {}",
                homeless.join(", ")
            )));
        }
        if let Some((name, _)) = self.tensors.non_finite().first() {
            return Err(cannot(format!("tensor `{name}` is not finite")));
        }
        let deltas: BTreeMap<String, &[f32]> = biases
            .into_iter()
            .map(|(layer, kind, values)| (format!("{}.bias", kind.module_path(layer)), values))
            .collect();
        Ok(base.save_with_deltas(&deltas, output, progress)?)
    }

    /// Writes the virtual tokens of a `PROMPT_TUNING` or `P_TUNING` folder to `file`: one F32 tensor
    /// `prompt_embeds` `[tokens, d_model]`, to be put in front of the embeddings of a text. Returns
    /// its shape. `path` is for messages.
    ///
    /// # Errors
    /// Another method, a tensor that is not what the configuration says, or a file that cannot be
    /// written. Whether it fits a base, [`check`](Self::check) says.
    pub fn save_prompt_embeds(&self, file: &Path, path: &Path) -> Result<Vec<usize>, Error> {
        let tokens = match &self.config.method {
            MethodOptions::PromptTuning(options) => &options.virtual_tokens,
            MethodOptions::PTuning(options) => &options.virtual_tokens,
            other => {
                return Err(Error::NoPrompt {
                    path: path.into(),
                    peft_type: other.peft_type(),
                });
            }
        };
        let table = self.tensors.get(PROMPT_EMBEDDINGS);
        let width = table.and_then(|table| table.shape().get(1).copied());
        self.check(&base_of(tokens, width), path)?;
        let table = table.expect("`check` asks for the table");
        let mut tensors = AdapterTensors::new();
        tensors.insert(PROMPT_EMBEDS, table.clone());
        write_whole(file, &tensors.to_safetensors())?;
        Ok(table.shape().to_vec())
    }
}

/// The base that a prompt says it was made for, as far as it says so.
fn base_of(tokens: &VirtualTokenOptions, width: Option<usize>) -> BaseDims {
    BaseDims {
        hidden_size: tokens.token_dim.or(width).unwrap_or(0),
        num_layers: tokens.num_layers.unwrap_or(0),
        // Of no consequence for a prompt.
        intermediate_size: 0,
        num_heads: 0,
        num_kv_heads: 0,
        head_dim: 0,
        vocab_size: 0,
    }
}
