//! What holds while an adapter trains.

use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module},
    optim::Optimizer,
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use burn_ndarray::NdArray;
use burn_peft::{
    Adapter, AnyAdapter, EncoderReparameterizationType, InitTokens, Injection, LayerRange,
    MethodConfig, NoAdapter, PTuningConfig, PTuningV2Config, PeftModel, PrefixHeads, PrefixInit,
    PrefixTuningConfig, PromptTuning, PromptTuningConfig, prefix_table,
};
use burn_peft_decoder::{AttentionMask, Decoder, KvCache, LayerKv};
use burn_peft_ops::Ops;
use burn_peft_train::{TrainConfig, Trainee, init_optimizer};
use burn_train::TrainStep;

use crate::{
    backends::TestBackend,
    cases::all_biases,
    fixture::{self, Rows},
    gradients::gradients,
};

on_every_backend!(
    training_leaves_the_bases_bits_as_they_are,
    accumulated_micro_batches_equal_one_batch,
);

pub(crate) fn rows() -> Vec<Rows> {
    let case: serde_json::Value = fixture::json("cases/tied_gqa-prompt-tuning-random/case.json");
    let batches = case["six_steps"]["batches"].clone();
    serde_json::from_value(batches).unwrap()
}

/// Numbers that no two cells share.
pub(crate) fn prompt(tokens: usize, width: usize) -> TensorData {
    let values = (0..tokens * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0);
    TensorData::new(values.collect::<Vec<f32>>(), [tokens, width])
}

fn trainee<B: Ops>(base: Decoder<B>) -> Trainee<B, AnyAdapter<B>> {
    let device = base.device();
    let adapter = PromptTuning::from_data(prompt(5, base.config().hidden_size), &device);
    Trainee::new(PeftModel::new(base, AnyAdapter::PromptTuning(adapter)))
}

/// Hidden states of the base on a fixed input, with every layer and the table in them.
fn fingerprint<B: Ops>(base: &Decoder<B>) -> Vec<u32> {
    let inputs = rows()[0].row(0).inputs::<B>();
    let mask = AttentionMask::full(1, inputs.attention_mask.seq());
    let mut cache = KvCache::empty(base.config().num_hidden_layers, 1);
    let hidden = base.decode(base.embed(inputs.input_ids), &mask, &mut cache, None);
    let logits = base.logits(hidden).into_data();
    let vocab = base.config().vocab_size as i64;
    let ids = Tensor::<B, 1, Int>::arange(0..vocab, &base.device());
    let table = base.embed(ids.unsqueeze()).into_data();
    logits
        .iter::<f32>()
        .chain(table.iter::<f32>())
        .map(f32::to_bits)
        .collect()
}

fn training_leaves_the_bases_bits_as_they_are<B: TestBackend>() {
    let base = fixture::model::<B>("tied_gqa");
    let before = fingerprint(&base);
    let methods = methods();
    for method in &methods[..if B::THOROUGH { methods.len() } else { 1 }] {
        let base = Decoder::<Autodiff<B>>::from_inner(base.clone());
        let adapter = init(method, &base);
        let mut trainee = Trainee::new(PeftModel::new(base, adapter));
        let start = TrainStep::step(&trainee, vec![rows()[0].batch_on()])
            .item
            .loss;
        let mut optimizer = init_optimizer::<Autodiff<B>, _>(&TrainConfig::default());
        for rows in rows() {
            let output = TrainStep::step(&trainee, vec![rows.batch_on()]);
            trainee = optimizer.step(0.05, trainee, output.grads);
        }
        let end = TrainStep::step(&trainee, vec![rows()[0].batch_on()])
            .item
            .loss;
        assert_ne!(start, end, "{method:?} trains");
        assert!(
            fingerprint(trainee.valid().into_model().base()) == before,
            "{method:?}"
        );
    }
    assert!(fingerprint(&base) == before);
}

fn accumulated_micro_batches_equal_one_batch<B: TestBackend>() {
    // Rows with different numbers of supervised tokens: a mean of means would differ.
    let whole = rows()[0].clone();
    let parts: Vec<_> = (0..whole.batch())
        .map(|row| whole.row(row).batch_on())
        .collect();
    let trainee = trainee(fixture::model::<Autodiff<B>>("tied_gqa"));
    let together = TrainStep::step(&trainee, vec![whole.batch_on()]);
    let apart = TrainStep::step(&trainee, parts);
    assert_eq!(together.item.label_tokens, apart.item.label_tokens);
    let difference = (together.item.loss / apart.item.loss - 1.0).abs();
    // A hundred f32 terms summed in another order.
    assert!(difference < 1e-5, "{difference}");
    let [together, apart] =
        [together, apart].map(|output| gradients(&trainee, &output.grads)[0].1.clone());
    let largest = together.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    for (a, b) in together.iter().zip(&apart) {
        // Sums in another order: some dozens of f32 roundings of the largest element.
        assert!((a - b).abs() < 1e-5 * largest, "{a} {b}");
    }
}

