//! Several files, rows held out of them, what is learned of a row, and what becomes of long ones.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::tempdir;

use super::{
    burn_peft, lines, model_path, refused, rows_file,
    short_run::{adapter, contents, metrics},
    succeed, text,
};

const CHAT: &str = r#"{"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}, {"role": "user", "content": "the dog"}, {"role": "assistant", "content": "ran"}]}"#;

/// A file of eight conversations.
fn chats(folder: &Path) -> String {
    let path = folder.join("chat.jsonl");
    fs::write(&path, [CHAT; 8].join("\n")).unwrap();
    text(&path).to_owned()
}

fn train(output: &Path, more: &[&str]) -> Command {
    let mut command = burn_peft(&["train", "--no-tui", "--model", &model_path()]);
    command.args(["--output", text(output)]);
    command.args(["--set", "train.per_device_train_batch_size=2"]);
    command.args(more);
    command
}

fn said(command: &mut Command) -> String {
    String::from_utf8(succeed(command).stderr).unwrap()
}

/// What a run with `--json` says at its end.
fn done(output: &Path, more: &[&str]) -> Value {
    let output = succeed(train(output, more).arg("--json"));
    lines(&output).pop().unwrap()
}

#[test]
fn files_of_different_formats_are_mixed_by_their_weights() {
    let folder = tempdir().unwrap();
    let (rows, chats) = (rows_file(folder.path(), 10), chats(folder.path()));
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let config = folder.path().join("mixed.toml");
    let files = format!("{rows:?}, {{ path = {chats:?}, weight = 0.5 }}");
    fs::write(&config, format!("[data]\ntrain = [{files}]")).unwrap();
    let config = text(&config);
    let once = ["--set", "train.num_train_epochs=1", "--config", config];
    let said_of_one = said(&mut train(&one, &once));
    for line in [
        format!("{rows}: 10 rows, longest row:"),
        format!("{chats}: 8 rows with weight 0.5, longest row:"),
        "an epoch has 14 rows".to_owned(),
    ] {
        assert!(said_of_one.contains(&line), "{line}: {said_of_one}");
    }
    assert_eq!(metrics(&one).pop().unwrap()["step"], 7);
    // Its own configuration is the same run.
    let again = one.join("run.toml");
    succeed(&mut burn_peft(&[
        "train",
        "--no-tui",
        "--config",
        text(&again),
        "--output",
        text(&two),
    ]));
    assert!(adapter(&one) == adapter(&two));
}

#[test]
fn data_may_be_repeated_and_the_files_are_for_one_task() {
    let folder = tempdir().unwrap();
    let (rows, chats) = (rows_file(folder.path(), 10), chats(folder.path()));
    let output = folder.path().join("run");
    let both = ["--data", &rows, "--data", &chats];
    let once = ["--set", "train.num_train_epochs=1"];
    let found = done(&output, &[&both[..], &once].concat());
    assert_eq!(found["steps"], 9);
    let config = fs::read_to_string(output.join("run.toml")).unwrap();
    assert!(
        config.contains(&format!("train = [{rows:?}, {chats:?}]")),
        "{config}"
    );

    let labelled = folder.path().join("labelled.jsonl");
    fs::write(&labelled, r#"{"text": "a", "label": "x"}"#).unwrap();
    let other = ["--data", &rows, "--data", text(&labelled)];
    let line = refused(&mut train(&folder.path().join("other"), &other));
    assert!(
        line.contains("labelled.jsonl:1: ") && line.contains("seq-cls"),
        "{line}"
    );
}

#[test]
fn a_mixed_run_with_held_out_rows_resumes_exactly_and_as_itself_alone() {
    let folder = tempdir().unwrap();
    let (rows, chats) = (rows_file(folder.path(), 10), chats(folder.path()));
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let config = folder.path().join("mixed.toml");
    let write = |weight: f64, split: f64| {
        let files = format!("{rows:?}, {{ path = {chats:?}, weight = {weight:?} }}");
        let data = format!("[data]\ntrain = [{files}]\nvalidation_split = {split:?}");
        fs::write(&config, data).unwrap();
    };
    write(0.5, 0.2);
    let config = text(&config);
    let run = |output: &Path, steps: &str, more: &[&str]| {
        let fixed = [
            "--config",
            config,
            "--set",
            "train.eval_steps=4",
            // A rate that falls depends on the number of steps.
            "--set",
            "train.lr_scheduler_type=constant",
            "--max-steps",
            steps,
        ];
        train(output, &[&fixed[..], more].concat())
    };
    // Four steps stand in the middle of an epoch, and eight in another.
    succeed(&mut run(&whole, "12", &[]));
    succeed(&mut run(&parts, "4", &[]));
    succeed(&mut run(&parts, "12", &["--resume"]));
    assert!(adapter(&whole) == adapter(&parts));
    let last = |output: &Path| metrics(output).pop().unwrap();
    assert_eq!(last(&whole), last(&parts));

    let before = contents(&parts);
    for (weight, split, named) in [
        (0.75, 0.2, "the training data was"),
        (0.5, 0.3, "data.validation_split was 0.2 and is 0.3"),
    ] {
        write(weight, split);
        let line = refused(&mut run(&parts, "16", &["--resume"]));
        assert!(line.contains(named), "{line}");
        assert!(
            contents(&parts) == before,
            "{named}: it wrote to the folder"
        );
    }
    // The same rows in another place are the same run; others are not.
    write(0.5, 0.2);
    fs::write(&chats, [CHAT.replace("ran", "sat").as_str(); 8].join("\n")).unwrap();
    let line = refused(&mut run(&parts, "16", &["--resume"]));
    assert!(line.contains("the training data was"), "{line}");
}

#[test]
fn held_out_rows_are_evaluated_and_not_trained_on() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 20);
    let output = folder.path().join("run");
    let split = ["--data", &data, "--set", "data.validation_split=0.1"];
    let once = ["--set", "train.num_train_epochs=1", "--json"];
    let found = succeed(&mut train(&output, &[&split[..], &once].concat()));
    let stderr = String::from_utf8_lossy(&found.stderr).into_owned();
    for line in [
        format!("{data}: 18 rows, longest row:"),
        format!("{data} (held out): 2 rows, longest row:"),
    ] {
        assert!(stderr.contains(&line), "{line}: {stderr}");
    }
    let found = lines(&found).pop().unwrap();
    assert_eq!(
        (&found["steps"], &found["after"]["examples"]),
        (&9.into(), &2.into())
    );

    let beside = [&split[..], &["--valid", &data]].concat();
    let line = refused(&mut train(&folder.path().join("other"), &beside));
    assert!(
        line.contains("data.validation_split") && line.contains("data.valid"),
        "{line}"
    );
    let all = ["--data", &data, "--set", "data.validation_split=20"];
    let line = refused(&mut train(&folder.path().join("other"), &all));
    assert!(
        line.contains("data.validation_split: ") && line.contains("20 rows"),
        "{line}"
    );
}

