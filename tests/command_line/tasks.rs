//! Heads and label words: train, evaluate and predict on small files of each task.

use serde_json::json;

use super::*;

/// What a small adapter learns by heart.
const MOODS: [(&str, &str); 4] = [
    ("The Heron is a lovely pub.", "good"),
    ("The Badger is a dirty pub.", "bad"),
    ("Lovely soup, and a lovely view.", "good"),
    ("Dirty tables and a dirty floor.", "bad"),
];

fn write(folder: &Path, name: &str, rows: &[Value]) -> String {
    let path = folder.join(name);
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

fn moods(folder: &Path) -> String {
    let row = |(text, label): &(&str, &str)| json!({"text": text, "label": label});
    write(
        folder,
        "moods.jsonl",
        &MOODS.iter().map(row).collect::<Vec<_>>(),
    )
}

/// Trains on a file until it is known by heart, and returns the adapter's folder.
fn train(folder: &Path, data: &str, set: &[&str]) -> String {
    let output = text(&folder.join("run")).to_owned();
    let mut command = burn_peft(&["train", "--no-tui", "--method", "p-tuning-v2"]);
    command.args([
        "--data",
        data,
        "--output",
        &output,
        "--set",
        "train.max_steps=40",
    ]);
    for set in set {
        command.args(["--set", set]);
    }
    succeed(&mut command);
    output
}

fn evaluate(adapter: &str, data: &str) -> Value {
    let mut command = burn_peft(&["evaluate", "--json", "--per-example"]);
    let output = succeed(command.args(["--adapter", adapter, "--data", data]));
    lines(&output).remove(0)
}

fn predict(adapter: &str, data: &str) -> Vec<Value> {
    let mut command = burn_peft(&["predict", "--adapter", adapter, "--data", data]);
    lines(&succeed(&mut command))
}

#[test]
fn a_class_is_learned_scored_and_predicted_by_name() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let adapter = train(folder.path(), &data, &[]);
    let scores = evaluate(&adapter, &data);
    assert_eq!(scores["accuracy"], 1.0, "{scores}");
    assert!(scores.get("perplexity").is_none(), "{scores}");
    let logits = &scores["per_example"][0]["logits"];
    assert_eq!(logits.as_array().unwrap().len(), 2, "{logits}");
    // Without labels, into a file, and one text alone.
    let unlabelled: Vec<Value> = MOODS
        .iter()
        .map(|(text, _)| json!({"text": text}))
        .collect();
    let unlabelled = write(folder.path(), "new.jsonl", &unlabelled);
    let found = predict(&adapter, &unlabelled);
    let names: Vec<&Value> = found.iter().map(|row| &row["prediction"]).collect();
    assert_eq!(names, MOODS.map(|(_, label)| label));
    let share = found[0]["scores"]["good"].as_f64().unwrap();
    assert!(share > 0.5 && share < 1.0, "{share}");
    let file = folder.path().join("out/predictions.jsonl");
    let mut command = burn_peft(&["predict", "--adapter", &adapter, "--data", &unlabelled]);
    succeed(command.args(["--output", text(&file)]));
    let written = fs::read_to_string(&file).unwrap();
    let written: Vec<Value> = written
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(written, found);
    let mut command = burn_peft(&["predict", "--adapter", &adapter, "--text", MOODS[1].0]);
    assert_eq!(succeed(&mut command).stdout, b"bad\n");
}

#[test]
fn a_head_is_resumed_as_it_would_have_gone_on() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let run = |output: &str, more: &[&str]| {
        let output = text(&folder.path().join(output)).to_owned();
        let mut command = burn_peft(&["train", "--no-tui", "--method", "bitfit"]);
        command.args([
            "--data",
            &data,
            "--output",
            &output,
            "--set",
            "train.save_steps=2",
        ]);
        succeed(command.args(more));
        fs::read(Path::new(&output).join("adapter_model.safetensors")).unwrap()
    };
    // At one rate: that of a schedule depends on the number of steps.
    let constant = ["--set", "train.lr_scheduler_type=constant"];
    let whole = run("whole", &[&["--max-steps", "4"][..], &constant].concat());
    run("parts", &[&["--max-steps", "2"][..], &constant].concat());
    let parts = run(
        "parts",
        &[&["--max-steps", "4", "--resume"][..], &constant].concat(),
    );
    assert_eq!(whole, parts);
}

