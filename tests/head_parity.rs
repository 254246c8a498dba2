//! Heads against PEFT and transformers: logits, losses and six steps of every case under `tests/fixtures/heads`.

use std::{fs, ops::Deref};

use burn::{
    backend::Autodiff,
    optim::Optimizer,
    tensor::{Tensor, backend::Backend},
};
use burn_peft::{AnyAdapter, Head, HeadKind, PeftModel};
use burn_peft_data::{Batch, RowLabel};
use burn_peft_format::{AdapterFolder, adapter_from_folder, head_from_folder};
use burn_peft_ops::Ops;
use burn_peft_train::{TrainConfig, Trainee, clip_grad_norm, init_optimizer, losses};
use burn_train::TrainStep;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    backends::TestBackend,
    cases::{AdamW, Setup},
    fixture::{self, Rows},
};

on_every_backend!(
    a_saved_head_gives_pefts_logits_and_losses,
    six_adamw_steps_with_a_head_follow_pefts,
);

/// Relative, of the loss of a row: some 200 roundings of f32 in sums taken in another order.
const LOSS_TOLERANCE: f64 = 2e-5;
/// Relative, of the loss at each of six steps: the difference of one step moves the next.
const STEPS_TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct HeadCase {
    #[serde(flatten)]
    setup: Setup,
    problem_type: Option<String>,
    evaluation: Evaluation,
    six_steps: SixSteps,
}

#[derive(Deserialize)]
struct Evaluation {
    #[serde(flatten)]
    rows: LabelledRows,
    row_losses: Vec<f64>,
    logits: String,
}

#[derive(Deserialize)]
struct SixSteps {
    optimizer: AdamW,
    start: serde_json::Map<String, Value>,
    batches: Vec<LabelledRows>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
}

#[derive(Clone, Deserialize)]
struct LabelledRows {
    #[serde(flatten)]
    rows: Rows,
    row_labels: Option<Vec<Value>>,
    spans: Option<Vec<[usize; 2]>>,
}

impl LabelledRows {
    fn batch<B: Backend>(&self, problem_type: Option<&str>) -> Batch<B>
    where
        B::Device: Default,
    {
        let mut batch = self.rows.batch_on::<B>();
        let numbers =
            |label: &Value| -> Vec<f32> { serde_json::from_value(label.clone()).unwrap() };
        let of_row = |label: &Value| match problem_type {
            Some("multi_label_classification") => {
                RowLabel::Classes(numbers(label).into_iter().map(|is| is == 1.0).collect())
            }
            Some("regression") => RowLabel::Values(numbers(label)),
            _ => RowLabel::Class(label.as_u64().unwrap() as usize),
        };
        if let Some(labels) = &self.row_labels {
            batch.row_labels = labels.iter().map(|label| Some(of_row(label))).collect();
        }
        if let Some(spans) = &self.spans {
            let spans = spans.iter();
            let spans = spans.map(|&[start, end]| Some(RowLabel::Span { start, end }));
            batch.row_labels = spans.collect();
        }
        batch
    }

    /// One row without its padding.
    fn row(&self, row: usize) -> Self {
        Self {
            rows: self.rows.row(row),
            row_labels: self.row_labels.as_ref().map(|all| vec![all[row].clone()]),
            spans: self.spans.as_ref().map(|all| vec![all[row]]),
        }
    }
}

impl Deref for HeadCase {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        &self.setup
    }
}

impl HeadCase {
    fn kind(&self) -> HeadKind {
        match self.name.as_str() {
            name if name.contains("seq-cls") => HeadKind::Sequence,
            name if name.contains("token-cls") => HeadKind::Token,
            _ => HeadKind::Span,
        }
    }

    fn saved_model<B: TestBackend>(&self) -> PeftModel<B, AnyAdapter<B>> {
        let base = fixture::model::<B>(&self.model);
        let path = self.folder();
        let folder = AdapterFolder::load(&path).unwrap();
        let adapter = adapter_from_folder(&folder, base.config(), &path, &base.device()).unwrap();
        let head = head_from_folder(&folder, base.config(), &path, &base.device()).unwrap();
        assert_eq!(
            head.as_ref().map(Head::kind),
            Some(self.kind()),
            "{}",
            self.name
        );
        PeftModel::new(base, adapter).with_head(head)
    }

