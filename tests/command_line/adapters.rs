//! What an adapter folder says of itself: its base, its values, its keys, its checksums.

use burn_peft_format::{AdapterFolder, AdapterTensor, ModelCard, PROMPT_EMBEDDINGS};

use super::*;

/// A copy of an adapter that PEFT wrote for `tied_gqa`.
fn adapter(case: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let from = fixture::path(&format!("cases/{case}/adapter")).join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    folder
}

fn generate(model: Option<&str>, adapter: &Path) -> Command {
    let args = ["generate", "--prompt", "the cat", "--max-new-tokens", "1"];
    let mut command = burn_peft(&args);
    command.args(["--adapter", text(adapter)]);
    command.args(model.into_iter().flat_map(|model| ["--model", model]));
    command
}

/// The warnings of a command that succeeds.
fn warnings(command: &mut Command) -> Vec<String> {
    let output = succeed(command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines = stderr.lines().filter(|line| line.starts_with("warning: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn an_adapter_of_another_base_names_its_own() {
    let model = model_path();
    let own = adapter("tied_gqa-prompt-tuning-random");
    assert!(warnings(&mut generate(Some(&model), own.path())).is_empty());

    let other = adapter("tied_gqa-prompt-tuning-random");
    let mut config = config_to_edit(other.path());
    config["base_model_name_or_path"] = "Qwen/Qwen2.5-0.5B-Instruct".into();
    write_config(other.path(), &config);
    let inspect = ["inspect", text(other.path()), "--model", &model];
    for command in [
        &mut generate(Some(&model), other.path()),
        &mut burn_peft(&inspect),
    ] {
        let said = warnings(command);
        assert_eq!(said.len(), 1, "{said:?}");
        let named = "it was trained on `Qwen/Qwen2.5-0.5B-Instruct`, not on";
        assert!(
            said[0].contains(named) && said[0].contains("--model"),
            "{said:?}"
        );
    }
    // The built-in model has other sizes.
    let line = refused(&mut generate(None, other.path()));
    assert!(
        line.contains("it was trained on `Qwen/Qwen2.5-0.5B-Instruct`"),
        "{line}"
    );
    assert!(line.ends_with("name its own base with --model"), "{line}");
}

#[test]
fn an_adapter_knows_the_weights_that_it_was_trained_on() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 4), folder.path().join("run"));
    let model = copy_model("tied_gqa");
    let run = [
        "train",
        "--no-tui",
        "--max-steps",
        "1",
        "--method",
        "bitfit",
    ];
    let train = |more: &[&str]| {
        let mut command = burn_peft(&run);
        command
            .args(["--model", text(model.path()), "--data", &data])
            .args(more);
        command
    };
    succeed(&mut train(&["--output", text(&output)]));
    let use_it = || generate(Some(text(model.path())), &output);
    assert!(warnings(&mut use_it()).is_empty());

    let weights = model.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let init = format!("method.init_from={}", output.display());
    let further = folder.path().join("further");
    let merged = folder.path().join("merged");
    let export = [
        "export",
        "--to",
        "merged",
        "--adapter",
        text(&output),
        "--model",
        text(model.path()),
        "--output",
        text(&merged),
    ];
    for command in [
        &mut use_it(),
        &mut train(&["--set", &init, "--output", text(&further)]),
        &mut burn_peft(&export),
    ] {
        let said = warnings(command);
        assert_eq!(said.len(), 1, "{command:?}: {said:?}");
        assert!(said[0].contains("other weights"), "{said:?}");
    }
}

