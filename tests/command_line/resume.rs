//! What a run promises when it is stopped, damaged, or started again as something else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::tempdir;

use super::{burn_peft, model_path, refused, rows_file, succeed, text};

/// A short run whose saving, logging and evaluating do not fall together.
fn arguments(data: &str, output: &Path, more: &[&str]) -> Vec<String> {
    let fixed = [
        "train",
        "--no-tui",
        "--model",
        &model_path(),
        "--data",
        data,
        "--valid",
        data,
        "--output",
        text(output),
    ]
    .map(str::to_owned);
    let set = [
        "train.per_device_train_batch_size=2",
        "train.save_steps=4",
        "train.logging_steps=3",
        "train.eval_steps=5",
    ];
    let set = set.map(|set| ["--set".to_owned(), set.to_owned()]);
    let more = more.iter().map(|argument| (*argument).to_owned());
    fixed
        .into_iter()
        .chain(set.into_iter().flatten())
        .chain(more)
        .collect()
}

fn train(data: &str, output: &Path, more: &[&str]) -> std::process::Command {
    let arguments = arguments(data, output, more);
    burn_peft(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The records of a run, without what a clock decides.
fn metrics(output: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let keys = record.as_object_mut().unwrap();
        keys.remove("tokens_per_second");
        keys.remove("eval_seconds");
        record
    };
    lines.lines().map(record).collect()
}

fn adapter(output: &Path) -> Vec<u8> {
    fs::read(output.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn another_run_is_refused_by_what_differs_and_nothing_is_written() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "4"]));
    let before = contents(&output);
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let rows = fs::read_to_string(rows_file(&other, 20)).unwrap();
    let rows = rows.replace("mat 3", "mat 4");
    let other = other.join("others.jsonl");
    fs::write(&other, rows).unwrap();
    let deeper = model_path().replace("tied_gqa", "untied_mha");
    assert!(Path::new(&deeper).is_dir());
    for (change, named) in [
        (["--seed", "7"], "train.seed was 42 and is 7"),
        (["--data", text(&other)], "others.jsonl"),
        (["--model", &deeper], "the base was"),
        (
            ["--dtype", "bf16"],
            "model.dtype was \"f32\" and is \"bf16\"",
        ),
        (["--method", "p-tuning"], "method.type"),
        (
            ["--set", "method.num_virtual_tokens=3"],
            "method.num_virtual_tokens was 20 and is 3",
        ),
        (
            ["--set", "data.template={prompt:2} {input}{completion}"],
            "data.template was absent",
        ),
        (
            ["--set", "train.gradient_accumulation_steps=2"],
            "train.gradient_accumulation_steps",
        ),
    ] {
        // The later of two flags is an error, so the run is described anew.
        let mut arguments = arguments(&data, &output, &["--resume", "--max-steps", "8"]);
        match arguments
            .iter()
            .position(|argument| argument == change[0] && change[0] != "--set")
        {
            Some(at) => arguments[at + 1] = change[1].to_owned(),
            None => arguments.extend(change.map(str::to_owned)),
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let line = refused(&mut burn_peft(&arguments));
        assert!(line.contains(named), "{change:?}: {line}");
        assert!(line.contains("step-4"), "{change:?}: {line}");
        assert!(
            contents(&output) == before,
            "{change:?} wrote to the folder"
        );
    }
}

#[test]
fn what_may_change_is_said() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "4"]));
    let more = [
        "--resume",
        "--max-steps",
        "6",
        "--set",
        "train.learning_rate=1e-4",
    ];
    let resumed = succeed(&mut train(&data, &output, &more));
    let said = String::from_utf8(resumed.stderr).unwrap();
    for change in [
        "resuming at step 4",
        "train.max_steps was 4 and is 6",
        "train.learning_rate was 0.001 and is 0.0001",
    ] {
        assert!(said.contains(change), "{said}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_taken() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    let more = ["--max-steps", "12"];
    succeed(&mut train(&data, &output, &more));
    let (whole, records) = (adapter(&output), metrics(&output));
    let file = output.join("checkpoints/step-12/optimizer.mpk");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).unwrap();
    let resumed = succeed(&mut train(
        &data,
        &output,
        &[&more[..], &["--resume"]].concat(),
    ));
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("step-12/optimizer.mpk"), "{said}");
    assert!(said.contains("resuming at step 8"), "{said}");
    assert_eq!((adapter(&output), metrics(&output)), (whole, records));

    for step in [4, 8, 12] {
        fs::remove_file(output.join(format!("checkpoints/step-{step}/model.mpk"))).unwrap();
    }
    let line = refused(&mut train(
        &data,
        &output,
        &[&more[..], &["--resume"]].concat(),
    ));
    assert!(line.contains("step-12/model.mpk"), "{line}");
}

