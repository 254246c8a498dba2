//! Adapters do here what they do in `peft`, and BitFit what transformers does with only biases trainable:
//! one runner over the table of cases.

use std::{collections::HashMap, ops::ControlFlow};

use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId},
    optim::Optimizer,
    tensor::{Tensor, backend::Backend},
};
use burn_peft::{
    AnyAdapter, InitTokens, MethodConfig, PTuningV2Config, PeftModel, PrefixInit, param_id,
};
use burn_peft_data::Batch;
use burn_peft_decoder::GenerationOptions;
use burn_peft_format::{AdapterFolder, adapter_from_folder, folder_from_adapter};
use burn_peft_train::{
    TrainConfig, Trainee, clip_grad_norm, init_optimizer, injected_losses, losses,
};
use burn_train::TrainStep;

use crate::{
    backends::TestBackend,
    cases::{case, cases},
    fixture,
};

/// Relative, of a row's summed loss: some 200 roundings of f32 in sums taken in another order.
const LOSS_TOLERANCE: f64 = 2e-5;
/// Relative, of the loss at each of six steps: the difference of one step moves the next.
const STEPS_TOLERANCE: f64 = 1e-4;
/// The same for an LSTM, whose six tokens pass twelve times through the same weights.
const LSTM_STEPS_TOLERANCE: f64 = 1e-3;
/// Of the way a parameter goes in six steps, relative, as L2 norms. Adam divides by the root of the second
/// moment, so where a gradient is near zero its rounding decides the sign of a whole update.
const STATE_TOLERANCE: f64 = 1e-2;
/// The same for biases of keys, which have such elements among their 32: softmax does not feel what is added to
/// the scores of all keys alike. One update of the other sign is a tenth of the way.
const KEY_BIAS_TOLERANCE: f64 = 5e-2;

on_every_backend!(
    a_saved_adapter_gives_pefts_losses,
    a_saved_adapter_gives_pefts_logits,
    a_saved_adapter_gives_pefts_greedy_tokens,
    six_adamw_steps_follow_pefts,
    a_row_with_an_adapter_does_not_depend_on_its_batch,
    a_prefix_of_a_text_starts_as_pefts,
    an_exported_adapter_is_the_same_function_and_trainable,
);

fn a_saved_adapter_gives_pefts_losses<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let found = losses(&model, &case.evaluation.rows.batch_on()).unwrap();
        let nll: Vec<f64> = found.nll.into_data().iter::<f64>().collect();
        for (row, expected) in case.evaluation.per_row.iter().enumerate() {
            let of_row = found.rows.iter().zip(&nll).filter(|(r, _)| **r == row);
            let (count, sum) = of_row.fold((0, 0.0), |(n, sum), (_, nll)| (n + 1, sum + nll));
            assert_eq!(count, expected.label_tokens, "{name}");
            let difference = (sum - expected.nll_sum).abs() / expected.nll_sum;
            assert!(
                difference < LOSS_TOLERANCE,
                "{name}, row {row}: {difference}"
            );
        }
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        let difference = (mean - case.evaluation.loss).abs() / case.evaluation.loss;
        assert!(difference < LOSS_TOLERANCE, "{name}: {difference}");
    }
}

fn a_saved_adapter_gives_pefts_logits<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let expected = case.tensors().get(&case.evaluation.row0_logits);
        let expected: Vec<f64> = expected.iter::<f64>().collect();
        let prepared = model.prepare(case.evaluation.rows.row(0).inputs());
        let hidden = prepared.hidden_states();
        let [batch, seq, d_model] = hidden.dims();
        let logits = prepared
            .base()
            .logits(hidden.reshape([batch * seq, d_model]));
        let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
        assert_eq!(logits.len(), expected.len(), "{name}");
        let differences = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f64::max);
        // As for the base alone.
        assert!(largest < 1e-4, "{name}: {largest}");
    }
}

fn a_saved_adapter_gives_pefts_greedy_tokens<B: TestBackend>() {
    for case in cases::<B>() {
        let model = case.saved_model::<B>();
        let injected = model.injected();
        for run in &case.greedy {
            let options = GenerationOptions::greedy(run.max_new_tokens, run.eos_token_id.clone());
            // Computed for one batch, and computed once and kept.
            for found in [
                model.generate(run.rows.inputs(), &options, &mut go_on),
                injected.generate(run.rows.inputs(), &options, &mut go_on),
            ] {
                let found: Vec<_> = found.into_iter().map(|row| row.token_ids).collect();
                assert_eq!(found, run.new_tokens, "{}", case.name);
            }
        }
    }
}

fn go_on(_: usize, _: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn six_adamw_steps_follow_pefts<B: TestBackend>() {
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
        let tolerance = slack
            * match case.is_lstm() {
                true => LSTM_STEPS_TOLERANCE,
                false => STEPS_TOLERANCE,
            };
        assert_eq!(steps.batches.len(), 6);
        for (step, rows) in steps.batches.iter().enumerate() {
            let output = TrainStep::step(&trainee, vec![rows.batch_on::<Autodiff<B>>()]);
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
        let found = parameters::<B, _>(trainee.valid().into_model().adapter());
        let (start, end) = (case.parameters("start"), case.parameters("end"));
        assert_eq!(found.len(), end.len(), "{name}");
        for ((parameter, start), (_, end)) in start.iter().zip(&end) {
            let found = &found[&param_id(parameter)];
            let (way, error) = (distance(start, end), distance(found, end));
            let tolerance = match parameter.ends_with("k_proj.bias") {
                true => KEY_BIAS_TOLERANCE,
                false => STATE_TOLERANCE,
            };
            assert!(
                error < tolerance * way * slack,
                "{name}, {parameter}: {error} on a way of {way}"
            );
        }
    }
}

/// The L2 norm of a difference.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f64>().sqrt()
}