/// All methods, as small as shows every part of them.
pub(crate) fn methods() -> Vec<MethodConfig> {
    let text = |init_weights| PrefixTuningConfig {
        num_virtual_tokens: Some(3),
        encoder_hidden_size: Some(7),
        init_weights,
        prefix_init_text: Some("a text".into()),
        ..PrefixTuningConfig::default()
    };
    let p_tuning = |encoder_reparameterization_type, lstm_half_width| {
        MethodConfig::PTuning(PTuningConfig {
            num_virtual_tokens: Some(3),
            encoder_reparameterization_type,
            encoder_hidden_size: Some(6),
            lstm_half_width,
            ..PTuningConfig::default()
        })
    };
    vec![
        MethodConfig::PromptTuning(PromptTuningConfig {
            num_virtual_tokens: Some(3),
            ..PromptTuningConfig::default()
        }),
        p_tuning(EncoderReparameterizationType::Mlp, false),
        p_tuning(EncoderReparameterizationType::Lstm, false),
        p_tuning(EncoderReparameterizationType::Lstm, true),
        MethodConfig::PrefixTuning(text(PrefixInit::Random)),
        MethodConfig::PrefixTuning(text(PrefixInit::Text)),
        MethodConfig::PrefixTuning(PrefixTuningConfig {
            prefix_heads: PrefixHeads::Attention,
            ..text(PrefixInit::Random)
        }),
        MethodConfig::PTuningV2(PTuningV2Config {
            num_virtual_tokens: Some(3),
            layers: Some(LayerRange::new(1, 2)),
            init_weights: PrefixInit::Random,
            ..PTuningV2Config::default()
        }),
        MethodConfig::PTuningV2(PTuningV2Config {
            num_virtual_tokens: Some(3),
            ..PTuningV2Config::default()
        }),
        MethodConfig::BitFit(all_biases()),
    ]
}

pub(crate) fn init<B: Ops>(method: &MethodConfig, base: &Decoder<B>) -> AnyAdapter<B> {
    let tokens = InitTokens {
        text_ids: vec![7, 11, 13],
        known_ids: 300,
        ..InitTokens::default()
    };
    method.init(base, &tokens, 5).unwrap()
}

#[test]
fn an_mlp_started_from_a_text_gives_the_texts_keys_and_values() {
    let base = fixture::model::<NdArray<f32>>("tied_gqa");
    let table = |method: &MethodConfig| {
        let Injection::Prefix(prefix) = init(method, &base).inject() else {
            panic!("a prefix is injected into the cache");
        };
        prefix_table(prefix)
            .into_data()
            .iter::<f64>()
            .collect::<Vec<f64>>()
    };
    let config = PrefixTuningConfig {
        num_virtual_tokens: Some(3),
        encoder_hidden_size: Some(7),
        init_weights: PrefixInit::Text,
        prefix_init_text: Some("a text".into()),
        ..PrefixTuningConfig::default()
    };
    let through_mlp = table(&MethodConfig::PrefixTuning(config.clone()));
    let direct = table(&MethodConfig::PrefixTuning(PrefixTuningConfig {
        prefix_projection: false,
        ..config
    }));
    for (found, expected) in through_mlp.iter().zip(&direct) {
        // Sums of eight f32 products, of numbers up to 5.
        assert!((found - expected).abs() < 2e-5, "{found} {expected}");
    }
}

/// Why a prefix does not start at zero by default.
#[test]
fn virtual_tokens_that_start_at_zero_stay_the_same_and_real_ones_do_not() {
    type Inner = NdArray<f32>;
    for (init_weights, stay_the_same) in
        [(PrefixInit::Zero, true), (PrefixInit::SampleVocab, false)]
    {
        let method = MethodConfig::PTuningV2(PTuningV2Config {
            num_virtual_tokens: Some(4),
            init_weights,
            ..PTuningV2Config::default()
        });
        let base = fixture::model::<Autodiff<Inner>>("tied_gqa");
        let adapter = init(&method, &base);
        let mut trainee = Trainee::new(PeftModel::new(base, adapter));
        let mut optimizer = init_optimizer::<Autodiff<Inner>, _>(&TrainConfig::default());
        for rows in rows() {
            let output = TrainStep::step(&trainee, vec![rows.batch_on()]);
            trainee = optimizer.step(0.05, trainee, output.grads);
        }
        let Injection::Prefix(prefix) = trainee.valid().into_model().adapter().inject() else {
            panic!("a prefix is injected into the cache");
        };
        let table = prefix_table(prefix).into_data().to_vec::<f32>().unwrap();
        assert!(table.iter().any(|value| *value != 0.0));
        let [first, second] =
            [0, 1].map(|row| &table[row * table.len() / 4..(row + 1) * table.len() / 4]);
        // Sums over a row's keys may end in another last bit from cell to cell.
        let same = first.iter().zip(second).all(|(a, b)| (a - b).abs() < 1e-3);
        assert_eq!(same, stay_the_same, "{init_weights:?}");
    }
}

#[test]
fn dropout_acts_in_training_and_only_there() {
    type Inner = NdArray<f32>;
    for (dropout, differs) in [(0.5, true), (0.0, false)] {
        let method = MethodConfig::PTuningV2(PTuningV2Config {
            init_weights: PrefixInit::Random,
            prefix_dropout: dropout,
            ..PTuningV2Config::default()
        });
        let base = fixture::model::<Autodiff<Inner>>("tied_gqa");
        let adapter = init(&method, &base);
        fn table<B: Backend>(prefix: Vec<LayerKv<B>>) -> Vec<f32> {
            prefix_table(prefix).into_data().to_vec().unwrap()
        }
        let (Injection::Prefix(training), Injection::Prefix(evaluation)) =
            (adapter.inject(), adapter.valid().inject())
        else {
            panic!("a prefix is injected into the cache");
        };
        let (training, evaluation) = (table(training), table(evaluation));
        let dropped = training.iter().filter(|value| **value == 0.0).count();
        assert_eq!(training != evaluation, differs);
        // 3,840 draws at one half: four standard deviations are 124.
        let expected = dropout * training.len() as f64;
        assert!(
            (dropped as f64 - expected).abs() < 124.0,
            "{dropped} of {}",
            training.len()
        );
    }
}

#[test]
fn a_frozen_base_has_nothing_to_train() {
    let base = fixture::model::<burn_flex::Flex>("tied_gqa");
    let model = PeftModel::new(base, NoAdapter::default());
    assert_eq!(model.num_params(), 0);
}
