//! What holds while an adapter trains.

use burn::{
    backend::Autodiff,
    module::AutodiffModule,
    optim::Optimizer,
    tensor::{DType, TensorData},
};
use burn_ndarray::NdArray;
use burn_peft::{AnyAdapter, Inputs, NoAdapter, PeftModel, PromptTuning};
use burn_peft_ops::Ops;
use burn_peft_train::{TrainConfig, Trainee, init_optimizer, token_losses};
use burn_qwen2::{AttentionMask, Checkpoint, KvCache, Qwen2};
use burn_train::TrainStep;

use crate::{
    backends::TestBackend,
    fixture::{self, Rows},
};

on_every_backend!(
    training_leaves_the_bases_bits_as_they_are,
    accumulated_micro_batches_equal_one_batch,
    virtual_tokens_in_marked_slots_equal_those_in_front,
);

fn rows() -> Vec<Rows> {
    let case: serde_json::Value = fixture::json("cases/tied_gqa-prompt-tuning-random/case.json");
    let batches = case["six_steps"]["batches"].clone();
    serde_json::from_value(batches).unwrap()
}

/// Numbers that no two cells share.
fn prompt(tokens: usize, width: usize) -> TensorData {
    let values = (0..tokens * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0);
    TensorData::new(values.collect::<Vec<f32>>(), [tokens, width])
}

fn trainee<B: Ops>(base: Qwen2<B>) -> Trainee<B, AnyAdapter<B>> {
    let device = base.device();
    let adapter = PromptTuning::from_data(prompt(5, base.config().hidden_size), &device);
    Trainee::new(PeftModel::new(base, AnyAdapter::PromptTuning(adapter)))
}

/// Hidden states of the base on a fixed input, with every layer and the table in them.
fn fingerprint<B: Ops>(base: &Qwen2<B>) -> Vec<u32> {
    let inputs = rows()[0].row(0).inputs::<B>();
    let mask = AttentionMask::full(1, inputs.attention_mask.seq());
    let mut cache = KvCache::empty(base.config().num_hidden_layers, 1);
    let hidden = base.decode(base.embed(inputs.input_ids), &mask, &mut cache);
    let [_, seq, d_model] = hidden.dims();
    let logits = base.logits(hidden.reshape([seq, d_model])).into_data();
    let table = base.embedding_table().into_data();
    logits
        .iter::<f32>()
        .chain(table.iter::<f32>())
        .map(f32::to_bits)
        .collect()
}

fn training_leaves_the_bases_bits_as_they_are<B: TestBackend>() {
    let base = fixture::model::<B>("tied_gqa");
    let before = fingerprint(&base);
    let mut trainee = trainee(Qwen2::<B::Autodiff>::from_inner(base));
    let start = fingerprint(trainee.valid().into_model().base());
    let mut optimizer = init_optimizer::<B::Autodiff, _>(&TrainConfig::default());
    for rows in rows() {
        let output = TrainStep::step(&trainee, vec![rows.batch_on()]);
        trainee = optimizer.step(0.05, trainee, output.grads);
    }
    let model = trainee.valid().into_model();
    let AnyAdapter::PromptTuning(adapter) = model.adapter() else {
        panic!("a prompt stays a prompt");
    };
    let moved = adapter.prompt_embeddings().into_data();
    assert_ne!(
        moved.to_vec::<f32>().unwrap(),
        prompt(5, 64).to_vec::<f32>().unwrap()
    );
    assert!(start == before && fingerprint(model.base()) == before);
}

fn accumulated_micro_batches_equal_one_batch<B: TestBackend>() {
    // Rows with different numbers of supervised tokens: a mean of means would differ.
    let whole = rows()[0].clone();
    let parts: Vec<_> = (0..whole.batch())
        .map(|row| whole.row(row).batch_on())
        .collect();
    let trainee = trainee(fixture::model::<B::Autodiff>("tied_gqa"));
    let together = TrainStep::step(&trainee, vec![whole.batch_on()]);
    let apart = TrainStep::step(&trainee, parts);
    assert_eq!(together.item.label_tokens, apart.item.label_tokens);
    let difference = (together.item.loss / apart.item.loss - 1.0).abs();
    // A hundred f32 terms summed in another order.
    assert!(difference < 1e-5 * B::SLACK, "{difference}");
    let [together, apart] = [together, apart].map(|output| gradient(&trainee, output.grads));
    let largest = together.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    for (a, b) in together.iter().zip(&apart) {
        // Sums in another order: some dozens of f32 roundings of the largest element.
        assert!((a - b).abs() < 1e-5 * largest * B::SLACK, "{a} {b}");
    }
}

