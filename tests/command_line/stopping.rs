//! Runs that are stopped from outside, and two of them in one folder.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::tempdir;

use super::{
    burn_peft, refused, rows_file,
    short_run::{adapter, arguments, metrics, place, train},
    succeed, text,
};

pub(super) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until `done` or fails.
pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

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
        signal(run.id(), name);
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

#[test]
fn two_runs_do_not_share_a_folder_and_the_second_signal_ends_one() {
    let (_folder, data, output) = place(20);
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
    signal(first.id(), "STOP");
    signal(first.id(), "TERM");
    signal(first.id(), "HUP");
    signal(first.id(), "CONT");
    assert_eq!(first.wait().unwrap().code(), Some(130));
}

#[test]
fn a_closed_standard_output_stops_and_saves() {
    let (_folder, data, output) = place(20);
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
    let (_folder, data, output) = place(20);
    let arguments = arguments(&data, &output, &["--max-steps", "100000000"]);
    let mut run = Command::new("sh");
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
    signal(run.id(), "HUP");
    wait_until("a later one", || {
        output.join("checkpoints/step-40").is_dir()
    });
    signal(run.id(), "TERM");
    assert_eq!(run.wait().unwrap().code(), Some(0));
}
