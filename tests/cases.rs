//! The table of cases under `tests/fixtures/cases`: one configuration of PEFT (or, for BitFit, of
//! transformers) each.

use std::{fs, path::PathBuf};

use burn::{
    backend::Autodiff,
    tensor::{TensorData, backend::Backend},
};
use burn_peft::{AnyAdapter, BitFit, BitFitConfig, LayerModule, MethodConfig, PeftModel};
use burn_peft_decoder::{Checkpoint, DecoderConfig};
use burn_peft_format::{AdapterFolder, adapter_from_folder, parse_beft_bias_name};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    backends::TestBackend,
    fixture::{self, Greedy, Rows, Tensors},
};

/// One case, its `case.json`.
#[derive(Deserialize)]
pub(crate) struct Case {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) model: String,
    peft_type: String,
    options: Value,
    pub(crate) init_text: Option<String>,
    pub(crate) init_token_ids: Option<Vec<u32>>,
    pub(crate) evaluation: Evaluation,
    pub(crate) greedy: Vec<Greedy>,
    pub(crate) six_steps: SixSteps,
}

#[derive(Deserialize)]
pub(crate) struct Evaluation {
    #[serde(flatten)]
    pub(crate) rows: Rows,
    pub(crate) loss: f64,
    #[serde(rename = "rows")]
    pub(crate) per_row: Vec<RowLoss>,
    pub(crate) row0_logits: String,
}

#[derive(Deserialize)]
pub(crate) struct RowLoss {
    pub(crate) nll_sum: f64,
    pub(crate) label_tokens: usize,
}

