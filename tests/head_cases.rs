//! The table of cases under `tests/fixtures/heads`: one configuration of PEFT with a head each.

use std::fs;

use burn::{backend::Autodiff, tensor::backend::Backend};
use burn_peft::{AnyAdapter, BitFit, Head, HeadKind, MethodConfig, PeftModel};
use burn_peft_data::{Batch, IGNORE_INDEX, RowLabel};
use burn_peft_decoder::DecoderConfig;
use burn_peft_format::{AdapterFolder, adapter_from_folder, head_from_folder};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    backends::TestBackend,
    cases::{AdamW, bias_of, method_of},
    fixture::{self, Rows, Tensors},
};

/// One case, its `case.json`.
#[derive(Deserialize)]
pub(crate) struct HeadCase {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) model: String,
    task_type: String,
    problem_type: Option<String>,
    pub(crate) peft_type: String,
    options: Value,
    pub(crate) evaluation: Evaluation,
    pub(crate) six_steps: SixSteps,
}

#[derive(Deserialize)]
pub(crate) struct Evaluation {
    #[serde(flatten)]
    pub(crate) rows: LabelledRows,
    /// What each row costs alone.
    pub(crate) row_losses: Vec<f64>,
    logits: String,
}

#[derive(Deserialize)]
pub(crate) struct SixSteps {
    pub(crate) optimizer: AdamW,
    start: serde_json::Map<String, Value>,
    pub(crate) batches: Vec<LabelledRows>,
    pub(crate) losses: Vec<f64>,
    pub(crate) grad_norms: Vec<f64>,
}

/// Rows with the labels that their task has.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LabelledRows {
    #[serde(flatten)]
    pub(crate) rows: Rows,
    row_labels: Option<Vec<Value>>,
    spans: Option<Vec<[usize; 2]>>,
}

/// What Vulkan without a GPU has time for: one case a task and landing place.
const ONE_A_PLACE: [&str; 9] = [
    "tied_gqa-seq-cls-prompt-tuning",
    "tied_gqa-seq-cls-p-tuning-v2",
    "tied_gqa-seq-cls-beft-qkv",
    "tied_gqa-token-cls-prompt-tuning",
    "tied_gqa-token-cls-p-tuning-v2",
    "tied_gqa-token-cls-beft-qkv",
    "tied_gqa-question-ans-prompt-tuning",
    "tied_gqa-question-ans-p-tuning-v2",
    "tied_gqa-question-ans-beft-qkv",
];

