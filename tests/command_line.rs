//! The binary as its users meet it: files in, files and lines out, exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::fixture;

fn burn_peft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-peft"));
    command.args(args);
    command
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

/// Runs what must fail, and returns the one line it says.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    line
}

fn lines(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn copy_model(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for entry in fs::read_dir(fixture::path("models").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of rows for the fixture models.
fn rows_file(folder: &Path, rows: usize) -> String {
    let path = folder.join("rows.jsonl");
    let rows: Vec<String> = (0..rows)
        .map(|i| {
            format!(
                r#"{{"prompt": "the cat {i} ", "completion": "sat on mat {}"}}"#,
                i % 7
            )
        })
        .collect();
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

fn model_path() -> String {
    text(&fixture::path("models/tied_gqa")).to_owned()
}

#[test]
fn training_without_arguments_learns_the_built_in_task() {
    let folder = tempdir().unwrap();
    let args = [
        "train",
        "--json",
        "--max-steps",
        "30",
        "--set",
        "train.predict_with_generate=false",
    ];
    let output = succeed(burn_peft(&args).current_dir(folder.path()));
    let lines = lines(&output);
    let steps: Vec<_> = lines
        .iter()
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    assert_eq!(steps.len(), 3, "one line each ten steps: {lines:?}");
    let done = lines.last().unwrap();
    assert_eq!(done["event"], "done");
    let [before, after] = ["before", "after"].map(|when| done[when]["loss"].as_f64().unwrap());
    assert!(after < 0.8 * before, "{before} to {after}");

    let run = folder.path().join(done["adapter"].as_str().unwrap());
    for file in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "run.toml",
        "metrics.jsonl",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
    let evaluated = succeed(
        burn_peft(&[
            "evaluate",
            "--json",
            "--no-generate",
            "--per-example",
            "--adapter",
            text(&run),
        ])
        .current_dir(folder.path()),
    );
    let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    let found = evaluated["loss"].as_f64().unwrap();
    // The same weights and rows in other batches.
    assert!((found / after - 1.0).abs() < 1e-5, "{found} for {after}");
    let rows = evaluated["per_example"].as_array().unwrap();
    let nll: f64 = rows.iter().map(|row| row["nll"].as_f64().unwrap()).sum();
    let tokens = evaluated["label_tokens"].as_f64().unwrap();
    assert!((nll / tokens / found - 1.0).abs() < 1e-9);
}

#[test]
fn the_usual_notebooks_settings_run_as_given() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 16 * 8 * 20);
    let config = folder.path().join("run.toml");
    let output = folder.path().join("out");
    fs::write(
        &config,
        format!(
            "[model]\npath = {:?}\n[method]\ntype = \"prompt-tuning\"\n[data]\ntrain = {data:?}\n\
             [train]\nper_device_train_batch_size = 16\ngradient_accumulation_steps = 8\n\
             logging_steps = 10\nnum_train_epochs = 1\nsave_steps = 20\n[output]\ndir = {:?}\n",
            model_path(),
            text(&output),
        ),
    )
    .unwrap();
    let run = succeed(&mut burn_peft(&[
        "train",
        "--json",
        "--config",
        text(&config),
    ]));
    let logged: Vec<_> = lines(&run)
        .iter()
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(logged, [10, 20]);
    assert!(output.join("checkpoints/step-20").is_dir());
    // Tensors and Adam's two moments of them in f32, and 4 KiB for names and state.
    let adapter = 20 * 64 * 4;
    let size = folder_size(&output.join("checkpoints/step-20"));
    assert!(
        size < 3 * adapter + 4096,
        "{size} bytes for an adapter of {adapter}"
    );
    let config = fs::read_to_string(output.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["peft_type"], "PROMPT_TUNING");
    assert_eq!(config["base_model_name_or_path"], model_path());
}

fn folder_size(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 40);
    let model = model_path();
    let train = |output: &Path, steps: &str, resume: bool| {
        let mut args = vec![
            "train",
            "--json",
            "--model",
            &model,
            "--data",
            &data,
            "--output",
            text(output),
            "--set",
            "train.lr_scheduler_type=constant",
            "--set",
            "train.learning_rate=0.01",
            "--max-steps",
            steps,
        ];
        if resume {
            args.push("--resume");
        }
        succeed(&mut burn_peft(&args));
        fs::read(output.join("adapter_model.safetensors")).unwrap()
    };
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    // Five steps an epoch: the cut is in the middle of the second.
    let uninterrupted = train(&whole, "12", false);
    assert_ne!(train(&parts, "7", false), uninterrupted);
    assert_eq!(train(&parts, "12", true), uninterrupted);
}

#[test]
fn an_exported_adapter_evaluates_as_the_run_said() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 24);
    let model = model_path();
    let output = folder.path().join("out");
    let args = [
        "train",
        "--json",
        "--model",
        &model,
        "--data",
        &data,
        "--valid",
        &data,
        "--output",
        text(&output),
        "--max-steps",
        "5",
        "--backend",
        "ndarray",
        "--set",
        "method.prompt_tuning_init=TEXT",
        "--set",
        "method.prompt_tuning_init_text=the cat",
    ];
    let run = succeed(&mut burn_peft(&args));
    let after = lines(&run).last().unwrap()["after"]["loss"]
        .as_f64()
        .unwrap();
    let args = [
        "evaluate",
        "--json",
        "--model",
        &model,
        "--data",
        &data,
        "--adapter",
        text(&output),
        "--no-generate",
    ];
    let evaluated = succeed(&mut burn_peft(&args));
    let found: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    let found = found["loss"].as_f64().unwrap();
    // Trained on ndarray, evaluated on flex.
    assert!((found / after - 1.0).abs() < 1e-5, "{found} for {after}");
}

