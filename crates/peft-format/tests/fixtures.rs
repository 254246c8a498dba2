//! Folders that PEFT wrote (tests/fixtures): each is read, fits its base, and would be written the same again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn_peft_decoder::{Checkpoint, DecoderConfig};
use burn_peft_format::{
    AdapterConfig, AdapterFolder, BeftOptions, CONFIG_FILE, EncoderReparameterizationType, Error,
    Landing, MethodOptions, ModelCard, PTuningOptions, PrefixInit, PrefixTuningOptions,
    PromptTuningInit, PromptTuningOptions, TargetModules, TaskType, VirtualTokenOptions,
    WEIGHTS_FILE, adapter_from_folder, head_from_folder,
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every case with an adapter of PEFT's, those with heads last: its folder, its `case.json`, and its base.
fn cases() -> Vec<(PathBuf, Value, DecoderConfig)> {
    let read = |kind| std::fs::read_dir(fixtures().join(kind)).unwrap();
    let mut folders: Vec<_> = read("cases")
        .chain(read("heads"))
        .map(|entry| entry.unwrap().path())
        // PEFT has no BitFit, so its cases have none.
        .filter(|folder| folder.join("adapter").is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 74, "{} cases", folders.len());
    folders
        .into_iter()
        .map(|folder| {
            let case = json(&folder.join("case.json"));
            let model = fixtures().join(case["model"].as_str().unwrap());
            let base = Checkpoint::read_config(model).unwrap();
            (folder, case, base)
        })
        .collect()
}

#[test]
fn every_adapter_of_peft_loads_and_fits_its_base() {
    for (folder, case, base) in cases() {
        let dir = folder.join("adapter");
        let adapter = AdapterFolder::load(&dir).unwrap();
        adapter.check(&base, &dir).unwrap();
        assert_eq!(
            adapter.config.method.peft_type(),
            case["peft_type"],
            "{dir:?}"
        );
        assert_eq!(
            adapter.config.base_model_name_or_path.as_deref(),
            case["model"].as_str(),
            "{dir:?}"
        );
        assert!(
            adapter.config.notes().is_empty(),
            "{dir:?}: {:?}",
            adapter.config.notes()
        );
        assert!(adapter.tensors.non_finite().is_empty(), "{dir:?}");
        let outputs = adapter.head().map(|head| head.outputs());
        assert_eq!(
            outputs,
            case["outputs"].as_u64().map(|n| n as usize),
            "{dir:?}"
        );
    }
}

#[test]
fn every_adapter_of_peft_is_written_again_byte_for_byte() {
    for (folder, _, _) in cases() {
        let dir = folder.join("adapter");
        let again = tempfile::tempdir().unwrap();
        let adapter = AdapterFolder::load(&dir).unwrap();
        adapter.save(again.path(), &ModelCard::default()).unwrap();
        let theirs = std::fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
        assert_eq!(adapter.config.to_json(), theirs, "{dir:?}");
        let mut saved = json(&again.path().join(CONFIG_FILE));
        saved
            .as_object_mut()
            .unwrap()
            .remove("burn_peft_checksums")
            .unwrap();
        assert_eq!(saved, json(&dir.join(CONFIG_FILE)), "{dir:?}");
        let weights = |dir: &Path| std::fs::read(dir.join(WEIGHTS_FILE)).unwrap();
        assert!(weights(&dir) == weights(again.path()), "{dir:?}");
    }
}

/// What PEFT was told, told to this crate's constructors.
fn construct(case: &Value, base: &DecoderConfig) -> MethodOptions {
    let options = &case["options"];
    let text = |key: &str| options[key].as_str().map(String::from);
    let tokens = options["num_virtual_tokens"].as_u64().unwrap_or(0) as usize;
    let prompt = VirtualTokenOptions::prompt(tokens, base);
    match case["peft_type"].as_str().unwrap() {
        "PROMPT_TUNING" => MethodOptions::PromptTuning(PromptTuningOptions {
            prompt_tuning_init: match options["prompt_tuning_init"].clone() {
                Value::Null => PromptTuningInit::Random,
                start => serde_json::from_value(start).unwrap(),
            },
            prompt_tuning_init_text: text("prompt_tuning_init_text"),
            tokenizer_name_or_path: text("tokenizer_name_or_path"),
            ..PromptTuningOptions::new(prompt)
        }),
        "P_TUNING" => {
            let mut made = PTuningOptions::new(prompt);
            if text("encoder_reparameterization_type").as_deref() == Some("LSTM") {
                made.encoder_reparameterization_type = EncoderReparameterizationType::Lstm;
            }
            made.encoder_hidden_size = options["encoder_hidden_size"]
                .as_u64()
                .map(|n| n as usize)
                .or(made.encoder_hidden_size);
            made.encoder_num_layers = options["encoder_num_layers"]
                .as_u64()
                .map_or(made.encoder_num_layers, |n| n as usize);
            MethodOptions::PTuning(made)
        }
        "PREFIX_TUNING" => {
            let made = PrefixTuningOptions::new(VirtualTokenOptions::prefix(tokens, base));
            MethodOptions::PrefixTuning(PrefixTuningOptions {
                prefix_projection: options["prefix_projection"] == true,
                encoder_hidden_size: options["encoder_hidden_size"]
                    .as_u64()
                    .map(|n| n as usize)
                    .or(made.encoder_hidden_size),
                init_weights: text("init_weights").map(|_| PrefixInit::Zero),
                ..made
            })
        }
        _ => MethodOptions::Beft(match options["target_modules"].as_array() {
            None => BeftOptions::default(),
            Some(names) => BeftOptions::new(TargetModules::Names(
                names.iter().map(|n| n.as_str().unwrap().into()).collect(),
            )),
        }),
    }
}

/// The task of a case with a head.
fn task(case: &Value) -> Option<TaskType> {
    let name = case["task_type"].as_str()?;
    let known = [TaskType::SeqCls, TaskType::TokenCls, TaskType::QuestionAns];
    Some(
        known
            .into_iter()
            .find(|task| task.name() == name)
            .expect(name),
    )
}

/// An adapter of ours with a head is PEFT's, byte for byte.
#[test]
fn a_head_is_put_beside_an_adapter_as_peft_does() {
    type Flex = burn_flex::Flex;
    let device = Default::default();
    let mut tasks = BTreeSet::new();
    for (folder, case, base) in cases() {
        let Some(task) = task(&case) else { continue };
        let dir = folder.join("adapter");
        let theirs = AdapterFolder::load(&dir).unwrap();
        let adapter = adapter_from_folder::<Flex>(&theirs, &base, &dir, &device).unwrap();
        let head = head_from_folder::<Flex>(&theirs, &base, &dir, &device).unwrap();
        let head = head.expect("a head");
        let described = theirs.config.method.clone();
        let describe = |landing: Landing<'_>| match landing {
            // PEFT lists them in the order of a Python set.
            Landing::Biases(targets) => {
                let ours = format!("{targets:?}");
                let theirs = format!("{described:?}");
                for name in ["q_proj", "k_proj", "v_proj"] {
                    assert_eq!(ours.contains(name), theirs.contains(name), "{dir:?}");
                }
                described
            }
            _ => described,
        };
        let name = case["model"].as_str();
        let ours = AdapterFolder::from_model(&adapter, Some(&head), &base, name, describe);
        let ours = ours.unwrap();
        assert_eq!(ours, theirs, "{dir:?}");
        ours.check(&base, &dir).unwrap();
        tasks.insert((task.name(), theirs.config.method.peft_type()));
    }
    assert_eq!(tasks.len(), 12);
}

