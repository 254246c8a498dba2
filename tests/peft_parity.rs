//! Adapters do here what they do in `peft`: one runner over the table of cases under
//! `tests/fixtures/cases`.

use std::{fs, ops::ControlFlow, path::PathBuf};

use burn::{
    module::AutodiffModule,
    optim::Optimizer,
    tensor::{Tensor, backend::AutodiffBackend},
};
use burn_peft::{AnyAdapter, PeftModel, PromptTuning};
use burn_peft_data::Batch;
use burn_peft_format::{AdapterFolder, adapter_from_folder};
use burn_peft_train::{TrainConfig, Trainee, clip_grad_norm, init_optimizer, token_losses};
use burn_qwen2::GenerationOptions;
use burn_train::TrainStep;
use serde::Deserialize;

use crate::{
    backends::TestBackend,
    fixture::{self, Greedy, Rows, Tensors},
};

/// Relative, of a row's summed loss: some 200 roundings of f32 in sums taken in another order.
const LOSS_TOLERANCE: f64 = 2e-5;
/// Relative, of the loss at each of six steps: the difference of one step moves the next.
const STEPS_TOLERANCE: f64 = 1e-4;
/// Absolute, of an element after six steps. Adam divides by the root of the second moment, so where
/// a gradient is near zero its rounding decides the sign of an update of lr = 0.05.
const STATE_TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Case {
    model: String,
    peft_type: String,
    evaluation: Evaluation,
    greedy: Vec<Greedy>,
    six_steps: SixSteps,
}

#[derive(Deserialize)]
struct Evaluation {
    #[serde(flatten)]
    rows: Rows,
    loss: f64,
    #[serde(rename = "rows")]
    per_row: Vec<RowLoss>,
    row0_logits: String,
}

#[derive(Deserialize)]
struct RowLoss {
    nll_sum: f64,
    label_tokens: usize,
}

#[derive(Deserialize)]
struct SixSteps {
    optimizer: AdamW,
    batches: Vec<Rows>,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
}

#[derive(Deserialize)]
struct AdamW {
    lr: f64,
    weight_decay: f64,
    eps: f64,
}

