//! What `--resume` goes on with, and what it refuses.

use std::{fs, path::Path};

use tempfile::tempdir;

use super::{
    burn_peft, copy_model, model_path, refused, rows_file,
    short_run::{adapter, arguments, contents, place, train},
    succeed, text,
};

#[test]
fn another_run_is_refused_by_what_differs_and_nothing_is_written() {
    let (folder, data, output) = place(20);
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
    let (_folder, data, output) = place(20);
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
        "changed: train.learning_rate was ",
        " and is 0.0001",
    ] {
        assert!(said.contains(change), "{said}");
    }
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
        "\nlearning_rate = ",
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

#[test]
fn a_refused_run_leaves_no_folder() {
    let folder = tempdir().unwrap();
    let (data, output) = (rows_file(folder.path(), 20), folder.path().join("runs/a"));
    let template = "data.template={prompt:2} {nothing}{completion}";
    refused(&mut train(&data, &output, &["--set", template]));
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_finished_run_resumes_to_itself_in_every_file() {
    let (_folder, data, output) = place(20);
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
    let (_folder, data, output) = place(20);
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

#[test]
fn another_chat_template_is_named() {
    let folder = tempdir().unwrap();
    let (data, output) = (folder.path().join("chat.jsonl"), folder.path().join("run"));
    let row = r#"{"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]}"#;
    fs::write(&data, format!("{row}\n").repeat(4)).unwrap();
    let model = copy_model("tied_gqa");
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
    let (_folder, data, output) = place(8);
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
