//! `doctor` and `train --dry-run`: what they find is what the run does, and they leave nothing behind.

mod findings;

use serde_json::json;

use super::*;

fn write(folder: &Path, name: &str, rows: &[Value]) -> String {
    let path = folder.join(name);
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

/// Rows of different lengths.
fn sentences(folder: &Path, name: &str, numbers: std::ops::Range<usize>) -> String {
    let row = |i: usize| {
        let completion = vec!["sat on the mat"; 1 + i % 5].join(" and ");
        json!({"prompt": format!("the cat {i} "), "completion": completion})
    };
    write(folder, name, &numbers.map(row).collect::<Vec<_>>())
}

/// A run in a folder of its own.
struct Run {
    folder: TempDir,
    model: String,
    args: Vec<String>,
}

impl Run {
    fn new() -> Self {
        Self {
            folder: tempdir().unwrap(),
            model: model_path(),
            args: Vec::new(),
        }
    }

    fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut made = burn_peft(command);
        made.args(["--model", &self.model]).args(&self.args);
        made.current_dir(self.folder.path());
        made
    }

    /// What `doctor --json` says, whether or not the run would start.
    fn check(&self) -> (Value, Output) {
        let before = self.names();
        let output = self.command(&["doctor", "--json"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(self.names(), before, "it left something behind: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let found = lines(&output).remove(0);
        let expected = if found["ok"] == true { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{stderr}");
        (found, output)
    }

    fn passes(&self) -> Value {
        let (found, _) = self.check();
        assert_eq!(found["ok"], true, "{found}");
        found
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                names.push(text(&path).to_owned());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        names.sort();
        names
    }
}

fn warnings(found: &Value) -> String {
    let warnings = found["warnings"].as_array().unwrap();
    let warnings: Vec<&str> = warnings.iter().filter_map(Value::as_str).collect();
    warnings.join("\n")
}

#[test]
fn the_first_loss_and_gradient_are_those_of_the_run() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..12);
    for method in ["prompt-tuning", "p-tuning"] {
        let run = Run::new().with(&["--data", &data, "--method", method, "--seed", "3"]);
        let run = run.with(&[
            "--set",
            "train.logging_steps=1",
            "--set",
            "train.warmup_ratio=0.5",
        ]);
        let found = run.passes();
        let trained = succeed(&mut run.command(&["train", "--json", "--no-tui"]));
        let logged = lines(&trained);
        let first = logged.iter().find(|record| record["step"] == 1);
        let first = first.unwrap();
        for (seen, logged) in [("first_loss", "loss"), ("grad_norm", "grad_norm")] {
            let seen = found["rehearsal"][seen].as_f64().unwrap();
            let logged = first[logged].as_f64().unwrap();
            // The log has a mean over its steps, of which there is one.
            assert!((seen / logged - 1.0).abs() < 1e-12, "{seen} {logged}");
        }
        let done = lines(&trained).pop().unwrap();
        assert_eq!(found["learning"]["total_steps"], done["steps"]);
        assert_eq!(
            found["rehearsal"]["trainable_params"],
            done["trainable_params"]
        );
        assert_eq!(found["output_dir"], done["adapter"]);
    }
}

#[test]
fn without_arguments_the_built_in_run_is_checked() {
    let folder = tempdir().unwrap();
    let mut command = burn_peft(&["doctor", "--rows", "1"]);
    let output = succeed(command.current_dir(folder.path()));
    let report = String::from_utf8(output.stdout).unwrap();
    for named in [
        "built-in train.jsonl",
        "built-in valid.jsonl",
        "built-in test.jsonl",
        "20 virtual tokens",
        "prompt-tuning",
        "runs/prompt-tuning",
        "⟦",
        "position",
        "median",
        "tokens/s",
        "the run can start",
    ] {
        assert!(report.contains(named), "{named}: {report}");
    }
    assert!(!report.contains('\u{1b}'), "no colours in a file");
    let narrow = |line: &&str| line.chars().count() > 80;
    assert_eq!(report.lines().find(narrow), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_dry_run_says_what_doctor_says() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..9);
    let run = Run::new().with(&["--data", &data, "--valid", &data]);
    let doctor = run.passes();
    let output = succeed(&mut run.command(&["train", "--dry-run", "--json"]));
    let dry = lines(&output).remove(0);
    for key in [
        "model",
        "tokenizer",
        "learning",
        "files",
        "preview",
        "warnings",
    ] {
        assert_eq!(doctor[key], dry[key], "{key}");
    }
    assert_eq!(run.names().len(), 0);
}

#[test]
fn the_preview_has_every_token_with_position_id_and_label() {
    let run = Run::new();
    let rows = [json!({"prompt": "the cat ", "completion": "sat"})];
    let data = write(run.folder.path(), "rows.jsonl", &rows);
    let run = Run::new().with(&["--data", &data, "--set", "method.num_virtual_tokens=3"]);
    let row = run.passes()["preview"][0].clone();
    let tokens = row["tokens"].as_array().unwrap();
    for (position, token) in tokens.iter().enumerate() {
        assert_eq!(token["position"], position);
        assert_eq!(token["id"].is_null(), position < 3, "{token}");
        let learned = token["label"] == token["id"] && position >= 3;
        assert_eq!(token["learned"], learned, "{token}");
    }
    let last = tokens.last().unwrap();
    assert_eq!(
        (&last["text"], &last["learned"]),
        (&json!("<|im_end|>"), &json!(true))
    );
    assert_eq!(
        row["stretches"],
        json!([
            {"virtual_tokens": 3},
            {"text": "the cat ", "learned": false},
            {"text": "sat<|im_end|>", "learned": true},
        ])
    );
}

#[test]
fn a_template_shows_where_virtual_tokens_stand() {
    let run = Run::new();
    let rows = [json!({"prompt": "the cat", "completion": "sat"})];
    let data = write(run.folder.path(), "rows.jsonl", &rows);
    let template = "data.template={prompt:2}{prompt}{prompt:1} {completion}";
    let run = Run::new().with(&["--data", &data, "--set", template]);
    let stretches = run.passes()["preview"][0]["stretches"].clone();
    assert_eq!(stretches[0], json!({"virtual_tokens": 2}));
    assert_eq!(stretches[1], json!({"text": "the cat", "learned": false}));
    assert_eq!(stretches[2], json!({"virtual_tokens": 1}));
}

#[test]
fn each_task_shows_what_it_learns() {
    let folder = tempdir().unwrap();
    let mood =
        |i: usize| json!({"text": format!("pub {i}"), "label": if i < 9 { "good" } else { "bad" }});
    let moods: Vec<Value> = (0..10).map(mood).collect();
    let data = write(folder.path(), "moods.jsonl", &moods);
    let found = Run::new().with(&["--data", &data]).passes();
    assert_eq!(found["preview"][0]["label"], "good");
    assert_eq!(
        found["files"][0]["labels"],
        json!([{"label": "bad", "count": 1}, {"label": "good", "count": 9}])
    );
    assert!(
        warnings(&found).contains("90 % of the rows are \"good\""),
        "{found}"
    );
    let guess = found["rehearsal"]["loss_of_a_guess"].as_f64().unwrap();
    assert!((guess - 2_f64.ln()).abs() < 1e-9);

    let tagged = json!({"tokens": ["the", "cat", "sat"], "tags": ["O", "B-PET", "O"]});
    let data = write(folder.path(), "tags.jsonl", &[tagged]);
    let found = Run::new().with(&["--data", &data]).passes();
    let tags = json!([["the", "O"], ["cat", "B-PET"], ["sat", "O"]]);
    assert_eq!(found["preview"][0]["tags"], tags);

    let answer = json!({"text": ["the mat"], "answer_start": [11]});
    let question =
        json!({"context": "The cat on the mat.", "question": "Where?", "answers": answer});
    let data = write(folder.path(), "questions.jsonl", &[question]);
    let found = Run::new().with(&["--data", &data]).passes();
    assert_eq!(found["preview"][0]["label"], "the mat");
    let stretches = found["preview"][0]["stretches"].as_array().unwrap();
    let learned = stretches.iter().find(|stretch| stretch["learned"] == true);
    assert_eq!(learned.unwrap()["text"].as_str().unwrap().trim(), "the mat");

    let messages = json!({"messages": [
        {"role": "user", "content": "the cat?"},
        {"role": "assistant", "content": "sat"},
    ]});
    let data = write(folder.path(), "messages.jsonl", &[messages]);
    let found = Run::new().with(&["--data", &data]).passes();
    assert_eq!(found["tokenizer"]["needs_chat_template"], true);
    let stretches = found["preview"][0]["stretches"].as_array().unwrap();
    let learned = stretches.iter().find(|stretch| stretch["learned"] == true);
    assert!(
        learned.unwrap()["text"]
            .as_str()
            .unwrap()
            .starts_with("sat<|im_end|>")
    );
}

#[test]
fn without_steps_no_weights_are_read() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..8);
    let found = run.with(&["--data", &data, "--no-steps"]).passes();
    assert!(found["rehearsal"].is_null());
    assert_eq!(found["files"][0]["rows"], 8);
    assert!(found["memory"]["keeping"].as_u64() > found["memory"]["weights"].as_u64());
}
