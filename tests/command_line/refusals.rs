//! What fails: in one line that says what and where, with nothing lost.

use super::*;

#[test]
fn a_bad_model_is_refused_in_one_line() {
    let generate = |model: &Path| {
        refused(&mut burn_peft(&[
            "generate",
            "--prompt",
            "x",
            "--model",
            text(model),
        ]))
    };
    assert!(generate(Path::new("./no-such-model")).contains("./no-such-model: no such folder"));

    let model = copy_model("tied_gqa");
    let weights = model.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 100]).unwrap();
    let line = generate(model.path());
    assert!(
        line.contains("model.safetensors: not a whole safetensors file"),
        "{line}"
    );

    let model = copy_model("tied_gqa");
    let config = model.path().join("config.json");
    let changed = fs::read_to_string(&config)
        .unwrap()
        .replace("\"hidden_size\": 64", "\"hidden_size\": 32");
    fs::write(&config, changed).unwrap();
    let line = generate(model.path());
    assert!(
        line.contains("`model.embed_tokens.weight` has shape [320, 64], expected [320, 32]"),
        "{line}"
    );
    assert!(line.contains("and 34 more"), "all at once: {line}");

    let model = copy_model("tied_gqa");
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    assert!(generate(model.path()).contains("tokenizer.json"));

    let model = copy_model("sharded");
    fs::remove_file(model.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert!(generate(model.path()).contains("model-00002-of-00003.safetensors"));
}

#[test]
fn bad_rows_are_refused_with_file_and_line() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let good = r#"{"prompt": "the cat", "completion": "sat"}"#;
    let model = model_path();
    for (rows, named) in [
        (format!("{good}\n{{\"prompt\": \"x\"}}\n"), "rows.jsonl:2"),
        (format!("{good}\nnot json\n"), "rows.jsonl:2"),
        (String::new(), "rows.jsonl"),
        ("\n\n".into(), "rows.jsonl"),
        (r#"{"text": "x", "label": {}}"#.into(), "rows.jsonl:1"),
    ] {
        fs::write(&path, &rows).unwrap();
        for command in ["train", "evaluate"] {
            let args = [command, "--model", &model, "--data", text(&path)];
            let line = refused(burn_peft(&args).current_dir(folder.path()));
            assert!(line.contains(named), "{rows:?}: {line}");
        }
    }
    let line = refused(&mut burn_peft(&[
        "evaluate",
        "--model",
        &model,
        "--data",
        "missing.jsonl",
    ]));
    assert!(line.contains("missing.jsonl"), "{line}");
    assert!(
        !folder
            .path()
            .join("runs/prompt-tuning/adapter_config.json")
            .exists()
    );
}