/// Every trainable parameter's values, by id.
pub(crate) fn parameters<B: Backend, M: Module<B>>(module: &M) -> HashMap<ParamId, Vec<f64>> {
    struct Collect(HashMap<ParamId, Vec<f64>>);
    impl<B: Backend> ModuleVisitor<B> for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let values = param.val().into_data().iter::<f64>().collect();
            self.0.insert(param.id, values);
        }
    }
    let mut collect = Collect(HashMap::new());
    module.visit(&mut collect);
    collect.0
}

/// PEFT puts the prompt before left padding, and a row's loss then depends on it (peft#1093).
fn a_row_with_an_adapter_does_not_depend_on_its_batch<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let rows = &case.evaluation.rows;
        let flipped = rows.left_padded();
        assert_ne!(
            flipped.attention_mask, rows.attention_mask,
            "padding to move"
        );
        let right = losses_by_row(&model, &rows.batch_on());
        let left = losses_by_row(&model, &flipped.batch_on());
        let injected = model.injected();
        for row in 0..rows.batch() {
            let batch = rows.row(row).batch_on();
            let alone = losses_by_row(&model, &batch)[0];
            // With what was computed once for all batches, as in an evaluation.
            let kept = injected_losses(&injected, &batch).unwrap();
            let kept = kept.nll.into_data().iter::<f64>().sum();
            for found in [right[row], left[row], kept] {
                let difference = (found - alone).abs() / alone;
                assert!(
                    difference < LOSS_TOLERANCE,
                    "{name}, row {row}: {difference}"
                );
            }
        }
        // In generation too: every row of a left-padded batch gets what it gets alone.
        let options = GenerationOptions::greedy(8, vec![]);
        let together = model.generate(flipped.inputs(), &options, &mut go_on);
        for (row, found) in together.iter().enumerate() {
            let alone = model.generate(rows.row(row).inputs(), &options, &mut go_on);
            assert_eq!(found, &alone[0], "{name}, row {row}");
            let kept = injected.generate(rows.row(row).inputs(), &options, &mut go_on);
            assert_eq!(found, &kept[0], "{name}, row {row}, adapter computed once");
        }
    }
}

fn losses_by_row<B: TestBackend>(
    model: &PeftModel<B, AnyAdapter<B>>,
    batch: &Batch<B>,
) -> Vec<f64> {
    let found = losses(model, batch).unwrap();
    let mut sums = vec![0.0; batch.batch];
    for (row, nll) in found.rows.iter().zip(found.nll.into_data().iter::<f64>()) {
        sums[*row] += nll;
    }
    sums
}

fn a_prefix_of_a_text_starts_as_pefts<B: TestBackend>() {
    for model in ["tied_gqa", "untied_mha", "llama_tied_gqa", "qwen3_tied_gqa"] {
        let case = case(&format!("{model}-p-tuning-v2-text"));
        let base = fixture::model::<B>(&case.model);
        let ids = case.init_token_ids.clone().unwrap();
        let expected = case.tensors().get("start.embedding.weight");
        let method = MethodConfig::PTuningV2(PTuningV2Config {
            num_virtual_tokens: Some(ids.len()),
            init_weights: PrefixInit::Text,
            prefix_init_text: case.init_text.clone(),
            ..PTuningV2Config::default()
        });
        let tokens = InitTokens {
            text_ids: ids,
            ..InitTokens::default()
        };
        let adapter = method.init(&base, &tokens, 0).unwrap();
        let found = &parameters::<B, _>(&adapter)[&param_id("embedding.weight")];
        let expected: Vec<f64> = expected.iter::<f64>().collect();
        let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f64::max);
        // Keys and values of these models reach about 5: some 20 roundings of f32.
        assert!(largest < 5e-5, "{model}: {largest}");
    }
}

/// What is saved is what the adapter injects, without the encoder that made it.
fn an_exported_adapter_is_the_same_function_and_trainable<B: TestBackend>() {
    for case in cases::<B>() {
        let name = &case.name;
        let trained = case.start_model::<B>().valid();
        let base = trained.base().clone();
        let method = case.method();
        let folder = folder_from_adapter(trained.adapter(), &method, base.config(), None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        folder.save(dir.path(), &Default::default()).unwrap();
        let folder = AdapterFolder::load(dir.path()).unwrap();
        let base = fixture::model::<Autodiff<B>>(&case.model);
        let adapter =
            adapter_from_folder(&folder, base.config(), dir.path(), &base.device()).unwrap();
        let trainee = Trainee::new(PeftModel::new(base, adapter));
        let batch = case.evaluation.rows.batch_on();
        let losses = losses_by_row(&trained, &batch);
        let exported = trainee.valid().into_model();
        for (a, b) in losses.iter().zip(losses_by_row(&exported, &batch)) {
            // The same numbers enter the same operations, but for the sums of a prefix's layout.
            assert!((a - b).abs() <= 1e-6 * a, "{name}: {a} {b}");
        }
        let output = TrainStep::step(&trainee, vec![case.evaluation.rows.batch_on()]);
        let (_, norm) = clip_grad_norm(&trainee, output.grads, 0.0);
        assert!(
            norm.is_some_and(|norm| norm > 0.0),
            "{name} is not trainable"
        );
    }
}