#[test]
fn a_value_that_is_no_number_is_named_wherever_an_adapter_is_used() {
    let (model, folder) = (model_path(), tempdir().unwrap());
    let data = rows_file(folder.path(), 4);
    let bad = adapter("tied_gqa-prompt-tuning-random");
    let mut read = AdapterFolder::load(bad.path()).unwrap();
    let table = read.tensors.get(PROMPT_EMBEDDINGS).unwrap();
    let (shape, mut values) = (table.shape().to_vec(), table.values().to_vec());
    values[7] = f32::NAN;
    let tokens = shape[0];
    read.tensors
        .insert(PROMPT_EMBEDDINGS, AdapterTensor::new(shape, values));
    read.save(bad.path(), &ModelCard::default()).unwrap();

    let path = text(bad.path());
    let output = folder.path().join("out");
    let output = text(&output);
    let init = format!("method.init_from={path}");
    let tokens = format!("method.num_virtual_tokens={tokens}");
    let train = ["--set", &init, "--set", &tokens, "--output", output];
    let base = ["--model", &model];
    for args in [
        [&["evaluate", "--data", &data, "--adapter", path], &base[..]].concat(),
        [&["generate", "--prompt", "x", "--adapter", path], &base[..]].concat(),
        [&["train", "--data", &data], &base[..], &train].concat(),
        vec![
            "export",
            "--adapter",
            path,
            "--to",
            "prompt-embeds",
            "--output",
            output,
        ],
    ] {
        let line = refused(&mut burn_peft(&args));
        let named = "adapter_model.safetensors: tensor `prompt_embeddings` has 1 value that is NaN";
        assert!(line.contains(named), "{line}");
        assert!(!Path::new(output).exists(), "{args:?}");
    }
    let said = warnings(&mut burn_peft(&["inspect", path]));
    assert!(
        said[0].contains("`prompt_embeddings` has 1 value"),
        "{said:?}"
    );
}

#[test]
fn keys_that_are_ignored_are_said_and_what_only_training_needs_is_not_needed() {
    let (model, foreign) = (model_path(), adapter("tied_gqa-p-tuning-mlp"));
    let mut config = config_to_edit(foreign.path());
    config["encoder_num_layers"] = (-1).into();
    config["encoder_hidden_size"] = Value::Null;
    config["new_in_peft"] = 3.into();
    write_config(foreign.path(), &config);
    let said = warnings(&mut generate(Some(&model), foreign.path()));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].ends_with("unknown keys are ignored: `new_in_peft`"),
        "{said:?}"
    );
    assert!(said[1].ends_with("`encoder_num_layers`"), "{said:?}");
}

#[test]
fn a_damaged_adapter_is_refused_by_file() {
    let folder = adapter("tied_gqa-beft-qkv");
    let read = AdapterFolder::load(folder.path()).unwrap();
    read.save(folder.path(), &ModelCard::default()).unwrap();
    let model = model_path();
    succeed(&mut generate(Some(&model), folder.path()));
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        // In a number, and in a name.
        let at = whole.windows(4).rposition(|part| part == b"CAUS");
        bytes[at.unwrap_or(whole.len() - 2)] ^= 1;
        fs::write(&path, bytes).unwrap();
        let line = refused(&mut generate(Some(&model), folder.path()));
        assert!(
            line.contains(&format!("{name}: cannot use: it is damaged")),
            "{line}"
        );
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn virtual_tokens_alone_can_be_continued() {
    let model = model_path();
    let from_nothing = |case| {
        let adapter = fixture::path(&format!("cases/{case}/adapter"));
        let args = [
            "generate",
            "--prompt",
            "",
            "--temperature",
            "0",
            "--json",
            "--max-new-tokens",
            "3",
        ];
        let mut command = burn_peft(&args);
        command.args(["--model", &model, "--adapter", text(&adapter)]);
        command
    };
    let found = lines(&succeed(&mut from_nothing("tied_gqa-prompt-tuning-random")));
    assert_eq!(found[0]["prompt_ids"], serde_json::json!([]));
    // What transformers continues these embeddings with, the model's eos last.
    assert_eq!(found[0]["token_ids"], serde_json::json!([102, 314]));
    // Keys and values predict nothing by themselves.
    let line = refused(&mut from_nothing("tied_gqa-prefix-tuning"));
    assert!(line.contains("--prompt: there is no token in it"), "{line}");
}

#[test]
fn inspect_knows_options_of_the_method_only() {
    let line = refused(&mut burn_peft(&[
        "inspect",
        &model_path(),
        "--set",
        "train.seed=3",
    ]));
    assert!(
        line.contains("--set train.seed=3: only keys of [method]"),
        "{line}"
    );
}