#[test]
fn rows_that_are_too_long_are_cut_left_out_or_refused() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("rows.jsonl");
    let short = r#"{"prompt": "the cat ", "completion": "sat"}"#;
    let long = format!(
        r#"{{"prompt": "the cat ", "completion": "{}"}}"#,
        "sat on mat ".repeat(40)
    );
    fs::write(&data, format!("{short}\n{short}\n{long}")).unwrap();
    let (data, output) = (text(&data), folder.path().join("run"));
    let fixed = [
        "--data",
        data,
        "--max-steps",
        "1",
        "--set",
        "data.max_length=40",
    ];
    let with = |strategy: &str| {
        let set = format!("data.excess_length_strategy={strategy}");
        let mut command = train(&output, &fixed);
        command.args(["--set", &set]);
        command
    };
    let cut = said(&mut with("truncate"));
    let expected =
        format!("{data}: 3 rows, longest row: 40 tokens; 1 cut to data.max_length, 0 dropped");
    assert!(cut.contains(&expected), "{cut}");
    fs::remove_dir_all(&output).unwrap();
    let dropped = said(&mut with("drop"));
    assert!(
        dropped.contains(&format!("{data}: 2 rows, longest row: ")),
        "{dropped}"
    );
    let expected = "; 1 dropped because they are longer than data.max_length";
    assert!(dropped.contains(expected), "{dropped}");
    fs::remove_dir_all(&output).unwrap();
    for strategy in ["fail", "raise"] {
        let line = refused(&mut with(strategy));
        assert!(
            line.contains("rows.jsonl:3: the row has ") && line.contains("max_length is 40"),
            "{line}"
        );
        assert!(!output.exists());
    }
}

#[test]
fn what_is_learned_is_the_assistant_the_last_turn_or_all() {
    let folder = tempdir().unwrap();
    let chats = chats(folder.path());
    let tokens = |supervise: &str| {
        let set = format!("data.supervise={supervise}");
        let output = folder.path().join(supervise);
        let data = [
            "--data",
            &chats,
            "--valid",
            &chats,
            "--max-steps",
            "1",
            "--set",
            &set,
        ];
        let found = done(&output, &data);
        found["before"]["label_tokens"].as_u64().unwrap()
    };
    let found = ["last", "assistant", "all"].map(tokens);
    assert!(found[0] < found[1] && found[1] < found[2], "{found:?}");

    let labelled = folder.path().join("labelled.jsonl");
    let rows = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}";
    fs::write(&labelled, rows).unwrap();
    let other = ["--data", text(&labelled), "--set", "data.supervise=all"];
    let line = refused(&mut train(&folder.path().join("other"), &other));
    assert!(
        line.contains("data.supervise: ") && line.contains("seq-cls"),
        "{line}"
    );
}
