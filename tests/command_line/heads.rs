//! Heads over their lifetime: started from, regularised, searched for a rate, interrupted.

use serde_json::json;

use super::*;

fn moods(folder: &Path, repeat: usize) -> String {
    let rows = [
        ("The Heron is a lovely pub.", "good"),
        ("The Badger is a dirty pub.", "bad"),
    ];
    let rows = rows.map(|(text, label)| json!({"text": text, "label": label}).to_string());
    let path = folder.join("moods.jsonl");
    fs::write(&path, vec![rows.join("\n"); repeat].join("\n")).unwrap();
    text(&path).to_owned()
}

fn train(data: &str, output: &Path, set: &[&str]) -> Command {
    let mut command = burn_peft(&["train", "--no-tui", "--method", "p-tuning-v2"]);
    command.args(["--data", data, "--output", text(output)]);
    set.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command
}

fn logits(adapter: &Path, data: &str) -> Value {
    let mut command = burn_peft(&["evaluate", "--json", "--per-example"]);
    let output = succeed(command.args(["--adapter", text(adapter), "--data", data]));
    lines(&output).remove(0)["per_example"].take()
}

#[test]
fn a_run_that_starts_from_an_adapter_starts_from_its_head() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path(), 1);
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    succeed(&mut train(&data, &first, &["train.max_steps=3"]));
    let from = format!("method.init_from={:?}", text(&first));
    let still = [
        &from[..],
        "train.max_steps=1",
        "train.learning_rate=1e-30",
        "train.head_learning_rate=1e-30",
    ];
    succeed(&mut train(&data, &second, &still));
    // A step of 1e-30 is lost in the rounding of every number but those near zero.
    assert_eq!(logits(&first, &data), logits(&second, &data));
}

#[test]
fn dropout_of_a_head_is_for_training_only_and_follows_the_seed() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path(), 1);
    let run = |name: &str, dropout: &str| {
        let output = folder.path().join(name);
        let set = [
            &format!("task.classifier_dropout={dropout}")[..],
            "train.max_steps=2",
        ];
        succeed(&mut train(&data, &output, &set));
        let tensors = fs::read(output.join("adapter_model.safetensors")).unwrap();
        (output, tensors)
    };
    let (output, half) = run("half", "0.5");
    let (_, again) = run("again", "0.5");
    let (_, none) = run("none", "0.0");
    assert!(half == again && half != none);
    assert_eq!(logits(&output, &data), logits(&output, &data));
}

#[test]
fn find_lr_names_a_rate_and_writes_nothing() {
    let folder = tempdir().unwrap();
    let data = moods(folder.path(), 8);
    let output = folder.path().join("run");
    let mut command = train(&data, &output, &["train.max_steps=30"]);
    let said = succeed(command.args(["--find-lr", "--json"]));
    let curve = lines(&said).remove(0);
    let rates: Vec<f64> = curve["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["learning_rate"].as_f64().unwrap())
        .collect();
    assert!(rates.is_sorted() && rates[0] == 1e-5, "{rates:?}");
    let found = curve["learning_rate"].as_f64().unwrap();
    assert!(found > 1e-5 && found < 1.0, "{found}");
    assert!(!output.exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_prediction_leaves_no_file() {
    use std::process::Stdio;

    let folder = tempdir().unwrap();
    let data = moods(folder.path(), 1);
    let adapter = folder.path().join("run");
    succeed(&mut train(&data, &adapter, &["train.max_steps=1"]));
    // Long enough to be met while it predicts.
    let data = moods(folder.path(), 50_000);
    let output = folder.path().join("out/predictions.jsonl");
    let mut command = burn_peft(&["predict", "--adapter", text(&adapter), "--data", &data]);
    command
        .args(["--output", text(&output)])
        .stderr(Stdio::null());
    let mut run = command.spawn().unwrap();
    let began = std::time::Instant::now();
    while !output.parent().unwrap().is_dir() {
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(began.elapsed().as_secs() < 60, "no prediction began");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // The file is begun before signals are caught.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let pid = run.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(output.parent().unwrap()).unwrap().count(), 0);
}
