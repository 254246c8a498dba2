//! The names that other programs and data sets have for the fields of a row.

use std::collections::BTreeMap;

use super::*;

fn prompt_and_answer(row: &Row) -> (String, String) {
    let (prompt, answer) = row.prompt_and_answer().expect("a prompt and an answer");
    (prompt.into_owned(), answer.to_owned())
}

#[test]
fn an_instruction_may_be_a_query_a_question_or_an_input() {
    let instruction = only(r#"{"instruction":"a","output":"b"}"#);
    for row in [
        r#"{"query":"a","response":"b","history":[]}"#,
        r#"{"question":"a","answer":"b","id":1}"#,
        r#"{"Question":"a"," Answer":"b"}"#,
        r#"{"input":"a","output":"b"}"#,
        r#"{"INPUT":"a","OUTPUT":"b"}"#,
        r#"{"instruction":"a","context":"","response":"b","category":"open_qa"}"#,
        r#"{"question":"a","response":"b","system_prompt":""}"#,
    ] {
        assert_eq!(only(row), instruction, "{row}");
    }
    let about = only(r#"{"instruction":"a","input":"c","output":"b"}"#);
    assert_eq!(
        only(r#"{"instruction":"a","context":"c","response":"b"}"#),
        about
    );
    assert_eq!(
        only(r#"{"question":"a","context":"c","answer":"b"}"#),
        about
    );
}

#[test]
fn other_formats_with_such_keys_stay_what_they_are() {
    for (row, format) in [
        (
            r#"{"context":"a b","question":"a","answers":{"text":["b"],"answer_start":[2]},"answer":"b"}"#,
            RowFormat::Questions,
        ),
        (
            r#"{"question":"a","sentence":"b","label":1,"answer":"b"}"#,
            RowFormat::Classification,
        ),
        (
            r#"{"text":"a","label":1,"question":"a","answer":"b"}"#,
            RowFormat::Classification,
        ),
        (
            r#"{"prompt":"a","messages":[{"role":"user","content":"a"}],"response":"b"}"#,
            RowFormat::Messages,
        ),
        (
            r#"{"prompt":"a","answer":"b","text":"c"}"#,
            RowFormat::PromptCompletion,
        ),
        (r#"{"text":"a","input":"b"}"#, RowFormat::Text),
    ] {
        assert_eq!(only(row).format(), format, "{row}");
    }
}

#[test]
fn sharegpt_rows_are_conversations() {
    let messages = only(
        r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
    );
    for row in [
        r#"{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}],"system":"s"}"#,
        r#"{"conversation":[{"from":"user","value":"a"},{"from":"assistant","value":"b"}],"system":"s"}"#,
        r#"{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"b"}],"system":"s"}"#,
        r#"{"conversations":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"system":"s"}"#,
        r#"{"conversations":["a","b"],"system":"s"}"#,
    ] {
        assert_eq!(only(row), messages, "{row}");
    }
    let two = r#"{"conversations":[{"from":"system","value":"x"},{"from":"human","value":"a"}],"system":"s"}"#;
    assert!(message_of(two).contains("a system text and another one"));
    let nothing = r#"{"conversations":[{"from":"human","value":null}]}"#;
    assert!(message_of(nothing).contains("conversations[0].value must be a string"));
}

#[test]
fn calls_of_functions_in_older_spellings_are_tool_calls() {
    let call = r#"{"type":"function","function":{"name":"f","arguments":{"n":4}}}"#;
    let tool = r#"{"type":"function","function":{"name":"f","parameters":{}}}"#;
    let expected = only(&format!(
        r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","tool_calls":[{call}]}},
        {{"role":"tool","content":"7"}}],"tools":[{tool}]}}"#
    ).replace('\n', ""));
    for row in [
        r#"{"conversations":[{"from":"human","value":"a"},
            {"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{\"n\":4}}"},
            {"from":"observation","value":"7"}],"tools":"[{\"name\":\"f\",\"parameters\":{}}]"}"#,
        r#"{"messages":[{"role":"user","content":"a"},
            {"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\"n\":4}"}},
            {"role":"function","content":"7"}],"functions":[{"name":"f","parameters":{}}]}"#,
    ] {
        assert_eq!(only(&row.replace('\n', "")), expected, "{row}");
    }
    let words = r#"{"conversations":[{"from":"function_call","value":"look it up"}]}"#;
    assert!(message_of(words).contains("conversations[0].value calls a function, and is not JSON"));
}

#[test]
fn a_prompt_and_a_completion_of_turns_are_a_conversation_whose_prompt_is_given() {
    let row = only(
        r#"{"prompt":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],
        "completion":[{"role":"assistant","content":"d"}]}"#.replace('\n', "").as_str(),
    );
    let Row::Messages(conversation) = row else {
        panic!("no conversation");
    };
    let learned: Vec<bool> = conversation
        .messages
        .iter()
        .map(|turn| turn.is_learned())
        .collect();
    assert_eq!(learned, [false, false, false, true]);
    let text = r#"{"prompt":[{"role":"user","content":"a"}],"completion":"b"}"#;
    assert!(message_of(text).contains("\"completion\" must be a list, found a string"));
}