#[test]
fn label_words_are_learned_scored_and_predicted() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let words = r#"task.verbalizer={good = " fine", bad = " not fine at all"}"#;
    let adapter = train(folder.path(), &data, &[words, "task.calibrate=true"]);
    let scores = evaluate(&adapter, &data);
    assert_eq!(scores["accuracy"], 1.0, "{scores}");
    let found = predict(&adapter, &data);
    let names: Vec<&Value> = found.iter().map(|row| &row["prediction"]).collect();
    assert_eq!(names, MOODS.map(|(_, label)| label));
    let config = config_to_edit(Path::new(&adapter));
    assert_eq!(config["task_type"], "CAUSAL_LM");
}

#[test]
fn tags_are_learned_and_predicted_for_every_word() {
    let folder = tempdir().unwrap();
    let rows = [
        json!({"tokens": ["The", "Old", "Heron", "is", "open"], "tags": ["O", "B-PUB", "I-PUB", "O", "O"]}),
        json!({"tokens": ["Visit", "Zizzi", "today"], "tags": ["O", "B-PUB", "O"]}),
    ];
    let data = write(folder.path(), "tags.jsonl", &rows);
    let adapter = train(folder.path(), &data, &[]);
    let scores = evaluate(&adapter, &data);
    assert_eq!(scores["f1"], 1.0, "{scores}");
    let found = predict(&adapter, &data);
    assert_eq!(found[1]["prediction"], rows[1]["tags"]);
    assert_eq!(found[0]["scores"].as_array().unwrap().len(), 5);
    // The same rows as a CoNLL file.
    let conll = folder.path().join("test.conll");
    fs::write(
        &conll,
        "The O\nOld B-PUB\nHeron I-PUB\nis O\nopen O\n\nVisit O\nZizzi B-PUB\ntoday O\n",
    )
    .unwrap();
    assert_eq!(evaluate(&adapter, text(&conll))["f1"], 1.0);
}

/// Five layers, keys of 128 in each, and embeddings with a root mean square of 0.156.
#[test]
fn learning_rates_follow_from_method_and_task_on_the_built_in_model() {
    let folder = tempdir().unwrap();
    let completion = json!({"prompt": "The Heron is", "completion": " a pub."});
    let tags = json!({"tokens": ["The", "Heron"], "tags": ["O", "B-PUB"]});
    let files = [
        write(folder.path(), "texts.jsonl", &[completion]),
        moods(folder.path()),
        write(folder.path(), "tags.jsonl", &[tags]),
    ];
    let rates = |method: &str, data: &str| {
        let output = tempdir().unwrap();
        let mut command = burn_peft(&["train", "--no-tui", "--method", method, "--data", data]);
        succeed(command.args(["--max-steps", "1", "--output", text(output.path())]));
        let resolved = output.path().join("run.toml");
        let train = burn_peft_train::RunConfig::load(Some(&resolved), &[])
            .unwrap()
            .train;
        [train.learning_rate, train.head_learning_rate]
    };
    for (method, without, with_head) in [
        ("bitfit", 0.06, 0.06),
        ("prompt-tuning", 0.28, 0.093),
        ("p-tuning", 0.003, 0.001),
        ("prefix-tuning", 0.0039, 0.0013),
        ("p-tuning-v2", 0.2, 0.067),
    ] {
        let [texts, classes, tags] = files.each_ref().map(|data| rates(method, data));
        assert_eq!(texts, [Some(without), None], "{method}");
        assert_eq!(classes, [Some(with_head), Some(3e-3)], "{method}");
        assert_eq!(tags, [Some(with_head), Some(1e-2)], "{method}");
    }
}

