//! What a run has to look at, while it runs and afterwards.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use super::{
    burn_peft, lines, model_path, read_json, refused, rows_file,
    short_run::{metrics, place, train},
    succeed, text,
};

#[test]
fn the_base_is_scored_before_the_first_step() {
    let (_folder, data, output) = place(20);
    let run = succeed(&mut train(&data, &output, &["--max-steps", "6", "--json"]));
    let lines = lines(&run);
    let (first, done) = (&lines[0], lines.last().unwrap());
    assert_eq!(first["step"], 0, "{lines:?}");
    assert_eq!(first["eval_loss"], done["before"]["loss"]);
    // The same in the file, and the steps behind it.
    let records = metrics(&output);
    assert_eq!(records[0]["eval_loss"], first["eval_loss"]);
    let steps: Vec<u64> = records.iter().filter_map(|r| r["step"].as_u64()).collect();
    assert_eq!(steps, [0, 3, 5, 6, 6]);
    let plain = train(&data, &output.join("plain"), &["--max-steps", "2"])
        .output()
        .unwrap();
    let said = String::from_utf8(plain.stderr).unwrap();
    assert!(
        said.contains("(the base)") && said.contains("  eta "),
        "{said}"
    );
}

#[test]
fn with_rows_of_both_kinds_the_base_is_measured_on_the_validation_rows() {
    let (folder, data, output) = place(20);
    let other = folder.path().join("test.jsonl");
    fs::write(&other, r#"{"prompt": "the dog ", "completion": "ran"}"#).unwrap();
    let test = format!("data.test={}", text(&other));
    let more = ["--max-steps", "2", "--json", "--set", &test];
    let lines = lines(&succeed(&mut train(&data, &output, &more)));
    let tokens = |record: &Value| record["eval_label_tokens"].as_u64().unwrap();
    let evaluations: Vec<&Value> = lines.iter().filter(|l| l["eval_loss"].is_f64()).collect();
    assert_eq!(evaluations.len(), 2, "{lines:?}");
    assert_eq!(tokens(evaluations[0]), tokens(evaluations[1]));
    assert_ne!(
        evaluations[0]["eval_loss"],
        lines.last().unwrap()["before"]["loss"]
    );
}

#[test]
fn a_resumed_run_knows_the_scores_before_training() {
    let (folder, data, output) = place(20);
    let first = succeed(&mut train(&data, &output, &["--max-steps", "4", "--json"]));
    let more = ["--max-steps", "8", "--json", "--resume"];
    let second = succeed(&mut train(&data, &output, &more));
    let before = |output| lines(output).last().unwrap()["before"].clone();
    assert!(before(&first)["loss"].is_f64());
    assert_eq!(before(&first), before(&second));
    assert_eq!(metrics(&output)[0]["step"], 0);

    // Of other rows, the scores say nothing.
    let other = folder.path().join("test.jsonl");
    fs::write(&other, r#"{"prompt": "the dog ", "completion": "ran"}"#).unwrap();
    let test = format!("data.test={}", text(&other));
    let more = ["--max-steps", "9", "--json", "--resume", "--set", &test];
    let third = succeed(&mut train(&data, &output, &more));
    assert_eq!(before(&third), Value::Null);
}

#[test]
fn event_files_are_written_where_they_are_asked_for() {
    let (_folder, data, output) = place(20);
    let asked = ["--set", "train.report_to=tensorboard"];
    let run = |more: &[&str]| succeed(&mut train(&data, &output, &[more, &asked[..]].concat()));
    run(&["--max-steps", "4"]);
    let files = || fs::read_dir(output.join("runs")).unwrap().count();
    assert_eq!(files(), 1);
    run(&["--max-steps", "6", "--resume"]);
    assert_eq!(files(), 2);
    for entry in fs::read_dir(output.join("runs")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let bytes = fs::read(entry.path()).unwrap();
        let has = |tag: &str| bytes.windows(tag.len()).any(|part| part == tag.as_bytes());
        for tag in ["train/loss", "train/grad_norm", "eval/loss"] {
            assert!(has(tag), "{name} has no {tag}");
        }
    }
    let other = output.with_file_name("other");
    succeed(&mut train(&data, &other, &["--max-steps", "1"]));
    assert!(!other.join("runs").exists());
    let wrong = ["--max-steps", "1", "--set", "train.report_to=wandb"];
    let line = refused(&mut train(&data, &output.with_file_name("third"), &wrong));
    assert!(
        line.contains("train.report_to") && line.contains("tensorboard"),
        "{line}"
    );
}

#[test]
fn the_report_has_the_run_and_hostile_rows_stay_text() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let valid = folder.path().join("valid.jsonl");
    let hostile = "</dd><script>alert(1)</script> the cat";
    let row = format!("{{\"prompt\": {hostile:?}, \"completion\": \"sat & <b>\"}}");
    fs::write(&valid, row).unwrap();
    let output = folder.path().join("out");
    succeed(&mut burn_peft(&[
        "train",
        "--json",
        "--model",
        &model_path(),
        "--data",
        &data,
        "--valid",
        text(&valid),
        "--max-steps",
        "4",
        "--set",
        "train.logging_steps=2",
        "--output",
        text(&output),
    ]));
    let page = fs::read_to_string(output.join("report.html")).unwrap();
    for part in [
        "prompt-tuning on ",
        "num_virtual_tokens = 20",
        "&lt;script&gt;alert(1)&lt;",
        "sat &amp; &lt;b&gt;",
        "<svg",
        "Before and after",
        "finished: 4 of 4 steps",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    let losses = metrics(&output);
    let losses: Vec<f64> = losses.iter().filter_map(|r| r["loss"].as_f64()).collect();
    assert_eq!(losses.len(), 2);
    for loss in losses {
        assert!(page.contains(&format!("{loss:.4}")), "{loss}");
    }
}

#[test]
fn scores_are_kept_before_and_after() {
    let (_folder, data, output) = place(8);
    succeed(&mut train(&data, &output, &["--max-steps", "1"]));
    let scores: Value = read_json(&output.join("scores.json"));
    assert!(scores["before"]["loss"].is_f64() && scores["after"]["loss"].is_f64());
}

#[test]
fn each_row_has_its_generated_text() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 5);
    let evaluate = |more: &[&str]| {
        let args = [
            "evaluate",
            "--json",
            "--per-example",
            "--model",
            &model_path(),
            "--data",
            &data,
        ];
        let output = succeed(&mut burn_peft(&[&args[..], more].concat()));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["per_example"].clone()
    };
    let rows = evaluate(&[]);
    for (index, row) in rows.as_array().unwrap().iter().enumerate() {
        assert!(row["nll"].is_f64() && row["label_tokens"].is_u64());
        assert_eq!(row["prompt"], format!("the cat {index} "));
        assert_eq!(row["reference"], format!("sat on mat {index}"));
        assert!(row["text"].is_string(), "{row}");
    }
    let without = evaluate(&["--no-generate"]);
    assert_eq!(without[0].get("text"), None);
    assert_eq!(without[0]["nll"], rows[0]["nll"]);
}
