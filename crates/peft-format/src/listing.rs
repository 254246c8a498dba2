//! What a folder holds, as modules.

use burn_peft::ModuleListing;

use crate::{AdapterFolder, MethodOptions, PROMPT_EMBEDDINGS, parse_beft_bias_name};

impl AdapterFolder {
    /// The modules whose parameters the folder holds, under PEFT's names. An encoder is in no folder: there
    /// is only the table that it made.
    ///
    /// A tensor that belongs to no method here is named as it stands in the file.
    pub fn modules(&self) -> ModuleListing {
        let biases = self.biases().into_iter();
        let mut modules = match &self.config.method {
            MethodOptions::PromptTuning(_) => ModuleListing::new("PromptEmbedding"),
            MethodOptions::PTuning(_) => ModuleListing::new("PromptEncoder"),
            MethodOptions::PrefixTuning(_) => ModuleListing::new("PrefixEncoder"),
            MethodOptions::Beft(_) => ModuleListing::biases(
                biases.map(|(layer, kind, values)| (layer, kind, values.len())),
            ),
        };
        let holds_biases = matches!(self.config.method, MethodOptions::Beft(_));
        for (name, tensor) in self.tensors.iter() {
            modules = match (name, tensor.shape()) {
                (PROMPT_EMBEDDINGS, &[tokens, width]) => {
                    modules.child("embedding", ModuleListing::embedding([tokens, width]))
                }
                (name, _) if holds_biases && parse_beft_bias_name(name).is_some() => modules,
                (name, shape) => modules.parameter(name, shape),
            };
        }
        modules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AdapterConfig, AdapterTensor, AdapterTensors, BaseDims, BeftOptions, PTuningOptions,
        VirtualTokenOptions,
    };

    const DIMS: BaseDims = BaseDims {
        hidden_size: 8,
        intermediate_size: 16,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 4,
        vocab_size: 32,
    };

    fn modules(method: MethodOptions, tensors: &[(&str, &[usize])]) -> ModuleListing {
        let mut map = AdapterTensors::new();
        for (name, shape) in tensors {
            let count = shape.iter().product();
            map.insert(*name, AdapterTensor::new(*shape, vec![0.0; count]));
        }
        let folder = AdapterFolder {
            config: AdapterConfig::new(method, None),
            tensors: map,
        };
        let modules = folder.modules();
        assert_eq!(modules.num_parameters(), folder.tensors.num_values());
        modules
    }

    #[test]
    fn a_folder_of_p_tuning_holds_the_encoders_output_and_no_encoder() {
        let options = PTuningOptions::new(VirtualTokenOptions::prompt(3, &DIMS));
        let method = MethodOptions::PTuning(options);
        let found = modules(
            method,
            &[(PROMPT_EMBEDDINGS, &[3, 8]), ("score.weight", &[2, 8])],
        );
        assert_eq!(
            found.to_string(),
            "PromptEncoder(  # score.weight [2, 8]\n  (embedding): Embedding(3, 8)  # weight [3, 8]\n)\n"
        );
    }

    #[test]
    fn layers_with_the_same_biases_stand_on_one_line() {
        let layer = |layer| format!("base_model.model.model.layers.{layer}.mlp.up_proj.beft_bias");
        let names = [0, 1, 3].map(layer);
        let tensors = names.each_ref().map(|name| (name.as_str(), &[1, 16][..]));
        let found = modules(MethodOptions::Beft(BeftOptions::new()), &tensors);
        let expected = "\
BitFit(
  (layers): ModuleList(
    (0-1): 2 x BiasDeltas(
      (up_proj): Bias(16)  # bias [16]
    )
    (3): BiasDeltas(
      (up_proj): Bias(16)  # bias [16]
    )
  )
)
";
        assert_eq!(found.to_string(), expected);
    }
}