#[test]
fn answers_are_parts_of_their_contexts_and_may_be_missing() {
    let folder = tempdir().unwrap();
    let context = "Café Heron serves soup. The Badger serves cake.";
    let row = |question: &str, answer: Option<&str>| {
        let answers: Vec<&str> = answer.into_iter().collect();
        let starts: Vec<usize> = answers
            .iter()
            .map(|answer| context[..context.find(answer).unwrap()].chars().count())
            .collect();
        json!({"context": context, "question": question,
               "answers": {"text": answers, "answer_start": starts}})
    };
    let rows = [
        row("What does Café Heron serve?", Some("soup")),
        row("What does The Badger serve?", Some("cake")),
        row("Who is the cook?", None),
    ];
    let data = write(folder.path(), "questions.jsonl", &rows);
    let adapter = train(folder.path(), &data, &[]);
    let scores = evaluate(&adapter, &data);
    assert_eq!(scores["exact_match"], 1.0, "{scores}");
    let found = predict(&adapter, &data);
    let first = &found[0]["prediction"];
    assert_eq!(
        (&first["text"], &first["start"]),
        (&json!("soup"), &json!(18))
    );
    assert_eq!(found[2]["prediction"]["start"], Value::Null);
    let mut command = burn_peft(&["predict", "--adapter", &adapter, "--text", context]);
    let answer = succeed(command.args(["--question", "What does The Badger serve?"]));
    assert_eq!(answer.stdout, b"cake\n");
}

#[test]
fn the_built_in_rows_of_every_task_are_trained_scored_and_predicted() {
    let folder = tempdir().unwrap();
    for (task, score) in [
        ("seq-cls", "accuracy"),
        ("token-cls", "f1"),
        ("qa", "exact_match"),
    ] {
        let output = folder.path().join(task);
        let mut train = burn_peft(&["train", "--no-tui", "--task", task, "--max-steps", "2"]);
        let said = succeed(train.args(["--method", "bitfit", "--output", text(&output)]));
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains(&format!("task: {task}")), "{said}");
        let mut evaluate = burn_peft(&["evaluate", "--json", "--adapter", text(&output)]);
        let scores = &lines(&succeed(&mut evaluate))[0];
        assert!(scores[score].is_number(), "{scores}");
        let mut inspect = burn_peft(&["inspect", "--json", text(&output)]);
        assert_eq!(lines(&succeed(&mut inspect))[0]["task"], task);
    }
}

#[cfg(unix)]
#[test]
fn predictions_are_not_written_over_what_is_read_or_is_no_file() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let adapter = train(folder.path(), &data, &["train.max_steps=1"]);
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let before = fs::read(&data).unwrap();
    for (output, expected) in [
        (data.as_str(), "the file of --data"),
        (text(&pipe), "regular file"),
    ] {
        let mut command = burn_peft(&["predict", "--adapter", &adapter, "--data", &data]);
        let error = refused(command.args(["--output", output]));
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read(&data).unwrap(), before);
}

#[test]
fn changed_labels_are_other_rows() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let adapter = train(folder.path(), &data, &["train.max_steps=2"]);
    let swapped = fs::read_to_string(&data).unwrap();
    let swapped = swapped
        .replace("\"good\"", "\"-\"")
        .replace("\"bad\"", "\"good\"");
    fs::write(&data, swapped.replace("\"-\"", "\"bad\"")).unwrap();
    let mut resume = burn_peft(&["train", "--no-tui", "--method", "p-tuning-v2", "--resume"]);
    resume.args(["--data", &data, "--output", &adapter, "--max-steps", "60"]);
    let error = refused(&mut resume);
    assert!(error.contains("the training data"), "{error}");
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path());
    let train = |more: &[&str]| {
        let mut command = burn_peft(&["train", "--no-tui", "--data", &data]);
        refused(command.args(more).current_dir(folder.path()))
    };
    for (more, expected) in [
        (
            &["--task", "qa"][..],
            "these rows are for seq-cls, and the task is qa",
        ),
        (
            &["--set", "task.doc_stride=7"],
            "task.doc_stride: seq-cls has no such option",
        ),
        (&["--set", "task.labels=[\"good\", \"fine\"]"], "bad"),
        (
            &["--set", "task.verbalizer={good = \"a\", ugly = \"b\"}"],
            "task.verbalizer: \"ugly\" is no class",
        ),
        (
            &["--method", "linear-probe", "--set", "task.freeze_head=true"],
            "task.freeze_head is true",
        ),
        (
            &["--method", "linear-probe", "--set", "task.verbalizer=true"],
            "the language-model head tells the classes",
        ),
    ] {
        let error = train(more);
        assert!(error.contains(expected), "{more:?}: {error}");
    }
    let mut command = burn_peft(&["train", "--no-tui", "--method", "linear-probe"]);
    let error = refused(command.current_dir(folder.path()));
    assert!(error.contains("text is learned"), "{error}");
}
