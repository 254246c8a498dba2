//! The five methods as a user trains them.

use burn_peft_data::TextTokenizer;
use burn_peft_format::AdapterFolder;

use super::*;

/// Each method with options that leave nothing out, dropout among them.
const METHODS: [(&str, &[&str]); 7] = [
    (
        "prompt-tuning",
        &[
            "prompt_tuning_init=CLASS_LABELS",
            "prompt_tuning_init_labels=[\"mat\", \"a cat\"]",
        ],
    ),
    ("p-tuning", &["num_virtual_tokens=4"]),
    (
        "p-tuning",
        &[
            "num_virtual_tokens=4",
            "encoder_reparameterization_type=LSTM",
            "encoder_hidden_size=12",
            "encoder_dropout=0.1",
        ],
    ),
    (
        "prefix-tuning",
        &["encoder_hidden_size=16", "prefix_dropout=0.1"],
    ),
    (
        "prefix-tuning",
        &[
            "prefix_heads=attention",
            "init_weights=text",
            "prefix_init_text=the cat sat",
        ],
    ),
    ("p-tuning-v2", &["layers=[1, 2]", "prefix_dropout=0.1"]),
    (
        "bitfit",
        &[
            "target_modules=[\"q_proj\", \"o_proj\", \"input_layernorm\"]",
            "layers=[0, 1]",
        ],
    ),
];

fn train(method: &str, options: &[&str], data: &str, output: &Path, rest: &[&str]) -> Vec<Value> {
    let options: Vec<String> = options
        .iter()
        .map(|option| format!("method.{option}"))
        .collect();
    let model = model_path();
    let mut args = vec![
        "train",
        "--json",
        "--model",
        &model,
        "--method",
        method,
        "--data",
        data,
        "--output",
        text(output),
        "--set",
        "train.learning_rate=0.01",
    ];
    for option in &options {
        args.extend(["--set", option]);
    }
    args.extend(rest);
    lines(&succeed(&mut burn_peft(&args)))
}

#[test]
fn every_method_resumes_bit_for_bit_and_evaluates_as_the_run_said() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 40);
    let model = model_path();
    for (index, (method, options)) in METHODS.into_iter().enumerate() {
        let [whole, parts] =
            ["whole", "parts"].map(|name| folder.path().join(format!("{name}-{index}")));
        let constant = [
            "--set",
            "train.lr_scheduler_type=constant",
            "--valid",
            &data,
        ];
        let run = |output: &Path, rest: &[&str]| {
            train(method, options, &data, output, &[&constant, rest].concat())
        };
        let done = run(&whole, &["--max-steps", "6"]);
        run(&parts, &["--max-steps", "4"]);
        run(&parts, &["--max-steps", "6", "--resume"]);
        let [a, b] =
            [&whole, &parts].map(|dir| fs::read(dir.join("adapter_model.safetensors")).unwrap());
        assert!(a == b, "{method} {options:?}");

        let done = done.last().unwrap();
        let [before, after] = ["before", "after"].map(|when| done[when]["loss"].as_f64().unwrap());
        assert_ne!(before, after);
        let evaluated = succeed(&mut burn_peft(&[
            "evaluate",
            "--json",
            "--no-generate",
            "--model",
            &model,
            "--data",
            &data,
            "--adapter",
            text(&whole),
        ]));
        let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
        let found = evaluated["loss"].as_f64().unwrap();
        // The encoder's output in place of the encoder: the same numbers.
        assert!(
            (found / after - 1.0).abs() < 1e-5,
            "{method}: {found} for {after}"
        );
    }
}

