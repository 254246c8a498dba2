//! Runs that end with their best evaluation, and early.

use serde_json::json;

use super::{
    short_run::{adapter, metrics, place, train},
    *,
};

const BEST: [&str; 2] = ["--set", "train.load_best_model_at_end=true"];

fn done(output: &Output) -> Value {
    lines(output).pop().unwrap()
}

/// Rows with a text and its class. The first `wrong` of them have the other one.
fn moods(folder: &Path, name: &str, wrong: usize) -> String {
    let words = ["lovely", "dirty", "fine", "awful", "good", "bad"];
    let row = |i: usize| {
        let label = ["good", "bad"][(i + usize::from(i < wrong)) % 2];
        json!({"text": format!("A {} pub, number {i}.", words[i % 6]), "label": label}).to_string()
    };
    let rows: Vec<String> = (0..18).map(row).collect();
    let path = folder.join(name);
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

#[test]
fn the_scores_after_are_those_of_the_best_evaluation() {
    let folder = tempdir().unwrap();
    let (data, valid) = (
        moods(folder.path(), "train.jsonl", 9),
        moods(folder.path(), "valid.jsonl", 0),
    );
    let output = folder.path().join("run");
    let mut command = burn_peft(&[
        "train",
        "--json",
        "--method",
        "p-tuning-v2",
        "--max-steps",
        "12",
    ]);
    command.args([
        "--data",
        &data,
        "--valid",
        &valid,
        "--output",
        text(&output),
    ]);
    for set in [
        "eval_steps=2",
        "metric_for_best_model=accuracy",
        "save_total_limit=1",
    ] {
        command.args(["--set", &format!("train.{set}")]);
    }
    let run = succeed(command.args(BEST));
    let done = done(&run);
    let found = metrics(&output);
    let accuracies: Vec<_> = found
        .iter()
        .filter_map(|record| Some((record["step"].as_u64()?, record["eval_accuracy"].as_f64()?)))
        // Step 0 is the base.
        .filter(|(step, _)| *step > 0)
        .collect();
    assert_eq!(accuracies.len(), 6, "{found:?}");
    // The first of the highest ones.
    let mut best = accuracies[0];
    for accuracy in &accuracies {
        if accuracy.1 > best.1 {
            best = *accuracy;
        }
    }
    assert_eq!(done["best_global_step"], best.0, "{done}");
    assert_eq!(done["adapter_step"], best.0, "{done}");
    assert_eq!(done["metric_for_best_model"], "eval_accuracy");
    assert_eq!(done["best_metric"], best.1);
    assert_eq!(done["after"]["accuracy"], best.1, "{done}");
    let adapter = text(&output);
    let mut command = burn_peft(&["evaluate", "--json", "--adapter", adapter, "--data", &valid]);
    let scores = lines(&succeed(&mut command)).remove(0);
    assert_eq!(scores["accuracy"], best.1);
    let config = fs::read_to_string(output.join("run.toml")).unwrap();
    for line in [
        "metric_for_best_model = \"accuracy\"",
        "greater_is_better = true",
        "save_steps = 2",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
}

#[test]
fn a_run_that_was_killed_ends_with_the_same_best_adapter() {
    let (folder, data, whole) = place(20);
    // As if a falling loss were bad news.
    let worse = ["--max-steps", "60", "--set", "train.greater_is_better=true"];
    let more = [
        &worse[..],
        &BEST,
        &["--json", "--set", "train.early_stopping_patience=4"],
    ]
    .concat();
    let expected = done(&succeed(&mut train(&data, &whole, &more)));
    let end = expected["steps"].as_u64().unwrap();
    assert_eq!(expected["stopped_early"], true, "{expected}");
    assert_eq!(
        expected["adapter_step"],
        end - 20,
        "four evaluations before the end"
    );
    for steps in [3, 9, end - 7] {
        let output = folder.path().join(format!("killed-{steps}"));
        let mut run = train(&data, &output, &more);
        let mut run = run
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let reader = std::io::BufReader::new(run.stdout.take().unwrap());
        for line in std::io::BufRead::lines(reader) {
            let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if record["step"].as_u64() >= Some(steps) {
                run.kill().unwrap();
                break;
            }
        }
        run.wait().unwrap();
        let checkpoints = fs::read_dir(output.join("checkpoints"))
            .into_iter()
            .flatten();
        let mut names = checkpoints.map(|entry| entry.unwrap().file_name());
        let resume = match names.any(|name| name.to_string_lossy().starts_with("step-")) {
            true => &["--resume"][..],
            false => &[],
        };
        let found = done(&succeed(&mut train(
            &data,
            &output,
            &[&more[..], resume].concat(),
        )));
        for key in [
            "steps",
            "adapter_step",
            "best_global_step",
            "best_metric",
            "stopped_early",
        ] {
            assert_eq!(found[key], expected[key], "{key}, killed after {steps}");
        }
        assert!(adapter(&output) == adapter(&whole), "killed after {steps}");
        assert_eq!(metrics(&output), metrics(&whole), "killed after {steps}");
    }
}

#[test]
fn what_needs_evaluations_is_refused_without_validation_rows() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 8), folder.path().join("run"));
    for set in [
        "train.load_best_model_at_end=true",
        "train.early_stopping_patience=2",
        "train.save_strategy=best",
        "train.eval_strategy=epoch",
    ] {
        let args = [
            "train",
            "--no-tui",
            "--data",
            &data,
            "--output",
            text(&output),
            "--set",
            set,
        ];
        let line = refused(&mut burn_peft(&args));
        let key = set.split('=').next().unwrap();
        assert!(line.starts_with(&format!("error: {key}")), "{line}");
        assert!(line.contains("data.valid"), "{line}");
        assert!(!output.exists());
    }
}