    fn start_model<B: TestBackend>(&self) -> PeftModel<Autodiff<B>, AnyAdapter<Autodiff<B>>> {
        let base = fixture::model::<Autodiff<B>>(&self.model);
        let is_head = |name: &str| name.starts_with("head.");
        let names = self.six_steps.start.keys();
        let adapter = self.state("start", names.filter(|name| !is_head(name)), base.config());
        let tensors = self.tensors();
        let bias = self.six_steps.start.contains_key("head.bias");
        let bias = bias.then(|| tensors.get("start.head.bias"));
        let weight = tensors.get("start.head.weight");
        let head = Head::from_data(self.kind(), weight, bias, &Default::default());
        PeftModel::new(base, adapter).with_head(Some(head))
    }

    fn batch<B: Backend>(&self, rows: &LabelledRows) -> Batch<B>
    where
        B::Device: Default,
    {
        rows.batch(self.problem_type.as_deref())
    }
}

fn cases<B: TestBackend>() -> Vec<HeadCase> {
    let mut names: Vec<String> = fs::read_dir(fixture::path("heads"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{names:?}");
    if !B::THOROUGH {
        // One a task.
        names.retain(|name| name.starts_with("tied_gqa") && name.ends_with("s-p-tuning-v2"));
        assert_eq!(names.len(), 3, "{names:?}");
    }
    let read = |name: &String| fixture::json(&format!("heads/{name}/case.json"));
    names.iter().map(read).collect()
}

/// The logits that a head gives at the tokens of one row, or at its last one, flat.
fn logits<B: Ops>(model: &PeftModel<B, AnyAdapter<B>>, rows: &Rows) -> Vec<f64>
where
    B::Device: Default,
{
    let head = model.head().unwrap();
    let tokens = rows.seq();
    let cells: Vec<usize> = match head.kind() {
        HeadKind::Sequence => vec![tokens - 1],
        HeadKind::Token | HeadKind::Span => (0..tokens).collect(),
    };
    let logits: Tensor<B, 2> = head.forward(model.prepare(rows.inputs()).states(&cells));
    logits.into_data().iter::<f64>().collect()
}

fn a_saved_head_gives_pefts_logits_and_losses<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let rows = &case.evaluation.rows;
        let expected = case.tensors().get(&case.evaluation.logits);
        let expected: Vec<f64> = expected.iter::<f64>().collect();
        let outputs = model.head().unwrap().outputs();
        let seq = rows.rows.seq();
        for row in 0..rows.rows.batch() {
            let single = rows.row(row);
            let found = logits(&model, &single.rows);
            // The logits of a row's padding are in the file, too.
            let first = match case.kind() {
                HeadKind::Sequence => row * outputs,
                HeadKind::Token | HeadKind::Span => row * seq * outputs,
            };
            for (found, expected) in found.iter().zip(&expected[first..]) {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{name}, row {row}: {found} {expected}"
                );
            }
            let batch = case.batch::<B>(&single);
            let loss = losses(&model, &batch).unwrap().nll.mean();
            let loss: f64 = loss.into_data().iter::<f64>().sum();
            let expected = case.evaluation.row_losses[row];
            let difference = (loss - expected).abs() / expected.max(0.1);
            assert!(
                difference < LOSS_TOLERANCE,
                "{name}, row {row}: {loss} {expected}"
            );
        }
    }
}

fn six_adamw_steps_with_a_head_follow_pefts<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let mut trainee = Trainee::new(case.start_model::<B>());
        let steps = &case.six_steps;
        let mut optimizer = init_optimizer::<Autodiff<B>, _>(&TrainConfig {
            weight_decay: steps.optimizer.weight_decay,
            adam_epsilon: steps.optimizer.eps,
            ..TrainConfig::default()
        });
        let slack = match case.has_encoder() {
            true => B::ENCODER_SLACK,
            false => 1.0,
        };
        let tolerance = slack * STEPS_TOLERANCE;
        assert_eq!(steps.batches.len(), 6);
        for (step, rows) in steps.batches.iter().enumerate() {
            let batch = case.batch::<Autodiff<B>>(rows);
            let output = TrainStep::step(&trainee, vec![batch]);
            let difference = (output.item.loss - steps.losses[step]).abs() / steps.losses[step];
            assert!(difference < tolerance, "{name}, step {step}: {difference}");
            let (gradients, norm) = clip_grad_norm(&trainee, output.grads, 0.0);
            let difference = (norm.unwrap() / steps.grad_norms[step] - 1.0).abs();
            assert!(
                difference < 10.0 * tolerance,
                "{name}, norm {step}: {difference}"
            );
            trainee = optimizer.step(steps.optimizer.lr, trainee, gradients);
        }
    }
}