/// The cases whose `peft_type` is one of `types`, by name.
fn cases(types: &[&str]) -> Vec<(String, Case)> {
    let mut names: Vec<String> = fs::read_dir(fixture::path("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let cases: Vec<(String, Case)> = names
        .into_iter()
        .map(|name| {
            let case: Case = fixture::json(&format!("cases/{name}/case.json"));
            (name, case)
        })
        .filter(|(_, case)| types.contains(&case.peft_type.as_str()))
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn folder(name: &str) -> (AdapterFolder, PathBuf) {
    let path = fixture::path(&format!("cases/{name}/adapter"));
    (AdapterFolder::load(&path).unwrap(), path)
}

fn saved_model<B: TestBackend>(name: &str, case: &Case) -> PeftModel<B, AnyAdapter<B>> {
    let base = fixture::model::<B>(&case.model);
    let (folder, path) = folder(name);
    let adapter = adapter_from_folder(&folder, base.config(), &path, &base.device()).unwrap();
    PeftModel::new(base, adapter)
}

/// Cases whose saved form runs here.
const RUNNABLE: [&str; 2] = ["PROMPT_TUNING", "P_TUNING"];

on_every_backend!(
    a_saved_adapter_gives_pefts_losses,
    a_saved_adapter_gives_pefts_logits,
    a_saved_adapter_gives_pefts_greedy_tokens,
    six_adamw_steps_follow_pefts,
    a_row_with_a_prompt_does_not_depend_on_its_batch,
);

fn a_saved_adapter_gives_pefts_losses<B: TestBackend>() {
    for (name, case) in cases(&RUNNABLE) {
        let model = saved_model::<B>(&name, &case);
        let losses = token_losses(&model, &case.evaluation.rows.batch_on()).unwrap();
        let nll: Vec<f64> = losses.nll.into_data().iter::<f64>().collect();
        for (row, expected) in case.evaluation.per_row.iter().enumerate() {
            let of_row = losses.rows.iter().zip(&nll).filter(|(r, _)| **r == row);
            let (count, sum) = of_row.fold((0, 0.0), |(n, sum), (_, nll)| (n + 1, sum + nll));
            assert_eq!(count, expected.label_tokens, "{name}");
            let difference = (sum - expected.nll_sum).abs() / expected.nll_sum;
            let tolerance = LOSS_TOLERANCE * B::SLACK;
            assert!(difference < tolerance, "{name}, row {row}: {difference}");
        }
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        let difference = (mean - case.evaluation.loss).abs() / case.evaluation.loss;
        assert!(
            difference < LOSS_TOLERANCE * B::SLACK,
            "{name}: {difference}"
        );
    }
}

fn a_saved_adapter_gives_pefts_logits<B: TestBackend>() {
    for (name, case) in cases(&RUNNABLE) {
        let model = saved_model::<B>(&name, &case);
        let tensors = Tensors::read(&format!("cases/{name}/tensors.safetensors"));
        let expected: Vec<f64> = tensors
            .get(&case.evaluation.row0_logits)
            .iter::<f64>()
            .collect();
        let prepared = model.prepare(case.evaluation.rows.row(0).inputs());
        let mut cache = prepared.cache;
        let hidden = prepared
            .base
            .decode(prepared.hidden, &prepared.mask, &mut cache);
        let [batch, seq, d_model] = hidden.dims();
        let logits = prepared.base.logits(hidden.reshape([batch * seq, d_model]));
        let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
        assert_eq!(logits.len(), expected.len(), "{name}");
        let differences = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f64::max);
        // As for the base alone.
        assert!(largest < 1e-4 * B::SLACK, "{name}: {largest}");
    }
}

fn a_saved_adapter_gives_pefts_greedy_tokens<B: TestBackend>() {
    for (name, case) in cases(&RUNNABLE) {
        let model = saved_model::<B>(&name, &case);
        for run in &case.greedy {
            let options = GenerationOptions::greedy(run.max_new_tokens, run.eos_token_id.clone());
            let found = model.generate(run.rows.inputs(), &options, &mut |_, _| {
                ControlFlow::Continue(())
            });
            let found: Vec<_> = found.into_iter().map(|row| row.token_ids).collect();
            assert_eq!(found, run.new_tokens, "{name}");
        }
    }
}

/// The trainable state that a case starts from.
fn start<B: AutodiffBackend>(case: &Case, tensors: &Tensors) -> AnyAdapter<B> {
    match case.peft_type.as_str() {
        "PROMPT_TUNING" => AnyAdapter::PromptTuning(PromptTuning::from_data(
            tensors.get("start.embedding.weight"),
            &Default::default(),
        )),
        other => panic!("{other} has no training here yet"),
    }
}

fn six_adamw_steps_follow_pefts<B: TestBackend>() {
    for (name, case) in cases(&["PROMPT_TUNING"]) {
        let tensors = Tensors::read(&format!("cases/{name}/tensors.safetensors"));
        let base = fixture::model::<B::Autodiff>(&case.model);
        let mut trainee = Trainee::new(PeftModel::new(base, start(&case, &tensors)));
        let steps = &case.six_steps;
        let mut optimizer = init_optimizer::<B::Autodiff, _>(&TrainConfig {
            weight_decay: steps.optimizer.weight_decay,
            adam_epsilon: steps.optimizer.eps,
            ..TrainConfig::default()
        });
        assert_eq!(steps.batches.len(), 6);
        for (step, rows) in steps.batches.iter().enumerate() {
            let output = TrainStep::step(&trainee, vec![rows.batch_on::<B::Autodiff>()]);
            let difference = (output.item.loss - steps.losses[step]).abs() / steps.losses[step];
            let tolerance = STEPS_TOLERANCE * B::SLACK;
            assert!(difference < tolerance, "{name}, step {step}: {difference}");
            let (gradients, norm) = clip_grad_norm(&trainee, output.grads, 0.0);
            let difference = (norm.unwrap() / steps.grad_norms[step] - 1.0).abs();
            assert!(
                difference < 10.0 * tolerance,
                "{name}, norm {step}: {difference}"
            );
            trainee = optimizer.step(steps.optimizer.lr, trainee, gradients);
        }
        let AnyAdapter::PromptTuning(adapter) = trainee.valid().into_model().adapter().clone()
        else {
            panic!("a prompt stays a prompt");
        };
        let expected: Tensor<B, 2> =
            Tensor::from_data(tensors.get("end.embedding.weight"), &B::Device::default());
        let largest = (adapter.prompt_embeddings() - expected)
            .abs()
            .max()
            .into_data();
        let largest: f64 = largest.iter::<f64>().sum();
        assert!(largest < STATE_TOLERANCE * B::SLACK, "{name}: {largest}");
    }
}

/// PEFT puts the prompt before left padding, and a row's loss then depends on it (peft#1093).
fn a_row_with_a_prompt_does_not_depend_on_its_batch<B: TestBackend>() {
    for (name, case) in cases(&["PROMPT_TUNING"]) {
        let model = saved_model::<B>(&name, &case);
        let rows = &case.evaluation.rows;
        let flipped = rows.left_padded();
        assert_ne!(
            flipped.attention_mask, rows.attention_mask,
            "padding to move"
        );
        let right = losses_by_row(&model, &rows.batch_on());
        let left = losses_by_row(&model, &flipped.batch_on());
        for row in 0..rows.batch() {
            let alone = losses_by_row(&model, &rows.row(row).batch_on())[0];
            for found in [right[row], left[row]] {
                let difference = (found - alone).abs() / alone;
                let tolerance = LOSS_TOLERANCE * B::SLACK;
                assert!(difference < tolerance, "{name}, row {row}: {difference}");
            }
        }
        // In generation too: every row of a left-padded batch gets what it gets alone.
        let options = GenerationOptions::greedy(8, vec![]);
        let mut go_on = |_, _| ControlFlow::Continue(());
        let together = model.generate(flipped.inputs(), &options, &mut go_on);
        for (row, found) in together.iter().enumerate() {
            let alone = model.generate(rows.row(row).inputs(), &options, &mut go_on);
            assert_eq!(found, &alone[0], "{name}, row {row}");
        }
    }
}

fn losses_by_row<B: TestBackend>(
    model: &PeftModel<B, AnyAdapter<B>>,
    batch: &Batch<B>,
) -> Vec<f64> {
    let losses = token_losses(model, batch).unwrap();
    let mut sums = vec![0.0; batch.batch];
    for (row, nll) in losses.rows.iter().zip(losses.nll.into_data().iter::<f64>()) {
        sums[*row] += nll;
    }
    sums
}