#[test]
fn what_is_not_learned_from_is_refused_by_name() {
    for (row, expected) in [
        (
            r#"{"prompt":"a","chosen":"b","rejected":"c"}"#,
            "\"chosen\" and \"rejected\"",
        ),
        (
            r#"{"conversations":[{"from":"human","value":"a"}],"chosen":{"value":"b"},"rejected":{"value":"c"}}"#,
            "\"chosen\" and \"rejected\"",
        ),
        (
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"refusal":"no"}]}"#,
            "messages[1] has \"refusal\"",
        ),
        (
            r#"{"messages":[{"role":"assistant","content":"a","audio":{"id":"x"}}]}"#,
            "messages[0] has \"audio\"",
        ),
    ] {
        let message = message_of(row);
        assert!(
            message.starts_with("train.jsonl:1: ") && message.contains(expected),
            "{message}"
        );
    }
    // Where the turns to be learned stand beside them, these are learned.
    let row =
        r#"{"prompt":"a","messages":[{"role":"user","content":"a"}],"chosen":"b","rejected":"c"}"#;
    assert_eq!(only(row).format(), RowFormat::Messages);
}

#[test]
fn masks_of_tokenised_rows_say_what_is_learned_and_what_is_padding() {
    let tokenized = |row: &str| match only(row) {
        Row::Tokenized { input_ids, labels } => (input_ids, labels),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        tokenized(r#"{"input_ids":[1,2]}"#),
        (vec![1, 2], vec![1, 2])
    );
    assert_eq!(
        tokenized(r#"{"input_ids":[1,2,3],"completion_mask":[0,1,1],"assistant_masks":[1,1,0]}"#),
        (vec![1, 2, 3], vec![-100, 2, -100])
    );
    assert_eq!(
        tokenized(r#"{"input_ids":[0,1,2,0],"attention_mask":[0,1,1,0],"labels":[-100,1,2,-100]}"#),
        (vec![1, 2], vec![1, 2])
    );
    for (row, expected) in [
        (
            r#"{"input_ids":[1,2],"completion_mask":[1]}"#,
            "2 input_ids and 1 completion_mask",
        ),
        (
            r#"{"input_ids":[1,2],"attention_mask":[1,2]}"#,
            "attention_mask[1] is 2",
        ),
        (
            r#"{"input_ids":[1,2],"attention_mask":[1,0],"label":1}"#,
            "attention_mask[1] is 0; leave padding out",
        ),
    ] {
        let message = message_of(row);
        assert!(message.contains(expected), "{message}");
    }
}

fn names(names: &[(&str, &str)]) -> ColumnNames {
    let owned = |(field, column): &(&str, &str)| ((*field).to_owned(), (*column).to_owned());
    let names: BTreeMap<String, String> = names.iter().map(owned).collect();
    ColumnNames::try_from(names).expect("good names")
}

fn named(columns: &[(&str, &str)], text: &str) -> Result<Rows> {
    let columns = names(columns);
    let reader = RowReader {
        columns: Some(&columns),
        task: None,
    };
    reader.parse("rows.jsonl", text.as_bytes())
}

#[test]
fn columns_that_were_named_are_the_fields_that_they_were_named() {
    let german = [("prompt", "frage"), ("completion", "antwort")];
    let rows = named(
        &german,
        r#"{"frage":"a","antwort":"b","prompt":"x","nr":1}"#,
    )
    .expect("good rows");
    assert_eq!(
        prompt_and_answer(&rows.rows()[0].1),
        ("a".to_owned(), "b".to_owned())
    );
    assert_eq!(
        rows.notes(),
        ["rows.jsonl: key \"nr\" in 1 row is not used"]
    );
    let swapped = [("prompt", "completion"), ("completion", "prompt")];
    let rows = named(&swapped, r#"{"prompt":"a","completion":"b"}"#).expect("good rows");
    assert_eq!(prompt_and_answer(&rows.rows()[0].1).0, "b");
    let within = [("messages", "data.turns")];
    let row = r#"{"data":{"turns":[{"role":"user","content":"a"}]}}"#;
    let rows = named(&within, row).expect("good rows");
    assert_eq!(rows.format(), RowFormat::Messages);
    assert!(rows.notes().is_empty());
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let german = [("prompt", "frage"), ("completion", "antwort")];
    let error = named(&german, r#"{"frage":"a","answer":"b"}"#).expect_err("no such column");
    let message = error.to_string();
    assert!(
        message.starts_with("rows.jsonl:1: data.columns names the column \"antwort\", and there is none; there are ["),
        "{message}"
    );
    // A column that is not needed may be absent in some rows, and not in all.
    let system = [("instruction", "a"), ("output", "b"), ("system", "s")];
    let rows = "{\"a\":\"a\",\"b\":\"b\"}\n{\"a\":\"a\",\"b\":\"b\",\"s\":\"c\"}";
    assert!(named(&system, rows).is_ok());
    let error = named(&system, rows.lines().next().expect("a row")).expect_err("no such column");
    assert!(
        error
            .to_string()
            .contains("\"s\", and no row of the file has it"),
        "{error}"
    );
    let unknown = BTreeMap::from([("frage".to_owned(), "prompt".to_owned())]);
    let message = ColumnNames::try_from(unknown).expect_err("no field");
    assert!(
        message.starts_with("rows have no field `frage`"),
        "{message}"
    );
}

#[test]
fn rows_to_be_predicted_need_a_prompt_of_any_name() {
    for row in [
        r#"{"question":"a"}"#,
        r#"{"query":"a"}"#,
        r#"{"input":"a"}"#,
        r#"{"Prompt":"a"}"#,
    ] {
        let rows = parse_rows_for("rows.jsonl", row, Task::CausalLm).expect("good rows");
        assert_eq!(prompt_and_answer(&rows.rows()[0].1).1, "", "{row}");
    }
}
