//! Where standard output and standard error are closed or full.
#![cfg(target_os = "linux")]

use std::process::Stdio;

use super::*;

fn full() -> Stdio {
    fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn commands(data: &str, output: &Path) -> Vec<Command> {
    let model = model_path();
    let train = [
        "train",
        "--no-tui",
        "--max-steps",
        "1",
        "--model",
        &model,
        "--data",
        data,
    ];
    let mut list = vec![
        burn_peft(&["--help"]),
        burn_peft(&["train", "--help"]),
        burn_peft(&["--version"]),
        burn_peft(&["inspect", &model]),
        burn_peft(&["inspect", &model, "--json"]),
        burn_peft(&[
            "generate",
            "--prompt",
            "x",
            "--max-new-tokens",
            "2",
            "--model",
            &model,
        ]),
        burn_peft(&[
            "evaluate",
            "--no-generate",
            "--json",
            "--data",
            data,
            "--model",
            &model,
        ]),
    ];
    for (name, more) in [("plain", &[][..]), ("json", &["--json"])] {
        let mut command = burn_peft(&train);
        command
            .args(["--output", text(&output.join(name))])
            .args(more);
        list.push(command);
    }
    list
}

#[test]
fn a_reader_that_left_ends_it_quietly_and_a_full_disk_in_one_line() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 2);
    for mut command in commands(&data, &folder.path().join("closed")) {
        succeed(command.stdout(closed()));
    }
    for mut command in commands(&data, &folder.path().join("full")) {
        let line = refused(command.stdout(full()));
        assert!(line.contains("standard output"), "{line}");
        assert!(line.contains("No space left"), "{line}");
    }
}

#[test]
fn nobody_needs_to_read_standard_error() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 2);
    for (name, stderr) in [("closed", closed as fn() -> Stdio), ("full", full)] {
        for mut command in commands(&data, &folder.path().join(name)) {
            let output = command.stderr(stderr()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
            assert!(!output.stdout.is_empty(), "{command:?}");
        }
        let status = |args: &[&str]| burn_peft(args).stderr(stderr()).status().unwrap().code();
        assert_eq!(status(&["train", "--no-such-flag"]), Some(2));
        assert_eq!(status(&["inspect", "no/such/folder"]), Some(1));
    }
}
