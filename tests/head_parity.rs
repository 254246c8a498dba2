//! Adapters with heads do here what they do in `peft`: one runner over the table of cases.

use burn::{backend::Autodiff, module::AutodiffModule, optim::Optimizer};
use burn_peft::{HeadKind, param_id};
use burn_peft_train::{TrainConfig, Trainee, clip_grad_norm, init_optimizer, losses};
use burn_train::TrainStep;

use crate::{
    backends::TestBackend,
    head_cases::{LabelledRows, head_cases},
    peft_parity::{distance, parameters},
};

/// Of logits, absolute: as for the base alone.
const LOGIT_TOLERANCE: f64 = 1e-4;
/// Of a loss, relative where it is above 1: what the logits may differ by, with a margin.
const LOSS_TOLERANCE: f64 = 1e-4;
/// Of the way a parameter goes in six steps, relative, as L2 norms. As for adapters without a head, with more slack for
/// biases of keys, whose gradients are near zero.
const STATE_TOLERANCE: f64 = 1e-2;
const KEY_BIAS_TOLERANCE: f64 = 5e-2;

on_every_backend!(
    a_saved_head_gives_pefts_logits,
    a_saved_head_gives_transformers_losses,
    six_adamw_steps_with_a_head_follow_pefts,
);

/// The cells that a head reads, and where each stands among the logits of unpadded rows that are padded on the right.
fn cells_of(kind: HeadKind, rows: &LabelledRows) -> Vec<(usize, usize)> {
    let (batch, seq) = (rows.rows.batch(), rows.rows.seq());
    let cells = rows.rows.mask_cells();
    let of_row = |row: usize| {
        let tokens = (row * seq..(row + 1) * seq).filter(|cell| cells[*cell]);
        let tokens: Vec<usize> = tokens.collect();
        match kind {
            HeadKind::Sequence => vec![(tokens[tokens.len() - 1], row)],
            HeadKind::Token | HeadKind::Span => {
                let places = row * seq..(row + 1) * seq;
                tokens.into_iter().zip(places).collect()
            }
        }
    };
    (0..batch).flat_map(of_row).collect()
}

/// Whatever the padding, and PEFT's on rows without.
fn a_saved_head_gives_pefts_logits<B: TestBackend>() {
    for case in head_cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let head = model.head().unwrap();
        let expected = case.logits();
        let rows = &case.evaluation.rows;
        for rows in [rows.clone(), rows.left_padded()] {
            let cells = cells_of(case.kind(), &rows);
            let read: Vec<usize> = cells.iter().map(|(cell, _)| *cell).collect();
            let states = model.prepare(rows.rows.inputs()).states(&read);
            let logits: Vec<f64> = head.forward(states).into_data().iter::<f64>().collect();
            let outputs = head.outputs();
            for ((_, place), found) in cells.iter().zip(logits.chunks(outputs)) {
                let expected = &expected[place * outputs..(place + 1) * outputs];
                let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f64::max);
                assert!(largest < LOGIT_TOLERANCE, "{name}, {place}: {largest}");
            }
        }
    }
}

fn a_saved_head_gives_transformers_losses<B: TestBackend>() {
    for case in head_cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let rows = &case.evaluation.rows;
        for rows in [rows.clone(), rows.left_padded()] {
            let found = losses(&model, &case.batch(&rows)).unwrap();
            let nll: Vec<f64> = found.nll.into_data().iter::<f64>().collect();
            for (row, expected) in case.evaluation.row_losses.iter().enumerate() {
                let of_row = found.rows.iter().zip(&nll).filter(|(r, _)| **r == row);
                let (count, sum) = of_row.fold((0, 0.0), |(n, sum), (_, nll)| (n + 1, sum + nll));
                let difference = (sum / f64::from(count) - expected).abs() / expected.max(1.0);
                assert!(
                    difference < LOSS_TOLERANCE,
                    "{name}, row {row}: {difference}"
                );
            }
        }
        let alone = losses(&model, &case.batch(&rows.row(2))).unwrap();
        let mean = alone.nll.mean().into_data().iter::<f64>().next().unwrap();
        let expected = case.evaluation.row_losses[2];
        let difference = (mean - expected).abs() / expected.max(1.0);
        assert!(difference < LOSS_TOLERANCE, "{name} alone: {difference}");
    }
}

fn six_adamw_steps_with_a_head_follow_pefts<B: TestBackend>() {
    for case in head_cases::<B>() {
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
        let tolerance = slack * LOSS_TOLERANCE;
        assert_eq!(steps.batches.len(), 6);
        for (step, batch) in steps.batches.iter().enumerate() {
            let output = TrainStep::step(&trainee, vec![case.batch(batch)]);
            let difference = (output.item.loss / steps.losses[step] - 1.0).abs();
            assert!(difference < tolerance, "{name}, step {step}: {difference}");
            let (gradients, norm) = clip_grad_norm(&trainee, output.grads, 0.0);
            let difference = (norm.unwrap() / steps.grad_norms[step] - 1.0).abs();
            assert!(
                difference < 10.0 * tolerance,
                "{name}, norm {step}: {difference}"
            );
            trainee = optimizer.step(steps.optimizer.lr, trainee, gradients);
        }
        let found = parameters::<B, _>(&trainee.valid().into_model());
        let (start, end) = (case.parameters("start"), case.parameters("end"));
        assert_eq!(found.len(), end.len(), "{name}");
        for ((parameter, start), (_, end)) in start.iter().zip(&end) {
            // Softmax over the cells of a row does not feel what is added to all of them: the gradient is rounding.
            if case.kind() == HeadKind::Span && parameter == "head.bias" {
                continue;
            }
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
