//! An adapter in other programs' forms: merged into a checkpoint, or a prompt as a bare tensor.

use std::collections::BTreeMap;
use std::path::Path;

use burn_peft::LayerModule;
use burn_peft_decoder::{Checkpoint, Copied};

use crate::Error;
use crate::folder::AdapterFolder;
use crate::tensors::AdapterTensors;

/// Name of the only tensor of an exported prompt, and stem of its file's usual name.
const PROMPT_EMBEDS: &str = "prompt_embeds";

/// The usual file name of an exported prompt.
pub const PROMPT_EMBEDS_FILE: &str = "prompt_embeds.safetensors";

impl AdapterFolder {
    /// Writes `base` again to the folder `output`, with the biases of this BEFT folder added to its
    /// own; see [`Checkpoint::save_with_biases`] for types and files, and for families without biases. `path` is
    /// for messages.
    ///
    /// Loaded as f32, the checkpoint computes exactly what base and adapter compute together.
    ///
    /// # Errors
    /// A head; another method; biases that a checkpoint of the family has no place for; changes that are not finite;
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
        self.check_mergeable(path)?;
        let biases = self.biases();
        let config = base.config();
        self.check(config, path)?;
        let has_place = |module: LayerModule| {
            module.has_bias(config) || config.family.bias_key(module).is_some()
        };
        let homeless: Vec<_> = LayerModule::ALL
            .into_iter()
            .filter(|module| biases.iter().any(|bias| bias.1 == *module) && !has_place(*module))
            .map(|module| format!("`{module}`"))
            .collect();
        if !homeless.is_empty() {
            return Err(cannot(format!(
                "a {} checkpoint has no place for biases of {}",
                config.family.class(),
                homeless.join(", ")
            )));
        }
        self.check_values(path)?;
        let deltas: BTreeMap<_, _> = biases
            .into_iter()
            .map(|(layer, module, values)| ((layer, module), values))
            .collect();
        Ok(base.save_with_biases(&deltas, output, progress)?)
    }

    /// Whether there is something that can be added to a model's weights, whatever the model. `path` is for messages.
    ///
    /// # Errors
    /// A head, or another method than BitFit.
    pub fn check_mergeable(&self, path: &Path) -> Result<(), Error> {
        self.refuse_head("a merged checkpoint", path)?;
        if self.biases().is_empty() {
            let peft_type = self.config.method.peft_type();
            return Err(Error::CannotMerge {
                path: path.into(),
                reason: format!(
                    "what {peft_type} trains is no part of the model's weights; mlx-lm takes keys and values as a \
                     prompt cache, with --to mlx-cache"
                ),
            });
        }
        Ok(())
    }

    /// Writes the virtual tokens of a prompt (of a `PROMPT_TUNING` or `P_TUNING` folder) to `file`: one F32 tensor
    /// `prompt_embeds` `[tokens, d_model]`, to be put in front of the embeddings of a text. Returns
    /// its shape. `path` is for messages.
    ///
    /// # Errors
    /// A head, another method, a tensor that is not what the configuration says, values that are no numbers, or a file that
    /// cannot be written. Whether it fits a base, [`check`](Self::check) says.
    pub fn save_prompt_embeds(&self, file: &Path, path: &Path) -> Result<Vec<usize>, Error> {
        self.refuse_head("a bare prompt", path)?;
        let table = self.prompt_table(path)?;
        self.check_values(path)?;
        let mut tensors = AdapterTensors::new();
        tensors.insert(PROMPT_EMBEDS, table.clone());
        burn_peft_files::write(file, &tensors.to_safetensors())?;
        Ok(table.shape().to_vec())
    }
}
