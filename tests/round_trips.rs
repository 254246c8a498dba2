//! What is written is read again as it was: for any values, not only those of the other tests.

use std::path::Path;

use burn_peft_decoder::DecoderConfig;
use burn_peft_files::{CHECKSUMS_FILE, Checksum, Checksums};
use burn_peft_format::{
    AdapterConfig, AdapterFolder, AdapterTensor, AdapterTensors, Landing, MethodOptions, ModelCard,
    ProblemType, TaskOptions, VirtualTokenOptions,
};
use burn_peft_train::{LogRecord, Override, RunConfig, TrainRecord};
use proptest::prelude::*;

/// Text of all kinds, control characters and quotes among it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9/._-]{1,20}", "\\PC{0,20}", any::<String>()]
}

fn task() -> impl Strategy<Value = TaskOptions> {
    let texts = || proptest::collection::vec(text(), 0..4);
    let threshold = proptest::option::of((-9999..9999i32).prop_map(|n| f64::from(n) / 8.0));
    let made = (texts(), texts(), any::<bool>(), any::<bool>(), threshold);
    made.prop_map(|(labels, verbalizer, flag, other, threshold)| TaskOptions {
        max_answer_length: flag.then_some(30),
        doc_stride: other.then_some(128),
        labels,
        verbalizer,
        problem_type: flag.then_some(ProblemType::Regression),
        label_all_tokens: other,
        no_answer: flag,
        calibrate: other,
        null_score_diff_threshold: threshold,
    })
}

fn numbers() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(any::<f32>(), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn an_adapter_folder(
        tokens in 1..6usize,
        name in proptest::option::of(text()),
        template in proptest::option::of(text()),
        seed in any::<u64>(),
        title in proptest::option::of(text()),
        task in proptest::option::of(task()),
    ) {
        let base = DecoderConfig::named("qwen2.5-0.5b").unwrap();
        let landing = VirtualTokenOptions::prompt(tokens, &base);
        let mut config = AdapterConfig::new(MethodOptions::of(Landing::Prompt(&landing)), name.as_deref());
        config.template = template;
        config.task = task;
        config.base_fingerprint = Some(Checksum::of(&seed.to_le_bytes()));
        let values = (0..tokens * base.hidden_size).map(|i| (seed.wrapping_add(i as u64) % 1000) as f32 / 7.0);
        let mut tensors = AdapterTensors::new();
        tensors.insert("prompt_embeddings", AdapterTensor::new([tokens, base.hidden_size], values.collect()));
        let folder = AdapterFolder { config, tensors };
        let dir = tempfile::tempdir().unwrap();
        let card = ModelCard { title, facts: vec![(name.unwrap_or_default(), "x".into())], ..ModelCard::default() };
        folder.save(dir.path(), &card).unwrap();
        prop_assert_eq!(AdapterFolder::load(dir.path()).unwrap(), folder);
    }

    #[test]
    fn adapter_tensors(names in proptest::collection::btree_map("[a-z._0-9]{1,12}", numbers(), 0..5)) {
        let mut tensors = AdapterTensors::new();
        for (name, values) in &names {
            tensors.insert(name.clone(), AdapterTensor::new([1, values.len()], values.clone()));
        }
        let bytes = tensors.to_safetensors();
        let read = AdapterTensors::parse(&bytes, Path::new("x")).unwrap();
        // By bits: NaN is not equal to itself.
        prop_assert_eq!(read.to_safetensors(), bytes);
    }

    #[test]
    fn checksums(files in proptest::collection::btree_map("[^\\n\\r/\0]{1,12}", any::<Vec<u8>>(), 0..5)) {
        let mut sums = Checksums::new();
        for (name, bytes) in &files {
            sums.insert(name, Checksum::of(bytes));
        }
        let dir = tempfile::tempdir().unwrap();
        burn_peft_files::write(&dir.path().join(CHECKSUMS_FILE), sums.to_text().as_bytes()).unwrap();
        prop_assert_eq!(Checksums::read(dir.path()).unwrap(), Some(sums));
    }

    #[test]
    fn run_toml(
        method in 0..5usize,
        path in "[^\0]{1,20}",
        rate in prop_oneof![1e-9..10.0, Just(f64::MIN_POSITIVE), Just(1e300)],
        decay in 0.0..1.0f64,
        steps in prop_oneof![Just(-1i64), 1..i64::MAX],
        seed in 0..u64::MAX / 2,
        batch in 1..10_000usize,
    ) {
        let name = ["bitfit", "prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2"][method];
        let set = [
            Override::new("method", "type", name, "--method"),
            Override::new("model", "path", path.clone(), "--model"),
            Override::new("data", "train", path.clone(), "--data"),
            Override::new("output", "dir", path, "--output"),
            Override::new("train", "learning_rate", rate, "--set"),
            Override::new("train", "weight_decay", decay, "--set"),
            Override::new("train", "max_steps", steps, "--set"),
            Override::new("train", "seed", seed as i64, "--set"),
            Override::new("train", "per_device_train_batch_size", batch as i64, "--set"),
        ];
        let config = RunConfig::load(None, &set).unwrap();
        let again = RunConfig::parse(&config.to_toml().unwrap(), "run.toml", &[]).unwrap();
        prop_assert_eq!(again, config);
    }

    #[test]
    fn a_record_of_a_step(step in any::<usize>(), loss in -1e9..1e9f64, norm in proptest::option::of(0.0..1e9f64)) {
        let record = LogRecord::Train(TrainRecord {
            step,
            epoch: 0.5,
            loss: loss.round(),
            learning_rate: 1e-3,
            grad_norm: norm.map(f64::round),
            tokens_per_second: 1.0,
            memory_gib: None,
        });
        let line = serde_json::to_string(&record).unwrap();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<LogRecord>(&line).unwrap(), record);
    }
}