#[test]
fn an_adapter_starts_from_another_ones_folder_where_the_method_is_the_same() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 16);
    let path = |name: &str| folder.path().join(name);
    let held_out = ["--max-steps", "2", "--valid", &data];
    let prefix = train(
        "prefix-tuning",
        &["num_virtual_tokens=3"],
        &data,
        &path("prefix"),
        &held_out,
    );
    let after = prefix.last().unwrap()["after"]["loss"].as_f64().unwrap();
    // What is saved of a projected prefix is a prefix: P-Tuning v2 goes on from there.
    let init_from = format!("init_from={}", path("prefix").display());
    let further = [
        "--max-steps",
        "1",
        "--set",
        "train.learning_rate=1e-12",
        "--valid",
        &data,
    ];
    let model = model_path();
    let mut args = vec![
        "train",
        "--json",
        "--model",
        &model,
        "--method",
        "p-tuning-v2",
        "--data",
        &data,
        "--set",
    ];
    let (option, further_dir) = (format!("method.{init_from}"), path("further"));
    args.extend([option.as_str(), "--output", text(&further_dir)]);
    args.extend(further);
    let further = lines(&succeed(&mut burn_peft(&args)));
    let found = further.last().unwrap()["after"]["loss"].as_f64().unwrap();
    assert!((found / after - 1.0).abs() < 1e-5, "{found} for {after}");

    let wrong_dir = path("wrong");
    let line = refused(&mut burn_peft(&[
        "train",
        "--model",
        &model,
        "--method",
        "bitfit",
        "--data",
        &data,
        "--set",
        &option,
        "--output",
        text(&wrong_dir),
    ]));
    assert!(
        line.contains("method.init_from") && line.contains("prefix-tuning"),
        "{line}"
    );
    let template = "data.template={prompt:4}{prompt}{completion}";
    let line = refused(&mut burn_peft(&[
        "train",
        "--model",
        &model,
        "--method",
        "p-tuning-v2",
        "--data",
        &data,
        "--set",
        &option,
        "--set",
        template,
        "--output",
        text(&wrong_dir),
    ]));
    assert!(
        line.contains("it has 3 virtual tokens, and this run 4"),
        "{line}"
    );
}

#[test]
fn a_text_settles_the_number_of_virtual_tokens() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let tokenizer = TextTokenizer::load(&fixture::path("models/tied_gqa")).unwrap();
    for (index, prompt) in [
        "下面是一段人与机器人的对话。",
        "Answer in one short sentence.",
    ]
    .iter()
    .enumerate()
    {
        let output = folder.path().join(index.to_string());
        let text_option = format!("prompt_tuning_init_text={prompt}");
        train(
            "prompt-tuning",
            &["prompt_tuning_init=TEXT", &text_option],
            &data,
            &output,
            &["--max-steps", "1"],
        );
        let adapter = AdapterFolder::load(&output).unwrap();
        let tokens = tokenizer.encode(prompt).unwrap().len();
        assert_eq!(
            adapter.tensors.get("prompt_embeddings").unwrap().shape(),
            [tokens, 64]
        );
        let run = fs::read_to_string(output.join("run.toml")).unwrap();
        assert!(
            run.contains(&format!("num_virtual_tokens = {tokens}")),
            "{run}"
        );
    }
}

#[test]
fn what_is_known_to_train_badly_is_said_and_trained() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let model = model_path();
    for (index, (method, options, warning)) in [
        (
            "prompt-tuning",
            &[
                "method.prompt_tuning_init=RANDOM",
                "method.random_init=normal",
            ][..],
            "N(0, 1)",
        ),
        ("prompt-tuning", &["train.learning_rate=1e-4"], "too low"),
        (
            "p-tuning-v2",
            &["method.init_weights=random"],
            "random prefix",
        ),
        ("p-tuning-v2", &["method.init_weights=zero"], "act as one"),
        (
            "p-tuning",
            &["method.encoder_dropout=0.5"],
            "method.encoder_dropout has no effect",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let output = folder.path().join(index.to_string());
        let mut args = vec![
            "train",
            "--no-tui",
            "--model",
            &model,
            "--method",
            method,
            "--data",
            &data,
            "--output",
            text(&output),
            "--max-steps",
            "1",
        ];
        for option in options {
            args.extend(["--set", option]);
        }
        let run = succeed(&mut burn_peft(&args));
        let stderr = String::from_utf8(run.stderr).unwrap();
        let said = stderr
            .lines()
            .any(|line| line.starts_with("warning: ") && line.contains(warning));
        assert!(said, "{method}: {stderr}");
    }
}