#[test]
fn a_checkpoint_under_another_steps_name_is_refused() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "4"]));
    let checkpoints = output.join("checkpoints");
    fs::rename(checkpoints.join("step-4"), checkpoints.join("step-6")).unwrap();
    let line = refused(&mut train(
        &data,
        &output,
        &["--max-steps", "8", "--resume"],
    ));
    assert!(line.contains("step 4") && line.contains("step 6"), "{line}");
}

#[test]
fn run_toml_has_every_value_and_is_the_same_run() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 20);
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let args = [
        "train",
        "--no-tui",
        "--data",
        &data,
        "--valid",
        &data,
        "--max-steps",
        "3",
    ];
    let model = [
        "--model",
        &model_path(),
        "--method",
        "prefix-tuning",
        "--output",
        text(&one),
    ];
    succeed(&mut burn_peft(&[&args[..], &model].concat()));
    let config = fs::read_to_string(one.join("run.toml")).unwrap();
    for value in [
        "dtype = \"f32\"",
        "num_virtual_tokens = 20",
        "encoder_hidden_size = ",
        "eval_steps = 3",
        "learning_rate = 0.001",
        "gradient_checkpointing = false",
    ] {
        assert!(config.contains(value), "{value}: {config}");
    }
    let config = one.join("run.toml");
    let again = [
        "train",
        "--no-tui",
        "--config",
        text(&config),
        "--output",
        text(&two),
    ];
    succeed(&mut burn_peft(&again));
    assert!(adapter(&one) == adapter(&two));
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until `done` or fails.
#[cfg(unix)]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
#[test]
fn signals_save_and_stop_and_the_resumed_run_is_the_uninterrupted_one() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 20);
    let more = ["--max-steps", "300"];
    let whole = folder.path().join("whole");
    succeed(&mut train(&data, &whole, &more));
    for name in ["INT", "TERM", "HUP"] {
        let output = folder.path().join(name);
        let mut run = train(&data, &output, &more);
        let run = run
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("a checkpoint", || {
            output.join("checkpoints/step-4").is_dir()
        });
        signal(&run, name);
        let stopped = run.wait_with_output().unwrap();
        assert_eq!(stopped.status.code(), Some(0), "{name}");
        let said = String::from_utf8(stopped.stdout).unwrap();
        let command = format!(
            "burn-peft train --config {}/run.toml --resume",
            output.display()
        );
        assert!(said.contains(&command), "{name}: {said}");
        assert!(
            adapter(&output) != adapter(&whole),
            "{name} came too late to test anything"
        );
        let config = output.join("run.toml");
        succeed(&mut burn_peft(&[
            "train",
            "--no-tui",
            "--config",
            text(&config),
            "--resume",
        ]));
        assert!(adapter(&output) == adapter(&whole), "{name}");
        assert_eq!(metrics(&output), metrics(&whole), "{name}");
        assert!(!output.join("run.lock").exists());
    }
}

#[cfg(unix)]
#[test]
fn two_runs_do_not_share_a_folder_and_the_second_signal_ends_one() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    let mut first = train(&data, &output, &["--max-steps", "100000000"]);
    let mut first = first
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a checkpoint", || {
        output.join("checkpoints/step-4").is_dir()
    });
    for more in [&["--resume"][..], &[]] {
        let line = refused(&mut train(&data, &output, more));
        assert!(line.contains(&format!("process {}", first.id())), "{line}");
    }
    // Both wait until it goes on, so the second finds it still saving.
    signal(&first, "STOP");
    signal(&first, "TERM");
    signal(&first, "HUP");
    signal(&first, "CONT");
    assert_eq!(first.wait().unwrap().code(), Some(130));
}

