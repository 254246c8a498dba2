//! A tokenizer and the files of its folder.

use std::fs;

use super::*;
use crate::test_support::{CONFIG, EOS, IM_END, IM_START, tokenizer, tokenizer_json};

#[test]
fn special_tokens_in_text_are_recognised_and_none_is_added() {
    let tokenizer = tokenizer();
    let ids = tokenizer
        .encode("<|im_start|>hi<|im_end|>")
        .expect("byte-level");
    assert_eq!(ids.first(), Some(&IM_START));
    assert_eq!(ids.last(), Some(&IM_END));
    assert_eq!(tokenizer.decode(&ids, true).expect("byte-level"), "hi");
    assert_eq!(
        tokenizer.decode(&ids, false).expect("byte-level"),
        "<|im_start|>hi<|im_end|>"
    );
}

#[test]
fn eos_is_read_as_a_string_or_as_an_object() {
    let json = tokenizer_json();
    for config in [
        r#"{"eos_token":"<|im_end|>"}"#,
        r#"{"eos_token":{"content":"<|im_end|>","lstrip":false}}"#,
    ] {
        let tokenizer = TextTokenizer::from_bytes(json.as_bytes(), config.as_bytes(), None)
            .expect("a good config");
        assert_eq!(tokenizer.eos_id(), Some(IM_END));
        assert_eq!(tokenizer.pad_id(), None);
    }
    assert_eq!(tokenizer().pad_id(), Some(EOS));
    assert_eq!(tokenizer().vocab_size(), IM_END as usize + 1);
}

#[test]
fn an_eos_outside_the_vocabulary_is_named() {
    let error = TextTokenizer::from_bytes(
        tokenizer_json().as_bytes(),
        br#"{"eos_token":"</s>"}"#,
        None,
    );
    let message = error.expect_err("there is no such token").to_string();
    assert!(
        message.contains("eos_token") && message.contains("</s>"),
        "{message}"
    );
}

#[test]
fn a_template_file_wins_over_the_configuration() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write =
        |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a temporary file");
    let message = [Message::new("user", "x")];
    write("tokenizer.json", &tokenizer_json());
    write(
        "tokenizer_config.json",
        r#"{"chat_template":[{"name":"tool","template":"t"},{"name":"default","template":"d"}]}"#,
    );
    let render = || {
        TextTokenizer::load(dir.path())
            .expect("a good folder")
            .render_chat(&message, false)
    };
    assert_eq!(render().expect("a good template"), "d");
    write("chat_template.jinja", "file");
    assert_eq!(render().expect("a good template"), "file");
}

#[test]
fn a_folder_without_a_tokenizer_is_one_clear_error() {
    let error =
        TextTokenizer::load(Path::new("no/such/model")).expect_err("there is no such folder");
    assert!(matches!(error, Error::MissingTokenizer { .. }), "{error}");
    assert!(error.to_string().starts_with("no/such/model"), "{error}");
}

#[test]
fn a_saved_truncation_does_not_apply() {
    let mut saved: Tokenizer = tokenizer_json().parse().expect("a tokenizer");
    let limit = tokenizers::TruncationParams {
        max_length: 2,
        ..Default::default()
    };
    saved.with_truncation(Some(limit)).expect("a good limit");
    let json = saved.to_string(false).expect("a tokenizer");
    let tokenizer =
        TextTokenizer::from_bytes(json.as_bytes(), CONFIG.as_bytes(), None).expect("a tokenizer");
    assert_eq!(tokenizer.encode("abcdef").expect("byte-level").len(), 6);
}

#[test]
fn a_chat_without_a_template_says_so() {
    let tokenizer =
        TextTokenizer::from_bytes(tokenizer_json().as_bytes(), b"{}", None).expect("a tokenizer");
    assert!(matches!(
        tokenizer.render_chat(&[], true),
        Err(Error::NoChatTemplate)
    ));
}

