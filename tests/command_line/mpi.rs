//! Runs that several processes share, as `mpirun` starts them: here all on one machine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::tempdir;

use super::{
    burn_peft, refused,
    short_run::{adapter, arguments, metrics, place},
    stopping::{signal, wait_until},
    succeed, text,
};

/// `mpirun` with the processes that `of_ranks` describes.
fn mpirun(of_ranks: &[(usize, &[String])]) -> Command {
    let mut command = Command::new("mpirun");
    // As root, and with more processes than cores.
    command.args([
        "--allow-run-as-root",
        "--oversubscribe",
        "--bind-to",
        "none",
    ]);
    for (index, (ranks, arguments)) in of_ranks.iter().enumerate() {
        command.args((index > 0).then_some(":"));
        command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_burn-peft")]);
        command.args(*arguments);
    }
    command
}

/// The files of 22 rows of very different lengths.
fn uneven_rows(folder: &Path) -> String {
    let path = folder.join("uneven.jsonl");
    let row = |i: usize| {
        let (prompt, completion) = (
            "the cat ".repeat(1 + i * 7 % 11),
            "sat ".repeat(1 + i * 5 % 13),
        );
        format!(r#"{{"prompt": "{prompt}{i} ", "completion": "{completion}"}}"#)
    };
    let rows: Vec<String> = (0..22).map(row).collect();
    fs::write(&path, rows.join("\n")).unwrap();
    text(&path).to_owned()
}

fn accumulating(data: &str, output: &Path, steps: usize, more: &[&str]) -> Vec<String> {
    let accumulation = format!("train.gradient_accumulation_steps={steps}");
    arguments(data, output, &[more, &["--set", &accumulation]].concat())
}

fn alone(arguments: &[String]) -> Command {
    burn_peft(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn two_ranks_make_the_run_of_one_process_bit_for_bit() {
    let folder = tempdir().unwrap();
    let data = uneven_rows(folder.path());
    for method in [
        "bitfit",
        "prompt-tuning",
        "p-tuning",
        "prefix-tuning",
        "p-tuning-v2",
    ] {
        let mut more = vec!["--method", method, "--max-steps", "10"];
        if method == "prefix-tuning" {
            more.extend(["--set", "method.prefix_dropout=0.1"]);
        }
        let [one, two] = ["one", "two"].map(|name| folder.path().join(method).join(name));
        succeed(&mut alone(&accumulating(&data, &one, 4, &more)));
        let shared = accumulating(&data, &two, 2, &more);
        let output = succeed(&mut mpirun(&[(2, &shared)]));
        assert_eq!(metrics(&two), metrics(&one), "{method}");
        assert!(adapter(&two) == adapter(&one), "{method}");
        // One of them speaks.
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.matches("adapter: ").count(), 1, "{said}");
        assert_eq!(
            fs::read_to_string(two.join("metrics.jsonl"))
                .unwrap()
                .lines()
                .count(),
            7
        );
    }
    let adapter = folder.path().join("prompt-tuning/one");
    let model = super::model_path();
    let model = [
        "--model",
        &model,
        "--adapter",
        text(&adapter),
        "--data",
        &data,
    ];
    for command in [
        &["evaluate", "--json", "--per-example", "--batch-size", "3"][..],
        &["predict", "--batch-size", "3"],
    ] {
        let arguments: Vec<String> = [command, &model]
            .concat()
            .iter()
            .map(|a| (*a).into())
            .collect();
        let expected = succeed(&mut alone(&arguments)).stdout;
        let found = succeed(&mut mpirun(&[(2, &arguments)])).stdout;
        assert!(!found.is_empty() && found == expected, "{command:?}");
    }
}

#[test]
fn a_stopped_or_killed_run_goes_on_with_another_number_of_ranks() {
    let folder = tempdir().unwrap();
    let data = uneven_rows(folder.path());
    let more = ["--max-steps", "100"];
    let whole = folder.path().join("whole");
    succeed(&mut alone(&accumulating(&data, &whole, 2, &more)));
    for name in ["USR1", "KILL"] {
        let output = folder.path().join(name);
        let shared = accumulating(&data, &output, 1, &more);
        let mut run = mpirun(&[(2, &shared)]);
        let run = run
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("a checkpoint", || {
            output.join("checkpoints/step-4").is_dir()
        });
        match name {
            // What mpirun hands on to all.
            "USR1" => signal(run.id(), name),
            _ => signal(rank_of(run.id()), name),
        }
        let ended = run.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.success(), name == "USR1", "{name}: {said}");
        assert!(
            name == "USR1" || said.contains("signal 9"),
            "{name}: {said}"
        );
        // With one process, a step would have half of the rows.
        let resume = [&more[..], &["--resume"]].concat();
        let line = refused(&mut alone(&accumulating(&data, &output, 1, &resume)));
        assert!(
            line.contains("gradient_accumulation_steps = 2 would do"),
            "{line}"
        );
        succeed(&mut alone(&accumulating(&data, &output, 2, &resume)));
        assert!(adapter(&output) == adapter(&whole), "{name}");
        assert_eq!(metrics(&output), metrics(&whole), "{name}");
    }
}

/// The second process that a launcher started.
fn rank_of(launcher: u32) -> u32 {
    let children = format!("/proc/{launcher}/task/{launcher}/children");
    let children = fs::read_to_string(children).unwrap();
    children.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ranks_that_differ_do_not_begin_and_what_is_one_process_is_refused() {
    let (folder, data, output) = place(20);
    let rows = fs::read_to_string(&data).unwrap().replace("mat 3", "mat 4");
    let other = folder.path().join("other.jsonl");
    fs::write(&other, rows).unwrap();
    let [first, second] =
        [&data, text(&other)].map(|data| arguments(data, &output, &["--max-steps", "4"]));
    let ended = mpirun(&[(1, &first), (1, &second)]).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(
        errors[0].contains("differs from rank 0 in the training data"),
        "{said}"
    );
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(!output.exists(), "nothing was begun");

    let arguments = ["inspect".to_owned(), super::model_path()];
    let ended = mpirun(&[(2, &arguments)]).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("inspect is one process"), "{said}");
}
