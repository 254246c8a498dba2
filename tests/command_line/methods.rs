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

fn train_command(method: &str, data: &str, output: &Path) -> Command {
    let model = model_path();
    let mut command = burn_peft(&["train", "--no-tui", "--model", &model, "--method", method]);
    command.args(["--data", data, "--output", text(output)]);
    command
}

fn train(method: &str, options: &[&str], data: &str, output: &Path, rest: &[&str]) -> Vec<Value> {
    let mut command = train_command(method, data, output);
    command.args(["--json", "--set", "train.learning_rate=0.01"]);
    for option in options {
        command.args(["--set", &format!("method.{option}")]);
    }
    lines(&succeed(command.args(rest)))
}

fn evaluate(data: &str, adapter: &Path) -> Value {
    let model = model_path();
    let mut command = burn_peft(&["evaluate", "--json", "--no-generate", "--model", &model]);
    command.args(["--data", data, "--adapter", text(adapter)]);
    lines(&succeed(&mut command)).remove(0)
}

#[test]
fn every_method_resumes_bit_for_bit_and_evaluates_as_the_run_said() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 40);
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
        let evaluated = evaluate(&data, &whole);
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
    let (option, further_dir) = (format!("method.{init_from}"), path("further"));
    let mut further = train_command("p-tuning-v2", &data, &further_dir);
    further.args([
        "--json",
        "--max-steps",
        "1",
        "--valid",
        &data,
        "--set",
        &option,
    ]);
    further.args(["--set", "train.learning_rate=1e-12"]);
    // The folder goes before other ways to start.
    further.args(["--set", "method.init_weights=text"]);
    further.args(["--set", "method.prefix_init_text=sat"]);
    let further = lines(&succeed(&mut further));
    let found = further.last().unwrap()["after"]["loss"].as_f64().unwrap();
    assert!((found / after - 1.0).abs() < 1e-5, "{found} for {after}");

    let wrong_dir = path("wrong");
    let line = refused(train_command("bitfit", &data, &wrong_dir).args(["--set", &option]));
    assert!(
        line.contains("method.init_from") && line.contains("prefix-tuning"),
        "{line}"
    );
    let template = "data.template={prompt:4}{prompt}{completion}";
    let line = refused(
        train_command("p-tuning-v2", &data, &wrong_dir).args(["--set", &option, "--set", template]),
    );
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
        let mut command = train_command(method, &data, &output);
        command.args(["--max-steps", "1"]);
        for option in options {
            command.args(["--set", option]);
        }
        let run = succeed(&mut command);
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
    let output = folder.path().join("out");
    let line =
        refused(train_command("bitfit", &data, &output).args(["--set", "method.layers=[1, 3]"]));
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
    for (method, template, tokens) in [
        ("p-tuning", "{prompt:2} {input} {prompt:3} {completion}", 5),
        ("prefix-tuning", "{input}{prompt:3}\n{completion}", 3),
    ] {
        let output = folder.path().join(method);
        let set = format!("data.template={template}");
        let rest = ["--set", &set, "--valid", &data, "--max-steps", "2"];
        let done = train(method, &[], &data, &output, &rest);
        let after = done.last().unwrap()["after"]["loss"].as_f64().unwrap();
        let config = config_to_edit(&output);
        assert_eq!(config["burn_peft_template"], template);
        assert_eq!(config["num_virtual_tokens"], tokens);
        let found = evaluate(&data, &output)["loss"].as_f64().unwrap();
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
        write_config(&output, &in_front);
        let found = evaluate(&data, &output)["loss"].as_f64().unwrap();
        assert!((found / after - 1.0).abs() > 1e-3);
    }
    let output = folder.path().join("bitfit");
    let line = refused(
        train_command("bitfit", &data, &output)
            .args(["--set", "data.template={prompt:2}{prompt}{completion}"]),
    );
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
    let data = text(&path).to_owned();
    for method in ["prompt-tuning", "p-tuning-v2"] {
        let output = folder.path().join(method);
        train(method, &[], &data, &output, &["--max-steps", "1"]);
        let evaluated = evaluate(&data, &output);
        assert_eq!(evaluated["truncated"], 1);
        let supervised = evaluated["label_tokens"].as_u64().unwrap();
        assert!((480..492).contains(&supervised), "{evaluated}");
    }
    let output = folder.path().join("none");
    let line = refused(
        train_command("prompt-tuning", &data, &output)
            .args(["--set", "method.num_virtual_tokens=511"]),
    );
    assert!(line.contains("method.num_virtual_tokens"), "{line}");
}
