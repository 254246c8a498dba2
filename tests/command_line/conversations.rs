//! Conversations: what of them reaches the model, and where generation stops.

use super::*;

const CHAT: &str = r#"{"messages": [{"role": "human", "content": "Name a pub."}, {"role": "gpt", "content": "The Heron."}], "id": 7}"#;

fn chats(folder: &Path) -> String {
    let path = folder.join("chat.jsonl");
    fs::write(&path, [CHAT; 4].join("\n")).unwrap();
    text(&path).to_owned()
}

#[test]
fn training_and_evaluation_name_what_does_not_reach_the_model() {
    let folder = tempdir().unwrap();
    let (data, output) = (chats(folder.path()), folder.path().join("run"));
    let train = ["train", "--no-tui", "--max-steps", "1", "--data", &data];
    let evaluate = ["evaluate", "--no-generate", "--data", &data];
    for command in [
        burn_peft(&train).args(["--output", text(&output)]),
        &mut burn_peft(&evaluate),
    ] {
        let stderr = String::from_utf8(succeed(command).stderr).unwrap();
        let warnings: Vec<&str> = stderr
            .lines()
            .filter(|l| l.starts_with("warning"))
            .collect();
        let expected = format!("warning: {data}: key \"id\" in 4 rows is not used");
        assert_eq!(warnings, [expected], "{command:?}");
    }
}

/// The generation config of a base checkpoint knows the eos only, which ends no turn.
#[test]
fn a_chat_adapter_stops_where_it_was_taught_to_end_a_turn() {
    let folder = tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/model");
    for entry in fs::read_dir(assets).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    fs::write(
        model.join("generation_config.json"),
        r#"{"eos_token_id": 2045}"#,
    )
    .unwrap();
    let (data, output) = (chats(folder.path()), folder.path().join("run"));
    let on_model = |command: &str| {
        let mut command = burn_peft(&[command, "--model", text(&model)]);
        command.env("RAYON_NUM_THREADS", "2");
        command
    };
    succeed(
        on_model("train")
            .args(["--no-tui", "--method", "prefix-tuning", "--data", &data])
            .args(["--max-steps", "40", "--set", "train.learning_rate=0.01"])
            .args(["--output", text(&output)]),
    );
    let output = succeed(
        on_model("generate")
            .args(["--adapter", text(&output), "--chat", "--json"])
            .args(["--prompt", "Name a pub.", "--temperature", "0"])
            .args(["--max-new-tokens", "40"]),
    );
    let completion = &lines(&output)[0];
    assert_eq!(completion["text"], "The Heron.");
    assert_eq!(completion["finish_reason"], "stop");
}