#[derive(Deserialize)]
pub(crate) struct SixSteps {
    pub(crate) optimizer: AdamW,
    pub(crate) start: serde_json::Map<String, Value>,
    pub(crate) batches: Vec<Rows>,
    pub(crate) losses: Vec<f64>,
    pub(crate) grad_norms: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct AdamW {
    pub(crate) lr: f64,
    pub(crate) weight_decay: f64,
    pub(crate) eps: f64,
}

/// What Vulkan without a GPU has time for: one case a method and family.
const ONE_A_METHOD: [&str; 16] = [
    "tied_gqa-prompt-tuning-random",
    "tied_gqa-p-tuning-mlp",
    "tied_gqa-p-tuning-lstm",
    "tied_gqa-prefix-tuning",
    "tied_gqa-p-tuning-v2",
    "tied_gqa-bitfit-all",
    "llama_tied_gqa-prompt-tuning-random",
    "llama_tied_gqa-p-tuning-mlp",
    "llama_tied_gqa-prefix-tuning",
    "llama_tied_gqa-p-tuning-v2",
    "llama_tied_gqa-bitfit",
    "qwen3_tied_gqa-prompt-tuning-random",
    "qwen3_tied_gqa-p-tuning-mlp",
    "qwen3_tied_gqa-prefix-tuning",
    "qwen3_tied_gqa-p-tuning-v2",
    "qwen3_tied_gqa-bitfit",
];

/// The cases that `B` is held to.
pub(crate) fn cases<B: TestBackend>() -> Vec<Case> {
    let mut names: Vec<String> = fs::read_dir(fixture::path("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    if !B::THOROUGH {
        names.retain(|name| ONE_A_METHOD.contains(&name.as_str()));
        assert_eq!(names.len(), ONE_A_METHOD.len());
    }
    let read = |name: &String| fixture::json(&format!("cases/{name}/case.json"));
    names.iter().map(read).collect()
}

/// The case called `name`.
pub(crate) fn case(name: &str) -> Case {
    fixture::json(&format!("cases/{name}/case.json"))
}

impl Case {
    pub(crate) fn tensors(&self) -> Tensors {
        Tensors::read(&format!("cases/{}/tensors.safetensors", self.name))
    }

    /// Whether an encoder, which is dropped when it is saved, is trained.
    pub(crate) fn has_encoder(&self) -> bool {
        match self.peft_type.as_str() {
            "P_TUNING" => true,
            "PREFIX_TUNING" => self.options["prefix_projection"] == json!(true),
            _ => false,
        }
    }

    pub(crate) fn is_lstm(&self) -> bool {
        self.options["encoder_reparameterization_type"] == "LSTM"
    }

    fn folder(&self) -> PathBuf {
        fixture::path(&format!("cases/{}/adapter", self.name))
    }

    /// The method with the options that PEFT was given.
    pub(crate) fn method(&self) -> MethodConfig {
        method_of(&self.name, &self.peft_type, &self.options)
    }

    /// The base with the adapter that was saved.
    pub(crate) fn saved_model<B: TestBackend>(&self) -> PeftModel<B, AnyAdapter<B>> {
        let base = fixture::model::<B>(&self.model);
        let adapter = if self.peft_type == "BITFIT" {
            self.state("saved", base.config())
        } else {
            let path = self.folder();
            let folder = AdapterFolder::load(&path).unwrap();
            adapter_from_folder(&folder, base.config(), &path, &base.device()).unwrap()
        };
        PeftModel::new(base, adapter)
    }

    /// The base with the adapter that the six steps start from, tracked.
    pub(crate) fn start_model<B: TestBackend>(
        &self,
    ) -> PeftModel<Autodiff<B>, AnyAdapter<Autodiff<B>>> {
        let base = fixture::model::<Autodiff<B>>(&self.model);
        let adapter = self.state("start", base.config());
        PeftModel::new(base, adapter)
    }

    /// The adapter in the state called `when`: `start`, `end` or `saved`.
    fn state<B: Backend>(&self, when: &str, base: &DecoderConfig) -> AnyAdapter<B>
    where
        B::Device: Default,
    {
        let tensors = self.tensors();
        let names = self.six_steps.start.keys();
        match (self.peft_type.as_str(), self.method()) {
            ("BEFT", _) | ("BITFIT", _) => {
                let deltas = names.map(|name| {
                    let (layer, kind) = bias_of(name);
                    (layer, kind, self.delta(&tensors, when, name))
                });
                let deltas: Vec<_> = deltas.collect();
                AnyAdapter::BitFit(BitFit::from_data(deltas, base, &Default::default()))
            }
            (_, method) => {
                let value = |name: &str| tensors.get(&format!("{when}.{name}"));
                method.with_state(&value, base, &Default::default())
            }
        }
    }

    /// A trained bias as a change of the base's: PEFT keeps it so, transformers has the sum.
    fn delta(&self, tensors: &Tensors, when: &str, name: &str) -> TensorData {
        let found = tensors.get(&format!("{when}.{name}"));
        let (layer, kind) = bias_of(name);
        let config = Checkpoint::read_config(fixture::path(&self.model)).unwrap();
        if self.peft_type == "BEFT" || !kind.has_bias(&config) {
            return found;
        }
        let base = Tensors::read(&format!("{}/model.safetensors", self.model));
        let base = base.get(&format!("{}.bias", kind.module_path(layer)));
        let difference = found
            .iter::<f32>()
            .zip(base.iter::<f32>())
            .map(|(a, b)| a - b);
        TensorData::new(difference.collect::<Vec<f32>>(), found.shape.clone())
    }

    /// Every trained tensor before or after the six steps (`start`, `end`), by the name that our parameter
    /// has.
    pub(crate) fn parameters(&self, when: &str) -> Vec<(String, Vec<f64>)> {
        let tensors = self.tensors();
        let names = self.six_steps.start.keys();
        names
            .map(|name| match self.peft_type.as_str() {
                "BEFT" | "BITFIT" => {
                    let (layer, kind) = bias_of(name);
                    let own = format!("{}.bias", kind.module_path(layer));
                    (own, self.delta(&tensors, when, name))
                }
                _ => (name.clone(), tensors.get(&format!("{when}.{name}"))),
            })
            .map(|(name, value)| (name, value.iter::<f64>().collect()))
            .collect()
    }
}

/// The method with the options that PEFT was given in the case called `name`.
pub(crate) fn method_of(name: &str, peft_type: &str, options: &Value) -> MethodConfig {
    let mut options = options.clone();
    options["type"] = match peft_type {
        // How the table started has no say: its numbers are given.
        "PROMPT_TUNING" => {
            let tokens = &options["num_virtual_tokens"];
            options = json!({ "num_virtual_tokens": tokens });
            "prompt-tuning".into()
        }
        "P_TUNING" => "p-tuning".into(),
        "PREFIX_TUNING" => {
            // PEFT's default is another than ours.
            let projection = options["prefix_projection"] == true;
            options["prefix_projection"] = projection.into();
            "prefix-tuning".into()
        }
        "BITFIT" => "bitfit".into(),
        "BEFT" => {
            options = json!({});
            "bitfit".into()
        }
        other => panic!("{name}: {other}"),
    };
    serde_json::from_value(options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The bias that a name of PEFT or of a checkpoint means.
pub(crate) fn bias_of(name: &str) -> (usize, LayerModule) {
    let beft = |name: &str| {
        format!(
            "base_model.model.{}.beft_bias",
            name.trim_end_matches(".bias")
        )
    };
    parse_beft_bias_name(name)
        .or_else(|| parse_beft_bias_name(&beft(name)))
        .unwrap_or_else(|| panic!("{name} is no bias"))
}

/// Every kind of bias there is.
pub(crate) fn all_biases() -> BitFitConfig {
    BitFitConfig {
        target_modules: Some(LayerModule::ALL.to_vec()),
        ..BitFitConfig::default()
    }
}
