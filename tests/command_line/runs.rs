//! What succeeds: training, resuming, scoring, generating, inspecting.

use super::*;

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
    // Tensors and Adam's two moments of them in f32, and 8 KiB for names, state and configuration.
    let adapter = 20 * 64 * 4;
    let size = folder_size(&output.join("checkpoints/step-20"));
    assert!(
        size < 3 * adapter + 8192,
        "{size} bytes for an adapter of {adapter}"
    );
    let config = fs::read_to_string(output.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["peft_type"], "PROMPT_TUNING");
    assert_eq!(config["base_model_name_or_path"], model_path());
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
    let hidden = "method.encoder_hidden_size=1024";
    let lstm = "method.encoder_reparameterization_type=LSTM";
    let cases: [(&str, &[&str], &str); 5] = [
        (
            "prompt-tuning",
            &[],
            "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010",
        ),
        (
            "p-tuning",
            &["--set", hidden],
            "trainable params: 4,213,248 || all params: 1,547,927,552 || trainable%: 0.2722",
        ),
        (
            "p-tuning",
            &["--set", hidden, "--set", lstm],
            "trainable params: 53,529,088 || all params: 1,597,243,392 || trainable%: 3.3513",
        ),
        (
            "prefix-tuning",
            &[],
            "trainable params: 3,752,704 || all params: 1,547,467,008 || trainable%: 0.2425",
        ),
        (
            "p-tuning-v2",
            &[],
            "trainable params: 143,360 || all params: 1,543,857,664 || trainable%: 0.0093",
        ),
    ];
    for (method, options, line) in cases {
        let ten = ["--num-virtual-tokens", "10"];
        let args = ["inspect", text(&config), "--method", method];
        let output = succeed(burn_peft(&args).args(ten).args(options));
        let output = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.lines().last(), Some(line), "{output}");
    }

    // And how it would be computed here.
    let three = ("RAYON_NUM_THREADS", "3");
    let output = succeed(burn_peft(&["inspect", "--json", text(&config)]).env(three.0, three.1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lanes = report["cpu"]["f32_lanes"].as_u64().unwrap();
    assert!([1, 4, 8, 16].contains(&lanes), "{report}");
    assert_eq!(report["cpu"]["threads"], 3, "{report}");
    let products = report["cpu"]["bf16_products"].as_str().unwrap();
    assert!(
        ["AMX", "AVX512-BF16", "f32"].contains(&products),
        "{report}"
    );
    let output = succeed(burn_peft(&["inspect", text(&config)]).env(three.0, three.1));
    let line = format!(
        "on this CPU: 3 threads, {lanes} f32 a vector; products of bf16 weights by {products}\n"
    );
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains(&line), "{output}");

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
fn inspect_lists_the_frozen_base_and_then_the_adapters_modules() {
    let model = fixture::path("models/tied_gqa");
    let adapter = fixture::path("cases/tied_gqa-prefix-tuning/adapter");
    let options = [
        "--method",
        "prefix-tuning",
        "--num-virtual-tokens",
        "4",
        "--set",
        "method.encoder_hidden_size=24",
    ];
    let text_of = |args: &[&str]| {
        let output = succeed(burn_peft(&["inspect"]).args(args));
        String::from_utf8(output.stdout).unwrap()
    };
    let listing = text_of(&[&[text(&model)], &options[..]].concat());
    let expected = [
        "model: prefix-tuning",
        "Qwen2ForCausalLM(  # frozen",
        "      (0-2): 3 x Qwen2DecoderLayer(",
        "  (lm_head): Linear(in_features=64, out_features=320, bias=False)  # the weight of embed_tokens",
        "PrefixEncoder(  # trainable",
        "  (embedding): Embedding(4, 32)  # weight [4, 32]",
        "    (0): Linear(in_features=32, out_features=24, bias=True)  # weight [24, 32], bias [24]",
        "    (1): Tanh()",
        "    (2): Linear(in_features=24, out_features=192, bias=True)  # weight [192, 24], bias [192]",
        "trainable params: ",
    ];
    let mut lines = listing.lines();
    for expected in expected {
        // In this order, with other lines between them.
        assert!(
            lines.any(|line| line.starts_with(expected)),
            "{expected} is not in its place:\n{listing}"
        );
    }

    // A folder has only what the encoder made.
    let alone = text_of(&[text(&adapter)]);
    assert!(alone.contains("\n  (embedding): Embedding("), "{alone}");
    assert!(
        !alone.contains("Tanh") && !alone.contains("Qwen2"),
        "{alone}"
    );
    let with_base = text_of(&[text(&adapter), "--model", text(&model)]);
    assert!(
        with_base.contains("Qwen2ForCausalLM(  # frozen"),
        "{with_base}"
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
