//! Conversations with a model, as scripts have them: one line is one turn.

use std::{
    io::{Read, Write},
    process::Stdio,
};

use serde_json::json;

use super::*;

/// Runs `chat` on these lines.
fn chat(args: &[&str], input: &str) -> Output {
    let mut command = burn_peft(&["chat"]);
    command.args(args).env("RAYON_NUM_THREADS", "2");
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that refuses its arguments reads nothing.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The objects of a conversation that ends well, and what was said on standard error.
fn talk(args: &[&str], input: &str) -> (Vec<Value>, Vec<String>) {
    let output = chat(&[args, &["--json"]].concat(), input);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let said = stderr.lines().map(str::to_owned).collect();
    (lines(&output), said)
}

/// The turns of a conversation in the built-in model's template, up to the answer.
fn rendered(turns: &[(&str, &str)]) -> String {
    let turns = turns.iter();
    let turns = turns.map(|(role, text)| format!("<|im_start|>{role}\n{text}<|im_end|>\n"));
    turns.collect::<String>() + "<|im_start|>assistant\n"
}

/// What `generate` makes of a prompt, which it computes as a whole.
fn generated(args: &[&str], prompt: &str) -> Value {
    let mut command = burn_peft(&["generate", "--json", "--prompt", prompt]);
    lines(&succeed(command.args(args))).remove(0)
}

const GREEDY: [&str; 4] = ["--temperature", "0", "--max-new-tokens", "20"];

#[test]
fn answers_are_those_of_a_model_that_computes_the_conversation_anew_with_every_method() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 8);
    let methods = [
        "bitfit",
        "prompt-tuning",
        "p-tuning",
        "prefix-tuning",
        "p-tuning-v2",
    ];
    let runs = methods.map(|method| {
        let output = folder.path().join(method);
        let mut train = burn_peft(&["train", "--no-tui", "--method", method, "--data", &data]);
        train.args(["--max-steps", "3", "--set", "train.learning_rate=0.05"]);
        succeed(train.args(["--output", text(&output)]));
        text(&output).to_owned()
    });
    let mut args = GREEDY.to_vec();
    for run in &runs {
        args.extend(["--adapter", run]);
    }
    // The first adapter answers; then each in turn gets two turns of the same conversation, and at last the base.
    let turns = ["Name a pub.", "And where is it?"];
    let mut input = turns.join("\n") + "\n";
    for name in methods[1..].iter().chain(&["none"]) {
        input += &format!("/adapter {name}\n{}\n", turns.join("\n"));
    }
    let (answers, _) = talk(&args, &input);
    assert_eq!(answers.len(), 12);
    let mut told: Vec<(&str, &str)> = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        told.push(("user", turns[index % 2]));
        let mut args = GREEDY.to_vec();
        match runs.get(index / 2) {
            Some(run) => {
                assert_eq!(answer["adapter"], methods[index / 2]);
                args.extend(["--adapter", run]);
            }
            None => assert_eq!(answer["adapter"], Value::Null),
        }
        let anew = generated(&args, &rendered(&told));
        assert_eq!(answer["content"], anew["text"], "turn {index}");
        assert_eq!(answer["finish_reason"], anew["finish_reason"]);
        let usage = &answer["usage"];
        let all = anew["prompt_ids"].as_array().unwrap().len();
        assert_eq!(usage["prompt_tokens"], all);
        // Another adapter begins anew; the next turn finds at least the prompt of the one before it.
        let cached = usage["cached_tokens"].as_u64().unwrap();
        match index % 2 {
            0 => assert_eq!(cached, 0, "turn {index}"),
            _ => {
                let before = &answers[index - 1]["usage"]["prompt_tokens"];
                assert!(cached >= before.as_u64().unwrap(), "turn {index}: {usage}");
            }
        }
        told.push(("assistant", answer["content"].as_str().unwrap()));
    }
}