#[test]
fn layers_that_the_base_does_not_have_are_refused() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let (model, output) = (model_path(), folder.path().join("out"));
    let line = refused(&mut burn_peft(&[
        "train",
        "--model",
        &model,
        "--method",
        "bitfit",
        "--data",
        &data,
        "--output",
        text(&output),
        "--set",
        "method.layers=[1, 3]",
    ]));
    assert!(
        line.contains("method.layers") && line.contains("0 to 2"),
        "{line}"
    );
    assert!(!output.exists());
}

#[test]
fn a_template_settles_the_tokens_and_goes_with_the_adapter() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 16);
    let model = model_path();
    for (method, template, tokens) in [
        ("p-tuning", "{prompt:2} {input} {prompt:3} {completion}", 5),
        ("prefix-tuning", "{input}{prompt:3}\n{completion}", 3),
    ] {
        let output = folder.path().join(method);
        let set = format!("data.template={template}");
        let rest = ["--set", &set, "--valid", &data, "--max-steps", "2"];
        let done = train(method, &[], &data, &output, &rest);
        let after = done.last().unwrap()["after"]["loss"].as_f64().unwrap();
        let config = fs::read_to_string(output.join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["burn_peft_template"], template);
        assert_eq!(config["num_virtual_tokens"], tokens);
        let with_adapter = ["--json", "--model", &model, "--adapter", text(&output)];
        let evaluated =
            succeed(burn_peft(&["evaluate", "--no-generate", "--data", &data]).args(with_adapter));
        let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
        let found = evaluated["loss"].as_f64().unwrap();
        assert!(
            (found / after - 1.0).abs() < 1e-5,
            "{method}: {found} for {after}"
        );
        // Elsewhere it is another function.
        let mut in_front = config.clone();
        in_front
            .as_object_mut()
            .unwrap()
            .remove("burn_peft_template");
        fs::write(output.join("adapter_config.json"), in_front.to_string()).unwrap();
        let evaluated =
            succeed(burn_peft(&["evaluate", "--no-generate", "--data", &data]).args(with_adapter));
        let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
        assert!((evaluated["loss"].as_f64().unwrap() / after - 1.0).abs() > 1e-3);
    }
    let output = folder.path().join("bitfit");
    let line = refused(&mut burn_peft(&[
        "train",
        "--model",
        &model,
        "--method",
        "bitfit",
        "--data",
        &data,
        "--output",
        text(&output),
        "--set",
        "data.template={prompt:2}{prompt}{completion}",
    ]));
    assert!(line.contains("bitfit has no virtual tokens"), "{line}");
}

#[test]
fn rows_and_virtual_tokens_share_the_models_positions() {
    let folder = tempdir().unwrap();
    // The model has 512 positions.
    let path = folder.path().join("long.jsonl");
    let long = "the cat sat on the mat ".repeat(60);
    let row = serde_json::json!({"prompt": "say ", "completion": long});
    fs::write(&path, row.to_string()).unwrap();
    let (data, model) = (text(&path).to_owned(), model_path());
    for method in ["prompt-tuning", "p-tuning-v2"] {
        let output = folder.path().join(method);
        train(method, &[], &data, &output, &["--max-steps", "1"]);
        let evaluated = succeed(&mut burn_peft(&[
            "evaluate",
            "--json",
            "--no-generate",
            "--model",
            &model,
            "--data",
            &data,
            "--adapter",
            text(&output),
        ]));
        let evaluated: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
        assert_eq!(evaluated["truncated"], 1);
        let supervised = evaluated["label_tokens"].as_u64().unwrap();
        assert!((480..492).contains(&supervised), "{evaluated}");
    }
    let output = folder.path().join("none");
    let line = refused(&mut burn_peft(&[
        "train",
        "--model",
        &model,
        "--data",
        &data,
        "--output",
        text(&output),
        "--set",
        "method.num_virtual_tokens=511",
    ]));
    assert!(line.contains("method.num_virtual_tokens"), "{line}");
}