#[test]
fn generate_streams_what_its_json_says() {
    let model = model_path();
    let args = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "the cat",
        "--max-new-tokens",
        "12",
    ];
    let plain = succeed(&mut burn_peft(&args));
    let json = succeed(burn_peft(&args).arg("--json"));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let streamed = String::from_utf8(plain.stdout).unwrap();
    assert_eq!(
        streamed.strip_suffix('\n').unwrap(),
        json["text"].as_str().unwrap()
    );
    assert!(json["token_ids"].as_array().unwrap().len() <= 12);
    assert!(["stop", "length"].contains(&json["finish_reason"].as_str().unwrap()));
    let sampled = |seed| {
        let sampling = ["--temperature", "2", "--seed", seed, "--json"];
        succeed(burn_peft(&args).args(sampling)).stdout
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn inspect_counts_parameters_as_peft_does() {
    // Qwen2.5-1.5B.
    let folder = tempdir().unwrap();
    let config = folder.path().join("config.json");
    fs::write(
        &config,
        r#"{"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
            "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
            "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151936}"#,
    )
    .unwrap();
    let args = [
        "inspect",
        text(&config),
        "--method",
        "prompt-tuning",
        "--num-virtual-tokens",
        "10",
    ];
    let output = succeed(&mut burn_peft(&args));
    let output = String::from_utf8(output.stdout).unwrap();
    let line = "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010";
    assert!(output.lines().any(|found| found == line), "{output}");

    let adapter = fixture::path("cases/tied_gqa-prompt-tuning-text/adapter");
    let output = succeed(&mut burn_peft(&[
        "inspect",
        "--json",
        text(&adapter),
        "--model",
        &model_path(),
    ]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["kind"], "adapter");
    assert_eq!(report["method"], "prompt-tuning");
    let case: Value = fixture::json("cases/tied_gqa-prompt-tuning-text/case.json");
    for count in ["trainable_params", "all_params"] {
        assert_eq!(report[count], case[count], "{count}");
    }
}

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
    assert!(generate(Path::new("./no-such-model")).contains("./no-such-model: no such model"));

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
    assert!(line.contains("`model.norm.weight`"), "all at once: {line}");

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
        (r#"{"text": "x", "label": 1}"#.into(), "rows.jsonl:1"),
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
fn rows_that_are_too_long_are_cut_and_counted() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let long = "cat ".repeat(200);
    let rows = [
        ("short", "sat"),
        ("short", long.as_str()),
        (long.as_str(), "sat"),
    ];
    let rows = rows.map(|(prompt, completion)| {
        serde_json::json!({"prompt": prompt, "completion": completion}).to_string()
    });
    fs::write(&path, rows.join("\n")).unwrap();
    let args = [
        "evaluate",
        "--json",
        "--no-generate",
        "--max-length",
        "32",
        "--model",
        &model_path(),
        "--data",
        text(&path),
    ];
    let report: Value = serde_json::from_slice(&succeed(&mut burn_peft(&args)).stdout).unwrap();
    assert_eq!(
        (&report["truncated"], &report["dropped"]),
        (&1.into(), &1.into())
    );
    assert_eq!(report["examples"], 2);
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
        ("[method]\ntype = \"p-tuning\"\n", "not there yet"),
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
fn commands_of_later_versions_say_so() {
    for command in ["chat", "doctor", "export", "bench"] {
        let line = refused(&mut burn_peft(&[command, "--model", "x"]));
        assert!(line.contains("not there yet"), "{line}");
    }
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