#[test]
fn bad_settings_are_refused_before_anything_is_written() {
    let folder = tempdir().unwrap();
    let config = folder.path().join("run.toml");
    for (toml, named) in [
        ("[train]\nlearnig_rate = 1\n", "learning_rate"),
        ("[train]\nlearnig_rate = 1\n", "run.toml:2"),
        ("[trian]\n", "train"),
        (
            "[method]\ntype = \"prompt-tuning\"\nnum_virtual_token = 3\n",
            "num_virtual_tokens",
        ),
        ("[method]\ntype = \"lora\"\n", "prefix-tuning"),
        (
            "[method]\nnum_virtual_tokens = 0\ntype = \"prompt-tuning\"\n",
            "num_virtual_tokens",
        ),
        (
            "[train]\nper_device_train_batch_size = 0\n",
            "per_device_train_batch_size",
        ),
        ("[train\n", "run.toml:1"),
    ] {
        fs::write(&config, toml).unwrap();
        let args = ["train", "--config", text(&config)];
        let line = refused(burn_peft(&args).current_dir(folder.path()));
        assert!(line.contains(named), "{toml:?}: {line}");
    }
    assert!(!folder.path().join("runs").exists());
    let code = burn_peft(&["train", "--no-such-flag"])
        .output()
        .unwrap()
        .status
        .code();
    assert_eq!(code, Some(2), "a usage error");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_at_once() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let output = file.join("run");
    let line = refused(&mut burn_peft(&["train", "--output", text(&output)]));
    assert!(line.contains(text(&output)), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[test]
fn a_run_does_not_go_over_another_ones_checkpoints() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let output = folder.path().join("out");
    let model = model_path();
    let args = [
        "train",
        "--model",
        &model,
        "--data",
        &data,
        "--output",
        text(&output),
        "--max-steps",
        "1",
        "--no-tui",
    ];
    succeed(&mut burn_peft(&args));
    let adapter = fs::read(output.join("adapter_model.safetensors")).unwrap();
    let line = refused(burn_peft(&args).args(["--seed", "7"]));
    assert!(line.contains("--resume"), "{line}");
    assert_eq!(
        fs::read(output.join("adapter_model.safetensors")).unwrap(),
        adapter
    );
}

#[test]
fn a_backend_that_this_build_lacks_says_how_to_get_it() {
    if cfg!(feature = "cuda") {
        return;
    }
    let line = refused(&mut burn_peft(&[
        "generate",
        "--prompt",
        "x",
        "--backend",
        "cuda",
    ]));
    assert!(line.contains("--features cuda"), "{line}");
}

#[test]
fn an_adapter_for_another_base_is_refused() {
    let adapter = fixture::path("cases/untied_mha-prompt-tuning-text/adapter");
    let args = [
        "generate",
        "--prompt",
        "x",
        "--model",
        &model_path(),
        "--adapter",
        text(&adapter),
    ];
    let line = refused(&mut burn_peft(&args));
    assert!(line.contains("48") && line.contains("64"), "{line}");
}

#[test]
fn a_measurement_that_cannot_be_made_is_refused() {
    let refusal = |args: &[&str]| refused(burn_peft(&["bench"]).args(args));
    let line = refusal(&["--shape", "qwen2.5-2b"]);
    assert!(
        line.contains("qwen2.5-2b") && line.contains("qwen2.5-0.5b, "),
        "{line}"
    );
    let shape = ["--shape", "qwen2.5-0.5b"];
    let line = refusal(&[&shape[..], &["--labels", "300"]].concat());
    assert!(
        line.contains("--labels 300: a row has 256 tokens"),
        "{line}"
    );
    let line = refusal(&[&shape[..], &["--seq", "32768"]].concat());
    assert!(
        line.contains("20 virtual tokens") && line.contains("32768 positions"),
        "{line}"
    );
    let line = refusal(&[&shape[..], &["--steps", "0"]].concat());
    assert!(line.contains("--steps 0"), "{line}");
    let line = refusal(&[&shape[..], &["--method", "lora"]].concat());
    assert!(line.contains("there is no method `\"lora\"`"), "{line}");
}

#[test]
fn a_model_id_that_is_not_cached_is_not_fetched_offline() {
    let home = tempdir().unwrap();
    let args = ["generate", "--prompt", "x", "--model", "Qwen/Qwen2.5-0.5B"];
    let line = refused(
        burn_peft(&args)
            .env("HF_HOME", home.path())
            .env("HF_HUB_OFFLINE", "1"),
    );
    assert!(
        line.contains("Qwen/Qwen2.5-0.5B") && line.contains("HF_HUB_OFFLINE"),
        "{line}"
    );

    // The layout of huggingface_hub's cache.
    let repo = home.path().join("hub/models--Qwen--Qwen2.5-0.5B");
    let snapshot = repo.join("snapshots/abc");
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repo.join("refs/main"), "abc").unwrap();
    for entry in fs::read_dir(fixture::path("models/tied_gqa")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    succeed(
        burn_peft(&args)
            .args(["--max-new-tokens", "1"])
            .env("HF_HOME", home.path())
            .env("HF_HUB_OFFLINE", "1"),
    );
}