/// The gradient of the trainee's prompt.
fn gradient<B: burn::tensor::backend::AutodiffBackend + Ops>(
    trainee: &Trainee<B, AnyAdapter<B>>,
    gradients: burn::optim::GradientsParams,
) -> Vec<f64> {
    let ids = burn::module::list_param_ids(trainee);
    let found = gradients.get::<B::InnerBackend, 2>(ids[0]).unwrap();
    found.into_data().iter::<f64>().collect()
}

fn virtual_tokens_in_marked_slots_equal_those_in_front<B: TestBackend>() {
    let model = |base: Qwen2<B>| {
        let adapter = PromptTuning::<B>::from_data(prompt(5, 64), &base.device());
        PeftModel::new(base, adapter)
    };
    let model = model(fixture::model("tied_gqa"));
    let row = rows()[0].row(0);
    let run = |inputs: Inputs<B>| -> Vec<f64> {
        let prepared = model.prepare(inputs);
        let mut cache = prepared.cache;
        let hidden = prepared
            .base
            .decode(prepared.hidden, &prepared.mask, &mut cache);
        hidden.into_data().iter::<f64>().collect()
    };
    let in_front = run(row.inputs());
    let marked = Rows {
        input_ids: vec![[vec![0; 5], row.input_ids[0].clone()].concat()],
        attention_mask: None,
        labels: None,
    };
    let slots = (0..marked.seq())
        .map(|cell| (cell < 5).then_some(cell))
        .collect();
    let in_slots = run(Inputs {
        slots: Some(slots),
        ..marked.inputs()
    });
    // The same numbers enter the same operations.
    assert_eq!(in_front, in_slots);
}

#[test]
fn gradients_of_a_prompt_equal_finite_differences() {
    type Inner = NdArray<f64>;
    type B = Autodiff<Inner>;
    let checkpoint = Checkpoint::open(fixture::path("models/tied_gqa")).unwrap();
    let base: Qwen2<Inner> = checkpoint
        .load(DType::F64, &Default::default(), &mut |_, _| {})
        .unwrap();
    let rows = rows()[0].left_padded();
    let width = base.config().hidden_size;
    let start = prompt(3, width).convert::<f64>();
    let loss = |values: &TensorData| -> f64 {
        let adapter = PromptTuning::<Inner>::from_data(values.clone(), &Default::default());
        let model = PeftModel::new(base.clone(), adapter);
        let losses = token_losses(&model, &rows.batch_on()).unwrap();
        losses.nll.mean().into_data().iter::<f64>().sum()
    };
    let tracked = PromptTuning::<B>::from_data(start.clone(), &Default::default());
    let trainee = Trainee::new(PeftModel::new(
        Qwen2::from_inner(base.clone()),
        AnyAdapter::PromptTuning(tracked),
    ));
    let output = TrainStep::step(&trainee, vec![rows.batch_on()]);
    let found = gradient(&trainee, output.grads);
    let values = start.to_vec::<f64>().unwrap();
    for index in (0..values.len()).step_by(7) {
        // A central difference errs by h²; 1e-5 leaves ten digits of an f64 loss.
        let h = 1e-5;
        let moved = |by: f64| {
            let mut values = values.clone();
            values[index] += by;
            loss(&TensorData::new(values, [3, width]))
        };
        let expected = (moved(h) - moved(-h)) / (2.0 * h);
        let difference = (found[index] - expected).abs();
        assert!(
            difference < 1e-8,
            "{index}: {} for {expected}",
            found[index]
        );
    }
}

#[test]
fn a_frozen_base_has_nothing_to_train() {
    let base = fixture::model::<burn_flex::Flex>("tied_gqa");
    let model = PeftModel::new(base, NoAdapter::default());
    assert_eq!(burn::module::Module::num_params(&model), 0);
}