#[test]
fn a_script_gets_one_answer_a_turn_and_nothing_else_on_standard_output() {
    let input = "Name a pub.\n\n  \nWhere is it?\n";
    let (answers, said) = talk(&GREEDY, input);
    assert_eq!(said, [""; 0]);
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["role"], "assistant");
    let plain = chat(&GREEDY, input);
    let contents = answers.iter().map(|answer| answer["content"].as_str());
    let expected: String = contents
        .map(|text| text.unwrap().to_owned() + "\n")
        .collect();
    assert_eq!(String::from_utf8(plain.stdout).unwrap(), expected);
    assert_eq!(plain.status.code(), Some(0));
    // The last line may lack its end, and /exit ends before the input does.
    let (answers, _) = talk(&GREEDY, "Name a pub.\n/exit\nWhere is it?");
    assert_eq!(answers.len(), 1);
}

#[test]
fn commands_change_what_is_told_and_what_goes_wrong_changes_nothing() {
    let folder = tempdir().unwrap();
    let saved = folder.path().join("talk.jsonl");
    let other = fixture::path("cases/tied_gqa-prompt-tuning-random/adapter");
    let input = format!(
        "/system Be brief.\nName a pub.\n/undo\n/nonsense\n/adapter {}\n/adapter no-such\n//is it open?\n\
         /system\nWhere?\n/save {path}\n/reset\nName a pub.\n/save {path}\n/adapters\n",
        text(&other),
        path = text(&saved)
    );
    let (answers, said) = talk(&GREEDY, &input);
    assert_eq!(answers.len(), 4);
    let texts: Vec<&str> = answers
        .iter()
        .map(|answer| answer["content"].as_str().unwrap())
        .collect();
    let system = ("system", "Be brief.");
    let slash = ("user", "/is it open?");
    for (answer, told) in [
        (0, vec![system, ("user", "Name a pub.")]),
        (1, vec![system, slash]),
        (2, vec![slash, ("assistant", texts[1]), ("user", "Where?")]),
        (3, vec![("user", "Name a pub.")]),
    ] {
        let anew = generated(&GREEDY, &rendered(&told));
        assert_eq!(texts[answer], anew["text"], "answer {answer}");
        assert_eq!(answers[answer]["adapter"], Value::Null);
    }
    let errors: Vec<&String> = said.iter().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 3, "{said:?}");
    assert!(errors[0].contains("/nonsense"), "{errors:?}");
    assert!(errors[1].contains(text(&other)), "{errors:?}");
    assert!(errors[2].contains("no-such"), "{errors:?}");
    assert_eq!(
        said.last().map(String::as_str),
        Some("* none  the base alone")
    );

    let rows = fs::read_to_string(&saved).unwrap();
    let rows: Vec<Value> = rows
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let expected = [
        json!({"messages": [
            turn("user", "/is it open?"), turn("assistant", texts[1]),
            turn("user", "Where?"), turn("assistant", texts[2]),
        ]}),
        json!({"messages": [turn("user", "Name a pub."), turn("assistant", texts[3])]}),
    ];
    assert_eq!(rows, expected);
    succeed(&mut burn_peft(&[
        "evaluate",
        "--no-generate",
        "--data",
        text(&saved),
    ]));
}

/// A copy of `tied_gqa` with this many positions.
fn with_positions(positions: usize) -> TempDir {
    let model = copy_model("tied_gqa");
    set(
        model.path(),
        "config.json",
        "max_position_embeddings",
        positions.into(),
    );
    model
}