#[test]
fn a_metric_that_is_not_reported_is_refused_with_those_that_are() {
    let folder = tempdir().unwrap();
    let (rows, moods) = (
        rows_file(folder.path(), 8),
        moods(folder.path(), "moods.jsonl", 0),
    );
    let output = folder.path().join("run");
    for (data, metric, known) in [
        (
            &rows,
            "accuracy",
            "loss, perplexity; train.predict_with_generate adds",
        ),
        (&moods, "f1", "loss, accuracy, f1_macro, f1_micro, matthews"),
    ] {
        let metric = format!("train.metric_for_best_model={metric}");
        let args = [
            "train", "--no-tui", "--data", data, "--valid", data, "--set", &metric,
        ];
        let line = refused(
            burn_peft(&args)
                .args(BEST)
                .args(["--output", text(&output)]),
        );
        assert!(
            line.contains("train.metric_for_best_model is ") && line.contains(known),
            "{line}"
        );
        assert!(!output.exists());
    }
}

#[test]
fn texts_decide_where_they_are_generated() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 6), folder.path().join("run"));
    let mut command = train(&data, &output, &BEST);
    for set in [
        "max_steps=6",
        "predict_with_generate=true",
        "metric_for_best_model=bleu",
    ] {
        command.args(["--set", &format!("train.{set}")]);
    }
    succeed(&mut command);
    let found = metrics(&output);
    assert!(
        found.iter().any(|record| record["eval_bleu"].is_f64()),
        "{found:?}"
    );
}

#[test]
fn shares_of_steps_are_taken_as_transformers_does() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 16), folder.path().join("run"));
    let mut command = burn_peft(&[
        "train",
        "--json",
        "--max-steps",
        "10",
        "--model",
        &model_path(),
    ]);
    command.args(["--data", &data, "--output", text(&output)]);
    for set in [
        "optim=adamw_torch_fused",
        "warmup_steps=0.2",
        "logging_steps=0.3",
        "save_steps=0.5",
    ] {
        command.args(["--set", &format!("train.{set}")]);
    }
    let run = succeed(&mut command);
    let logged: Vec<_> = lines(&run)
        .iter()
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(logged, [3, 6, 9, 10]);
    assert!(output.join("checkpoints/step-5").is_dir());
    let config = fs::read_to_string(output.join("run.toml")).unwrap();
    assert!(
        config.contains("warmup_steps = 0.2") && config.contains("optim = \"adamw\""),
        "{config}"
    );
}