/// The cases that `B` is held to.
pub(crate) fn head_cases<B: TestBackend>() -> Vec<HeadCase> {
    let mut names: Vec<String> = fs::read_dir(fixture::path("heads"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    if !B::THOROUGH {
        names.retain(|name| ONE_A_PLACE.contains(&name.as_str()));
        assert_eq!(names.len(), ONE_A_PLACE.len());
    }
    let read = |name: &String| fixture::json(&format!("heads/{name}/case.json"));
    names.iter().map(read).collect()
}

impl HeadCase {
    pub(crate) fn kind(&self) -> HeadKind {
        match self.task_type.as_str() {
            "SEQ_CLS" => HeadKind::Sequence,
            "TOKEN_CLS" => HeadKind::Token,
            "QUESTION_ANS" => HeadKind::Span,
            other => panic!("{}: {other}", self.name),
        }
    }

    fn tensors(&self) -> Tensors {
        Tensors::read(&format!("heads/{}/tensors.safetensors", self.name))
    }

    /// The logits of `evaluation`, row-major: `[rows, outputs]` or `[rows, seq, outputs]`, zero at padding.
    pub(crate) fn logits(&self) -> Vec<f64> {
        let logits = self.tensors().get(&self.evaluation.logits);
        logits.iter::<f64>().collect()
    }

    /// Whether an encoder, which is dropped when it is saved, is trained.
    pub(crate) fn has_encoder(&self) -> bool {
        self.peft_type == "P_TUNING" || self.options["prefix_projection"] == true
    }

    fn method(&self) -> MethodConfig {
        method_of(&self.name, &self.peft_type, &self.options)
    }

    /// The base with the adapter and the head that PEFT saved.
    pub(crate) fn saved_model<B: TestBackend>(&self) -> PeftModel<B, AnyAdapter<B>> {
        let base = fixture::model::<B>(&self.model);
        let path = fixture::path(&format!("heads/{}/adapter", self.name));
        let folder = AdapterFolder::load(&path).unwrap();
        let (config, device) = (base.config().clone(), base.device());
        let adapter = adapter_from_folder(&folder, &config, &path, &device).unwrap();
        let head = head_from_folder(&folder, &config, &path, &device).unwrap();
        assert!(head.is_some(), "{}", self.name);
        PeftModel::new(base, adapter).with_head(head)
    }

    /// The base with the adapter and the head that the six steps start from, tracked.
    pub(crate) fn start_model<B: TestBackend>(
        &self,
    ) -> PeftModel<Autodiff<B>, AnyAdapter<Autodiff<B>>> {
        let base = fixture::model::<Autodiff<B>>(&self.model);
        let adapter = self.start_adapter(base.config());
        let head = Head::from_data(
            self.kind(),
            self.tensors().get("start.head.weight"),
            self.kind()
                .has_bias()
                .then(|| self.tensors().get("start.head.bias")),
            &base.device(),
        );
        PeftModel::new(base, adapter).with_head(Some(head))
    }

    fn start_adapter<B: Backend>(&self, base: &DecoderConfig) -> AnyAdapter<B>
    where
        B::Device: Default,
    {
        let (tensors, device) = (self.tensors(), Default::default());
        let value = |name: &str| tensors.get(&format!("start.{name}"));
        if self.peft_type != "BEFT" {
            return self.method().with_state(&value, base, &device);
        }
        let names = self.adapter_names();
        let deltas = names.map(|name| {
            let (layer, module) = bias_of(name);
            (layer, module, value(name))
        });
        AnyAdapter::BitFit(BitFit::from_data(deltas.collect::<Vec<_>>(), base, &device))
    }

    fn adapter_names(&self) -> impl Iterator<Item = &String> {
        let names = self.six_steps.start.keys();
        names.filter(|name| !name.starts_with("head."))
    }

    /// Every trained tensor before or after the six steps (`start`, `end`), by the name that our parameter has.
    pub(crate) fn parameters(&self, when: &str) -> Vec<(String, Vec<f64>)> {
        let tensors = self.tensors();
        let names = self.six_steps.start.keys();
        let found = names.map(|name| {
            let value = tensors.get(&format!("{when}.{name}"));
            let own = match self.peft_type == "BEFT" && !name.starts_with("head.") {
                true => {
                    let (layer, module) = bias_of(name);
                    format!("{}.bias", module.module_path(layer))
                }
                false => name.clone(),
            };
            (own, value.iter::<f64>().collect())
        });
        found.collect()
    }

    /// Rows as a batch, with their labels.
    pub(crate) fn batch<B: Backend>(&self, labelled: &LabelledRows) -> Batch<B> {
        let mut rows = labelled.rows.clone();
        let cells = vec![vec![IGNORE_INDEX; rows.seq()]; rows.batch()];
        let labels = rows.labels.get_or_insert(cells);
        assert_eq!(labels.len(), labelled.rows.batch());
        let mut batch = rows.batch_on();
        if let Some(labels) = &labelled.row_labels {
            batch.row_labels = labels.iter().map(|label| self.row_label(label)).collect();
        }
        if let Some(spans) = &labelled.spans {
            let span = |&[start, end]: &[usize; 2]| Some(RowLabel::Span { start, end });
            batch.row_labels = spans.iter().map(span).collect();
        }
        batch
    }

    fn row_label(&self, label: &Value) -> Option<RowLabel> {
        let numbers = || {
            let numbers = label.as_array().unwrap().iter();
            numbers.map(|number| number.as_f64().unwrap() as f32)
        };
        Some(match self.problem_type.as_deref() {
            Some("single_label_classification") => {
                RowLabel::Class(label.as_u64().unwrap() as usize)
            }
            Some("multi_label_classification") => {
                RowLabel::Classes(numbers().map(|number| number == 1.0).collect())
            }
            _ => RowLabel::Values(numbers().collect()),
        })
    }
}

impl LabelledRows {
    /// One row without its padding.
    pub(crate) fn row(&self, row: usize) -> Self {
        Self {
            rows: self.rows.row(row),
            row_labels: self
                .row_labels
                .as_ref()
                .map(|labels| vec![labels[row].clone()]),
            spans: self.spans.as_ref().map(|spans| vec![spans[row]]),
        }
    }

    /// The same rows with all padding in front.
    pub(crate) fn left_padded(&self) -> Self {
        let padding = |row: usize| self.rows.seq() - self.rows.row(row).seq();
        let shifted =
            |(row, &[start, end]): (usize, &[usize; 2])| [start + padding(row), end + padding(row)];
        Self {
            rows: self.rows.left_padded(),
            row_labels: self.row_labels.clone(),
            spans: self
                .spans
                .as_ref()
                .map(|spans| spans.iter().enumerate().map(shifted).collect()),
        }
    }
}