/// Sets a key of a file of a model.
fn set(model: &Path, file: &str, key: &str, value: Value) {
    let path = model.join(file);
    let mut config = read_json(&path);
    config[key] = value;
    fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn the_oldest_turns_make_room_and_a_turn_that_never_fits_is_refused() {
    let model = with_positions(120);
    let args = ["--model", text(model.path()), "--temperature", "0"];
    let args = [&args[..], &["--max-new-tokens", "10"]].concat();
    let long = "x ".repeat(120);
    let input = format!("the cat\nthe dog\nthe cat sat\n{long}\nthe mat\nthe end\n");
    let (answers, said) = talk(&args, &input);
    assert_eq!(answers.len(), 6);
    let notes: Vec<&String> = said.iter().filter(|l| l.contains("left out")).collect();
    assert_eq!(notes.len(), 1, "{said:?}");
    let refused = answers[3]["error"].as_str().unwrap();
    assert!(refused.contains("there are 110 for it"), "{refused}");
    assert!(said.contains(&format!("error: {refused}")), "{said:?}");
    for answer in [&answers[4], &answers[5]] {
        let tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!((40..=110).contains(&tokens), "{answer}");
    }
}

#[test]
fn without_a_chat_template_each_turn_is_a_text_of_its_own() {
    let model = copy_model("tied_gqa");
    fs::remove_file(model.path().join("chat_template.jinja")).unwrap();
    let folder = tempdir().unwrap();
    let saved = folder.path().join("rows.jsonl");
    let args = [&GREEDY[..], &["--model", text(model.path())]].concat();
    let input = format!(
        "the cat\n/system Be brief.\nthe mat\n/save {}\n",
        text(&saved)
    );
    let (answers, said) = talk(&args, &input);
    assert!(said[0].contains("no chat template"), "{said:?}");
    assert!(said[1].starts_with("error: "), "{said:?}");
    for (answer, prompt) in answers.iter().zip(["the cat", "the mat"]) {
        // A character that is not finished is left out here.
        let anew = generated(&args, prompt);
        let anew = anew["text"].as_str().unwrap().trim_end_matches('\u{fffd}');
        assert_eq!(answer["content"], anew);
    }
    let rows = fs::read_to_string(&saved).unwrap();
    let row: Value = serde_json::from_str(rows.lines().nth(1).unwrap()).unwrap();
    assert_eq!(
        row,
        json!({"prompt": "the mat", "completion": answers[1]["content"]})
    );
    // So it is on request for a model that has one.
    let (asked, said) = talk(
        &[&GREEDY[..], &["--no-chat-template"]].concat(),
        "name: The Heron\n",
    );
    assert_eq!(said, [""; 0]);
    let anew = generated(&GREEDY, "name: The Heron");
    assert_eq!(asked[0]["content"], anew["text"]);
}

#[test]
fn what_cannot_be_talked_to_is_refused_at_once() {
    let head = fixture::path("heads/tied_gqa-question-ans-beft-qkv/adapter");
    let model = model_path();
    for (args, named) in [
        (&["--temperature=-1"][..], "--temperature is -1"),
        (&["--max-new-tokens", "1024"], "room for 1024"),
        (&["--adapter", "a=no-such"], "no such folder"),
        (&["--no-chat-template", "--system", "x"], "--system"),
        (
            &["--model", &model, "--adapter", text(&head)],
            "writes no text",
        ),
    ] {
        let output = chat(args, "hello\n");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(named),
            "{args:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[cfg(unix)]
#[test]
fn a_signal_stops_the_answer_and_a_script_with_it() {
    // A model that knows no end.
    let model = with_positions(1_000_000);
    for (file, key) in [
        ("config.json", "eos_token_id"),
        ("generation_config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
    ] {
        set(model.path(), file, key, Value::Null);
    }
    fs::remove_file(model.path().join("chat_template.jinja")).unwrap();
    let mut command = burn_peft(&["chat", "--model", text(model.path())]);
    command.args(["--temperature", "0", "--max-new-tokens", "900000"]);
    for signal in ["INT", "TERM"] {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"the cat sat\nthe dog\n").unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut first = [0; 1];
        stdout.read_exact(&mut first).unwrap();
        let kill = Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        if signal == "INT" {
            // The answer has an end, and there is no other.
            assert_eq!(rest.last(), Some(&b'\n'));
        }
    }
}
