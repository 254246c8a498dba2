//! Templates, from `run.toml` to the adapter that is used later.

use super::*;

/// Trains one step of P-Tuning with a template, and scores the rows it learned from.
fn train(template: &str, data: &str, output: &Path) -> Command {
    let set = format!("data.template={template}");
    let model = model_path();
    let mut command = burn_peft(&["train", "--json", "--model", &model, "--method", "p-tuning"]);
    command.args(["--data", data, "--valid", data, "--output", text(output)]);
    command.args(["--max-steps", "1", "--set", &set]);
    command.args(["--set", "train.predict_with_generate=true"]);
    command
}

fn with_adapter(command: &str, adapter: &Path, args: &[&str]) -> Command {
    let model = model_path();
    let mut command = burn_peft(&[command, "--json", "--model", &model]);
    command.args(["--adapter", text(adapter)]).args(args);
    command
}

fn one(output: &Output) -> Value {
    lines(output).pop().unwrap()
}

fn rows(folder: &Path, row: &str) -> String {
    let path = folder.join("rows.jsonl");
    fs::write(&path, row).unwrap();
    text(&path).to_owned()
}

#[test]
fn a_prompt_fills_the_template_of_the_adapter() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 3);
    let output = folder.path().join("run");
    let template = "{prompt:2} say {input}{prompt:1}\n{completion} {prompt:2}";
    succeed(&mut train(template, &data, &output));
    let args = ["--max-new-tokens", "2", "--prompt"];
    let filled = one(&succeed(
        with_adapter("generate", &output, &args).arg("the cat"),
    ));
    let model = model_path();
    let plain = ["generate", "--json", "--model", &model];
    let ids = |prompt: &str| {
        let found = one(&succeed(burn_peft(&plain).args(args).arg(prompt)));
        found["prompt_ids"].as_array().unwrap().clone()
    };
    let expected = [ids("say the cat"), ids("\n")].concat();
    assert_eq!(filled["prompt_ids"], Value::from(expected));
    let scores = one(&succeed(&mut with_adapter(
        "evaluate",
        &output,
        &["--data", &data],
    )));
    assert!(scores["bleu"].is_number(), "{scores}");
}

#[test]
fn one_text_does_not_fill_two_fields() {
    let folder = tempdir().unwrap();
    let row = r#"{"instruction":"say it","input":"the cat","output":"sat"}"#;
    let data = rows(folder.path(), row);
    let output = folder.path().join("run");
    succeed(&mut train(
        "{instruction}{prompt:2}{input}{output}",
        &data,
        &output,
    ));
    let line = refused(with_adapter("generate", &output, &["--prompt"]).arg("the cat"));
    assert!(line.contains("nothing for `{input}`"), "{line}");
}

#[test]
fn rows_of_which_nothing_is_given_train_and_are_scored() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 3);
    let output = folder.path().join("run");
    let done = one(&succeed(&mut train(
        "{prompt:3}{completion}",
        &data,
        &output,
    )));
    // There is no token to continue, for the base or for the adapter.
    for when in ["before", "after"] {
        assert_eq!(done[when]["bleu"], 0.0, "{done}");
        assert!(done[when]["loss"].as_f64().unwrap().is_finite());
    }
}

#[test]
fn rows_that_a_template_does_not_fit_are_refused() {
    let folder = tempdir().unwrap();
    let output = folder.path().join("run");
    let template = "{prompt:3}{prompt}{completion}";
    for row in [
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
        r#"{"input_ids":[1,2],"labels":[-100,2]}"#,
        r#"{"text":"the cat"}"#,
    ] {
        let data = rows(folder.path(), row);
        let line = refused(&mut train(template, &data, &output));
        assert!(
            line.contains("rows.jsonl:1: this row cannot be tokenised: template"),
            "{line}"
        );
        assert!(!output.join("checkpoints").exists());
    }
}

#[test]
fn a_template_that_the_adapter_does_not_fit_is_refused() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 3);
    let output = folder.path().join("run");
    succeed(&mut train("{prompt:3}{prompt}{completion}", &data, &output));
    let config = config_to_edit(&output).to_string();
    for (from, to, expected) in [
        (
            "{prompt:3}",
            "{prompt:4}",
            "places 4 virtual tokens, the adapter has 3",
        ),
        (
            "{completion}",
            "{question}",
            "column 19: `{question}` is no field",
        ),
    ] {
        let path = output.join("adapter_config.json");
        fs::write(path, config.replace(from, to)).unwrap();
        let line = refused(&mut with_adapter("evaluate", &output, &["--data", &data]));
        assert!(line.contains("adapter_config.json: "), "{line}");
        assert!(line.contains(expected), "{line}");
    }
}