/// A folder with the tests' tokenizer and other files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = ("tokenizer.json", tokenizer_json());
    let files = files.iter().map(|(name, text)| (*name, (*text).to_owned()));
    for (name, text) in files.chain([tokenizer]) {
        fs::write(dir.path().join(name), text).expect("a temporary file");
    }
    dir
}

#[test]
fn an_eos_is_found_wherever_it_is_named() {
    let named = r#"{"eos_token":"<|im_end|>"}"#;
    for (files, eos) in [
        (vec![("special_tokens_map.json", named)], Some(IM_END)),
        (
            vec![
                ("tokenizer_config.json", CONFIG),
                ("special_tokens_map.json", named),
            ],
            Some(EOS),
        ),
        (vec![("config.json", r#"{"eos_token_id":258}"#)], Some(EOS)),
        (
            vec![
                ("config.json", r#"{"eos_token_id":null}"#),
                ("generation_config.json", r#"{"eos_token_id":[260,258]}"#),
            ],
            Some(IM_END),
        ),
        (vec![("config.json", r#"{"eos_token_id":9999}"#)], None),
        (vec![], None),
    ] {
        let dir = folder(&files);
        let tokenizer = TextTokenizer::load(dir.path()).expect("a good folder");
        assert_eq!(tokenizer.eos_id(), eos, "{files:?}");
    }
}

#[test]
fn tokens_that_only_the_configuration_has_are_added() {
    let config = r#"{"eos_token":"<end>","added_tokens_decoder":{
        "261":{"content":"<end>","special":true},"260":{"content":"<|im_end|>","special":true}}}"#;
    let dir = folder(&[("tokenizer_config.json", config)]);
    let tokenizer = TextTokenizer::load(dir.path()).expect("a good folder");
    assert_eq!(tokenizer.eos_id(), Some(261));
    assert_eq!(tokenizer.encode("a<end>").expect("byte-level"), [97, 261]);
}

#[test]
fn a_pad_token_without_a_row_in_the_table_does_not_pad() {
    let tokenizer = tokenizer();
    assert_eq!(
        tokenizer.clone().for_table(EOS as usize + 1).pad_id(),
        Some(EOS)
    );
    let smaller = tokenizer.for_table(EOS as usize);
    assert_eq!(
        (smaller.pad_id(), smaller.vocab_size()),
        (None, EOS as usize)
    );
    assert!(smaller.encode("ab").is_ok());
    assert!(matches!(
        smaller.encode("a<|im_end|>"),
        Err(Error::OutsideTable { id: IM_END, .. })
    ));
}

#[test]
fn the_end_of_a_turn_is_what_the_template_ends_it_with() {
    let end = |template: Option<&str>| {
        let json = tokenizer_json();
        let tokenizer = TextTokenizer::from_bytes(json.as_bytes(), CONFIG.as_bytes(), template);
        tokenizer.expect("a tokenizer").end_of_turn_id()
    };
    assert_eq!(tokenizer().end_of_turn_id(), Some(IM_END));
    assert_eq!(end(None), None);
    assert_eq!(end(Some("{% if %}")), None);
    assert_eq!(
        end(Some(
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        )),
        None
    );
    let eos = "{% for m in messages %}[{{ m.content }}]{{ eos_token if m.role == 'assistant' }}{% endfor %}";
    assert_eq!(end(Some(eos)), Some(EOS));
    let marked = "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% endfor %}";
    assert_eq!(end(Some(marked)), Some(IM_END));
}

#[test]
fn what_the_library_panics_at_is_an_error_that_names_the_file() {
    let mut json: serde_json::Value = tokenizer_json().parse().expect("JSON");
    json["pre_tokenizer"] = serde_json::json!({"type": "FixedLength", "length": 0});
    let error = TextTokenizer::from_bytes(json.to_string().as_bytes(), b"{}", None);
    let error = error.expect_err("the length is zero");
    assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
    let source = std::error::Error::source(&error).expect("the library's");
    assert!(source.to_string().contains("panicked"), "{source}");
}