#[test]
fn a_refused_run_leaves_no_folder() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("runs/a"));
    let template = "data.template={prompt:2} {nothing}{completion}";
    refused(&mut train(&data, &output, &["--set", template]));
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_damaged_later_checkpoint_takes_no_place_of_a_whole_one() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "8"]));
    let later = output.join("checkpoints/step-8/model.mpk");
    fs::write(&later, "damaged").unwrap();
    let more = [
        "--resume",
        "--max-steps",
        "6",
        "--set",
        "train.save_total_limit=1",
    ];
    succeed(&mut train(&data, &output, &more));
    let resumed = succeed(&mut train(&data, &output, &more));
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("resuming at step 6"), "{said}");
}

#[test]
fn a_finished_run_resumes_to_itself_in_every_file() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    let more = ["--max-steps", "6", "--set", "train.save_steps=3"];
    succeed(&mut train(&data, &output, &more));
    let before = contents(&output);
    for _ in 0..2 {
        let config = output.join("run.toml");
        let args = ["train", "--no-tui", "--config", text(&config), "--resume"];
        succeed(&mut burn_peft(&args));
    }
    let after = contents(&output);
    let names: Vec<_> = after
        .keys()
        .filter(|path| after[*path] != before[*path])
        .collect();
    assert!(names.is_empty() && after.len() == before.len(), "{names:?}");
}

#[test]
fn fewer_steps_than_are_done_are_refused() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "6"]));
    let line = refused(&mut train(
        &data,
        &output,
        &["--resume", "--max-steps", "5"],
    ));
    assert!(
        line.contains("6 already") && line.contains("is 5"),
        "{line}"
    );
}

#[cfg(unix)]
#[test]
fn a_closed_standard_output_stops_and_saves() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    let mut run = train(&data, &output, &["--json", "--max-steps", "100000000"]);
    let mut run = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = std::io::BufReader::new(run.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut String::new()).unwrap();
    drop(reader);
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(output.join("adapter_model.safetensors").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("run"));
    let arguments = arguments(&data, &output, &["--max-steps", "100000000"]);
    let mut run = std::process::Command::new("sh");
    run.args([
        "-c",
        "trap '' HUP; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_burn-peft"),
    ]);
    let mut run = run
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("a checkpoint", || {
        output.join("checkpoints/step-4").is_dir()
    });
    signal(&run, "HUP");
    wait_until("a later one", || {
        output.join("checkpoints/step-40").is_dir()
    });
    signal(&run, "TERM");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn another_chat_template_is_named() {
    let folder = tempdir().unwrap();
    let (data, output) = (folder.path().join("chat.jsonl"), folder.path().join("run"));
    let row = r#"{"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]}"#;
    fs::write(&data, format!("{row}\n").repeat(4)).unwrap();
    let model = super::copy_model("tied_gqa");
    let args = [
        "train",
        "--no-tui",
        "--model",
        text(model.path()),
        "--data",
        text(&data),
    ];
    let args = [&args[..], &["--output", text(&output), "--max-steps", "2"]].concat();
    succeed(&mut burn_peft(&args));
    let template = model.path().join("chat_template.jinja");
    let changed = fs::read_to_string(&template)
        .unwrap()
        .replace("user", "you");
    fs::write(&template, format!("<s>{changed}")).unwrap();
    let line = refused(&mut burn_peft(&[&args[..], &["--resume"]].concat()));
    assert!(line.contains("the chat template was"), "{line}");
}

#[test]
fn a_run_does_not_write_over_the_adapter_that_it_starts_from() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 8), folder.path().join("run"));
    succeed(&mut train(&data, &output, &["--max-steps", "1"]));
    fs::remove_dir_all(output.join("checkpoints")).unwrap();
    let before = contents(&output);
    let start = format!("method.init_from={}", output.display());
    let line = refused(&mut train(&data, &output, &["--set", &start]));
    assert!(
        line.contains("method.init_from") && line.contains("the output folder"),
        "{line}"
    );
    assert!(contents(&output) == before);
}
