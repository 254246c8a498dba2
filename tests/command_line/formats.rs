//! Data files as people have them: each format, each kind of file and each spelling that public data sets use.

use super::*;

/// A chat template that writes tools and calls of them, for the built-in model, whose own does not.
const TOOLS: &str = "{%- if tools %}{{- '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{%- endif %}\
    {%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}\
    {%- for call in message.tool_calls or [] %}{{- call.function | tojson }}{%- endfor %}{{- '<|im_end|>\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}";

fn data(name: &str) -> String {
    text(&fixture::path("data").join(name)).to_owned()
}

/// The loss of a file's rows, and the number of tokens in which it is.
fn score(name: &str, arguments: &[&str]) -> (f64, u64) {
    let data = data(name);
    let mut command = burn_peft(&["evaluate", "--no-generate", "--json", "--data", &data]);
    let report = &lines(&succeed(command.args(arguments)))[0];
    let loss = report["loss"].as_f64().unwrap();
    (loss, report["label_tokens"].as_u64().unwrap())
}

#[test]
fn every_format_is_evaluated_as_it_is() {
    for name in [
        "alpaca.json",
        "alpaca.json.gz",
        "alpaca_history.jsonl",
        "dolly.jsonl",
        "dolly.jsonl.gz",
        "input_output.jsonl",
        "lima.jsonl",
        "messages.csv",
        "openai.jsonl",
        "prompt_completion.jsonl",
        "prompt_completion.parquet",
        "prompt_completion.tsv",
        "prompt_completion_turns.jsonl",
        "prompt_response.jsonl",
        "query_response.jsonl",
        "question_answer.csv",
        "question_answer.csv.gz",
        "question_answer.jsonl",
        "question_answer.parquet",
        "semicolons.csv",
        "sharegpt.json",
        "system_question_response.jsonl",
        "text.jsonl",
        "tokenized.jsonl",
        "tokenized.parquet",
        "tokenized_masks.jsonl",
        "ultrachat.jsonl",
        "ultrachat.parquet",
    ] {
        let (loss, tokens) = score(name, &[]);
        assert!(loss.is_finite() && tokens > 0, "{name}: {loss} {tokens}");
    }
}

#[test]
fn calls_of_tools_are_learned_in_every_spelling() {
    let folder = tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/model");
    for entry in fs::read_dir(assets).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    fs::write(folder.path().join("chat_template.jinja"), TOOLS).unwrap();
    let model = ["--model", text(folder.path())];
    let openai = score("openai_tools.jsonl", &model);
    assert_eq!(score("openai_tools.parquet", &model), openai);
    for name in ["openai_functions.jsonl", "sharegpt_tools.jsonl"] {
        let (loss, tokens) = score(name, &model);
        assert!(loss.is_finite() && tokens > 0, "{name}: {loss} {tokens}");
    }
}

#[test]
fn the_same_rows_are_the_same_in_every_kind_of_file() {
    for (name, others) in [
        ("ultrachat.jsonl", &["ultrachat.parquet"][..]),
        ("alpaca.json", &["alpaca.json.gz"]),
        ("prompt_completion.jsonl", &["prompt_completion.parquet"]),
        ("tokenized.jsonl", &["tokenized.parquet"]),
    ] {
        let scored = score(name, &[]);
        for other in others {
            assert_eq!(score(other, &[]), scored, "{other}");
        }
    }
}

#[test]
fn a_run_is_trained_on_columns_that_it_names() {
    let folder = tempdir().unwrap();
    let (config, output) = (folder.path().join("run.toml"), folder.path().join("run"));
    let columns = r#"columns = { prompt = "frage", completion = "antwort" }"#;
    let toml = format!(
        "[data]\ntrain = {:?}\n{columns}\n[train]\nmax_steps = 1\n",
        data("other_names.csv")
    );
    fs::write(&config, toml).unwrap();
    let mut command = burn_peft(&["train", "--no-tui", "--config", text(&config)]);
    let trained = succeed(command.args(["--output", text(&output)]));
    let stderr = String::from_utf8_lossy(&trained.stderr);
    assert!(
        stderr.contains("key \"nr\" in 2 rows is not used"),
        "{stderr}"
    );
    let saved = fs::read_to_string(output.join("run.toml")).unwrap();
    assert!(saved.contains("frage"), "{saved}");

    let named = ["--columns", "prompt=frage,completion=antwort"];
    assert!(score("other_names.csv", &named).1 > 0);
    let data = data("other_names.csv");
    let line = refused(&mut burn_peft(&["evaluate", "--data", &data]));
    assert!(
        line.contains(
            "other_names.csv:2: no known format has the keys [\"antwort\", \"frage\", \"nr\"]"
        ) && line.contains("data.columns"),
        "{line}"
    );
}

#[test]
fn the_id_of_a_data_set_on_the_hub_says_how_to_fetch_it() {
    let line = refused(&mut burn_peft(&["evaluate", "--data", "tatsu-lab/alpaca"]));
    assert!(
        line.contains("Data are local files") && line.contains("hf download"),
        "{line}"
    );
}
