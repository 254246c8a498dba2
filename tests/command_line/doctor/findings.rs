//! What is wrong with a run, and what makes it worse.

use super::*;

#[test]
fn one_failed_check_does_not_hide_the_others() {
    let model = copy_model("tied_gqa");
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let mut run = Run::new();
    run.model = text(model.path()).to_owned();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..3);
    fs::write(run.folder.path().join("bad.jsonl"), "{\"prompt\": 1}\n").unwrap();
    fs::write(run.folder.path().join("file"), "").unwrap();
    let run = run.with(&["--data", &data, "--valid", "bad.jsonl", "--output", "file"]);
    let (found, output) = run.check();
    let errors = found["errors"].as_array().unwrap();
    let errors: Vec<&str> = errors.iter().filter_map(Value::as_str).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for named in ["tokenizer.json", "bad.jsonl:1", "file is a file"] {
        assert!(
            errors.iter().any(|error| error.contains(named)),
            "{named}: {errors:?}"
        );
    }
    assert_eq!(found["model"]["family"], "qwen2");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line = stderr.lines().last().unwrap();
    assert!(
        line.starts_with("error: ") && line.ends_with(" (and 2 more)"),
        "{line}"
    );
}

#[test]
fn without_a_model_the_rows_are_shown_all_the_same() {
    let model = copy_model("tied_gqa");
    fs::remove_file(model.path().join("model.safetensors")).unwrap();
    let mut run = Run::new();
    run.model = text(model.path()).to_owned();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..3);
    let run = run.with(&["--data", &data]);
    let (found, _) = run.check();
    assert_eq!(found["errors"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["preview"].as_array().unwrap().len(), 3);
    assert!(found["rehearsal"].is_null());
}

#[test]
fn a_token_beyond_the_table_is_named_and_refused_where_rows_have_it() {
    let model = copy_model("tied_gqa");
    let path = model.path().join("tokenizer.json");
    let mut tokenizer = read_json(&path);
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for id in 315..=320 {
        let mut token = added[0].clone();
        token["id"] = json!(id);
        token["content"] = json!(format!("<|new_{id}|>"));
        added.push(token);
    }
    fs::write(&path, tokenizer.to_string()).unwrap();
    let mut run = Run::new();
    run.model = text(model.path()).to_owned();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..3);
    let found = run.with(&["--data", &data]).passes();
    assert_eq!(
        found["tokenizer"]["outside_table"],
        json!([{"token": "<|new_320|>", "id": 320}])
    );
    assert!(warnings(&found).contains("<|new_320|>"), "{found}");

    let mut run = Run::new();
    run.model = text(model.path()).to_owned();
    let rows = [
        json!({"prompt": "the ", "completion": "cat"}),
        json!({"prompt": "the ", "completion": "<|new_320|>"}),
    ];
    let data = write(run.folder.path(), "rows.jsonl", &rows);
    let (found, _) = run.with(&["--data", &data]).check();
    let errors = found["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "the same error twice: {errors:?}");
    let error = errors[0].as_str().unwrap();
    assert!(
        error.contains("rows.jsonl:2") && error.contains("<|new_320|>"),
        "{error}"
    );
}

#[test]
fn rows_that_are_too_long_are_counted_with_what_that_costs() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..10);
    let whole = Run::new().with(&["--data", &data]).passes();
    let cut = Run::new()
        .with(&["--data", &data, "--set", "data.max_length=16"])
        .passes();
    let (whole, cut_file) = (&whole["files"][0], &cut["files"][0]);
    assert!(whole["lost"].is_null() && whole["truncated"] == 0);
    assert!(cut_file["truncated"].as_u64().unwrap() > 0);
    let number = |value: &Value| value.as_u64().unwrap();
    let lost = &cut_file["lost"];
    assert_eq!(lost["all_tokens"], whole["tokens"]["total"]);
    assert_eq!(lost["all_supervised"], whole["supervised"]["total"]);
    let left = number(&whole["tokens"]["total"]) - number(&lost["tokens"]);
    assert_eq!(left, number(&cut_file["tokens"]["total"]));
    assert_eq!(cut_file["tokens"]["max"], 16);
    assert!(
        warnings(&cut).contains("data.max_length = 16 cuts"),
        "{cut}"
    );
}

#[test]
fn validation_rows_that_are_trained_on_are_counted() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..8);
    let found = Run::new()
        .with(&["--data", &data, "--valid", &data])
        .passes();
    assert_eq!(found["files"][1]["in_train"], 8);
    assert!(
        warnings(&found).contains("all 8 rows are also among"),
        "{found}"
    );

    let valid = sentences(run.folder.path(), "valid.jsonl", 6..12);
    let found = Run::new()
        .with(&["--data", &data, "--valid", &valid])
        .passes();
    assert_eq!(found["files"][1]["in_train"], 2);
    assert!(
        warnings(&found).contains("2 of 6 rows are also among"),
        "{found}"
    );
}

#[test]
fn settings_that_are_known_to_fail_are_named() {
    let run = Run::new();
    let rows = [
        json!({"prompt": "the cat ", "completion": "sat"}),
        json!({"prompt": "the cat ", "completion": "sat"}),
        json!({"prompt": "the mat ", "completion": ""}),
    ];
    let data = write(run.folder.path(), "rows.jsonl", &rows);
    let run = Run::new().with(&["--data", &data, "--set", "train.learning_rate=1e3"]);
    let run = run.with(&["--set", "train.warmup_steps=500"]);
    let found = warnings(&run.passes());
    for named in [
        "far from",
        "1 of 3 rows repeat",
        "1 of 3 rows have no text to learn",
        "rises over 500 steps",
        "data.valid",
    ] {
        assert!(found.contains(named), "{named}: {found}");
    }
}

#[test]
fn a_folder_in_use_is_refused_and_one_to_go_on_in_is_not() {
    let run = Run::new();
    let data = sentences(run.folder.path(), "rows.jsonl", 0..8);
    let run = run.with(&["--data", &data, "--output", "out", "--max-steps", "3"]);
    succeed(&mut run.command(&["train", "--no-tui"]));
    let (found, _) = run.check();
    let error = found["errors"][0].as_str().unwrap().to_owned();
    let said = refused(&mut run.command(&["train", "--no-tui"]));
    assert_eq!(format!("error: {error}"), said);

    let run = run.with(&["--resume", "--max-steps=9"]);
    let run = Run {
        args: run
            .args
            .iter()
            .filter(|arg| !["--max-steps", "3"].contains(&arg.as_str()))
            .cloned()
            .collect(),
        ..run
    };
    let found = run.passes();
    assert_eq!(found["learning"]["done_steps"], 3);
    assert_eq!(found["rehearsal"]["estimate"]["steps"], 6);

    let other = run.with(&["--seed", "9"]);
    let (found, _) = other.check();
    assert!(
        found["errors"][0].as_str().unwrap().contains("seed"),
        "{found}"
    );
}
