//! The frozen model gives what `transformers` gives.

use std::ops::ControlFlow;

use burn::tensor::{DType, Tensor};
use burn_peft::{NoAdapter, PeftModel};
use burn_peft_decoder::{Checkpoint, Decoder, GenerationOptions, KvCache};
use serde::Deserialize;

use crate::{
    backends::TestBackend,
    fixture::{self, Greedy, Rows, Tensors},
};

const MODELS: [&str; 7] = [
    "tied_gqa",
    "untied_mha",
    "sharded",
    "llama_tied_gqa",
    "llama_untied_mha",
    "qwen3_tied_gqa",
    "qwen3_untied_mha",
];

/// Absolute: logits of these models reach about 10, so 1e-4 is some 80 roundings of f32.
const LOGITS_TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Base {
    forward: Vec<Forward>,
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct Forward {
    name: String,
    #[serde(flatten)]
    rows: Rows,
    logits: String,
}

on_every_backend!(
    logits_equal_with_any_padding,
    greedy_tokens_equal_with_and_without_left_padding,
    a_row_does_not_depend_on_its_batch,
    a_sequence_in_two_parts_equals_one,
);

fn logits<B: TestBackend>(model: &Decoder<B>, rows: &Rows) -> Vec<f64> {
    let inputs = rows.inputs::<B>();
    let mut cache = KvCache::empty(model.config().num_hidden_layers, rows.batch());
    let hidden = model.decode(
        model.embed(inputs.input_ids),
        &inputs.attention_mask,
        &mut cache,
        None,
    );
    model.logits(hidden).into_data().iter::<f64>().collect()
}

/// The largest difference at cells that hold a token.
fn largest_difference(rows: &Rows, found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let vocab = found.len() / (rows.batch() * rows.seq());
    let cells = rows.mask_cells();
    let differences = found
        .iter()
        .zip(expected)
        .enumerate()
        .filter(|(index, _)| cells[index / vocab])
        .map(|(_, (found, expected))| (found - expected).abs());
    differences.fold(0.0, f64::max)
}

fn logits_equal_with_any_padding<B: TestBackend>() {
    for name in MODELS {
        let base: Base = fixture::json(&format!("base/{name}/logits.json"));
        let tensors = Tensors::read(&format!("base/{name}/tensors.safetensors"));
        let model = fixture::model::<B>(name);
        assert!(base.forward.len() >= 3, "none, left and right");
        for case in &base.forward {
            let expected: Vec<f64> = tensors.get(&case.logits).iter::<f64>().collect();
            let difference = largest_difference(&case.rows, &logits(&model, &case.rows), &expected);
            assert!(
                difference < LOGITS_TOLERANCE,
                "{name}, padding {}: {difference}",
                case.name
            );
        }
    }
}

fn greedy_tokens_equal_with_and_without_left_padding<B: TestBackend>() {
    for name in MODELS {
        let base: Base = fixture::json(&format!("base/{name}/logits.json"));
        let model = PeftModel::new(fixture::model::<B>(name), NoAdapter::default());
        for case in &base.greedy {
            let options = GenerationOptions::greedy(case.max_new_tokens, case.eos_token_id.clone());
            let found = model.generate(case.rows.inputs(), &options, &mut |_, _| {
                ControlFlow::Continue(())
            });
            let found: Vec<_> = found.into_iter().map(|row| row.token_ids).collect();
            assert_eq!(found, case.new_tokens, "{name}");
        }
    }
}

fn a_row_does_not_depend_on_its_batch<B: TestBackend>() {
    let base: Base = fixture::json("base/tied_gqa/logits.json");
    let model = fixture::model::<B>("tied_gqa");
    for case in base.forward.iter().filter(|case| case.name != "none") {
        let together = logits(&model, &case.rows);
        let vocab = together.len() / (case.rows.batch() * case.rows.seq());
        let cells = case.rows.mask_cells();
        for row in 0..case.rows.batch() {
            let start = row * case.rows.seq();
            let kept: Vec<usize> = (0..case.rows.seq()).filter(|i| cells[start + i]).collect();
            let alone = Rows {
                input_ids: vec![kept.iter().map(|i| case.rows.input_ids[row][*i]).collect()],
                attention_mask: None,
                labels: None,
            };
            let alone_logits = logits(&model, &alone);
            let in_batch: Vec<f64> = kept
                .iter()
                .flat_map(|i| together[(start + i) * vocab..(start + i + 1) * vocab].to_vec())
                .collect();
            let difference = largest_difference(&alone, &alone_logits, &in_batch);
            assert!(difference < LOGITS_TOLERANCE, "{}: {difference}", case.name);
        }
    }
}

fn a_sequence_in_two_parts_equals_one<B: TestBackend>() {
    let base: Base = fixture::json("base/untied_mha/logits.json");
    let model = PeftModel::new(fixture::model::<B>("untied_mha"), NoAdapter::default());
    let rows = &base.forward[0].rows;
    let whole = logits(model.base(), rows);
    let cut = rows.seq() / 2;
    let layers = model.base().config().num_hidden_layers;
    let mut cache = KvCache::empty(layers, rows.input_ids.len());
    let mut parts = Vec::new();
    for range in [0..cut, cut..rows.seq()] {
        let part = Rows {
            input_ids: rows
                .input_ids
                .iter()
                .map(|row| row[range.clone()].to_vec())
                .collect(),
            attention_mask: None,
            labels: None,
        };
        let inputs = part.inputs::<B>();
        let hidden = model.base().embed(inputs.input_ids);
        let [batch, seq, d_model] = hidden.dims();
        let states = (model.base()).decode(hidden, &inputs.attention_mask, &mut cache, None);
        parts.push(states.reshape([batch, seq, d_model]));
    }
    let hidden: Tensor<B, 3> = Tensor::cat(parts, 1);
    let [batch, seq, d_model] = hidden.dims();
    let logits = model.base().logits(hidden.reshape([batch * seq, d_model]));
    let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let difference = largest_difference(rows, &logits, &whole);
    assert!(difference < LOGITS_TOLERANCE, "{difference}");
}

#[test]
fn a_config_of_transformers_4_reads_as_the_one_of_transformers_5() {
    for model in ["tied_gqa", "llama_tied_gqa"] {
        let read = |name: &str| {
            let path = fixture::path("models").join(model).join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            burn_peft_decoder::DecoderConfig::parse(&text, path).unwrap()
        };
        assert_eq!(read("config_v4.json"), read("config.json"), "{model}");
    }
}

#[test]
fn a_bf16_base_follows_its_f32_self_to_bf16s_rounding() {
    // Flex refuses every operation of mixed dtypes, so this also shows that there is none.
    type B = burn_flex::Flex;
    let base: Base = fixture::json("base/sharded/logits.json");
    let checkpoint = Checkpoint::open(fixture::path("models/sharded")).unwrap();
    let load = |dtype| -> Decoder<B> {
        checkpoint
            .load(dtype, &Default::default(), &mut |_, _| {})
            .unwrap()
    };
    let rows = &base.forward[0].rows;
    let (wide, narrow) = (load(DType::F32), load(DType::BF16));
    let (wide, narrow) = (logits(&wide, rows), logits(&narrow, rows));
    let difference = largest_difference(rows, &narrow, &wide);
    let largest = wide.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    // bf16 keeps 8 bits; four layers of a dozen roundings each lose some of the last three.
    assert!(
        difference < largest * 2.0_f64.powi(-5),
        "{difference} of {largest}"
    );
}