#[test]
fn a_new_configuration_is_what_peft_would_have_written() {
    // PEFT lists the modules in the order of a Python set.
    fn sorted(mut config: Value) -> Value {
        if let Some(Value::Array(names)) = config.get_mut("target_modules") {
            names.sort_by_key(|name| name.to_string());
        }
        config
    }
    for (folder, case, base) in cases() {
        let mut ours = AdapterConfig::new(construct(&case, &base), case["model"].as_str());
        if let Some(task) = task(&case) {
            ours = ours.with_task(task);
        }
        let ours = ours.to_json();
        let theirs = json(&folder.join("adapter").join(CONFIG_FILE));
        assert_eq!(
            sorted(serde_json::from_str(&ours).unwrap()),
            sorted(theirs),
            "{folder:?}"
        );
    }
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let cases = cases();
    for (folder, _, base) in &cases {
        // Bases of one width may hold each other's prompts, or prefixes.
        let (_, _, other) = cases
            .iter()
            .find(|(_, _, other)| {
                other.hidden_size != base.hidden_size && other.kv_width() != base.kv_width()
            })
            .unwrap();
        let dir = folder.join("adapter");
        let error = AdapterFolder::load(&dir)
            .unwrap()
            .check(other, &dir)
            .unwrap_err();
        assert!(
            matches!(error, Error::DoesNotFit { .. }),
            "{dir:?}: {error}"
        );
    }
}
