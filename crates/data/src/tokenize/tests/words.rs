//! Labels as words that a language model writes.

use super::*;
use crate::labels::{Labels, ProblemType};
use crate::layout::Prompt;

const ROWS: &str = r#"{"text":"so bad","label":"neg"}
{"text":"ok","text_pair":"fine","label":"pos"}"#;

fn rows(text: &str) -> Rows {
    parse_rows("train.jsonl", text).expect("good rows")
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn labels() -> Labels {
    Labels::of(&rows(ROWS)).expect("labels")
}

fn run(
    words: &[&str],
    template: Option<&Template>,
    max_length: Option<usize>,
) -> Result<Tokenized> {
    let (labels, words) = (labels(), owned(words));
    let options = TokenizeOptions {
        max_length,
        template,
        targets: Targets::Verbalizer(&labels, &words),
        ..TokenizeOptions::default()
    };
    tokenize_rows(&rows(ROWS), &tokenizer(), options, &mut |_, _| {})
}

#[test]
fn only_the_words_of_the_label_are_supervised() {
    let tokenized = run(&[" bad", " good"], None, None).expect("good rows");
    let prompts = [ids("so bad"), ids("ok\nfine")];
    for ((example, prompt), word) in tokenized
        .examples
        .iter()
        .zip(prompts)
        .zip([" bad", " good"])
    {
        let expected = [prompt.clone(), ids(word)].concat();
        assert_eq!(example.labels, hiding(prompt.len(), &expected));
        assert_eq!((&example.input_ids, &example.row_label), (&expected, &None));
    }
}

#[test]
fn the_eos_ends_all_words_where_one_begins_another() {
    let tokenized = run(&["a", "ab"], None, None).expect("good rows");
    assert!(
        tokenized
            .examples
            .iter()
            .all(|example| example.labels.last() == Some(&i64::from(EOS)))
    );
}

#[test]
fn a_template_has_its_place_for_the_words_and_only_fields_are_cut() {
    let template = Template::parse("{prompt:1}T: {text}{prompt:2}\nis:{label}{prompt:1}");
    let template = template.expect("a good template");
    for (max_length, text, placement) in [
        (None, "so bad", [0, 9, 9, 14]),
        (Some(11), "so ", [0, 6, 6, 11]),
    ] {
        let tokenized = run(&["-", "+"], Some(&template), max_length).expect("good rows");
        let example = &tokenized.examples[0];
        let prompt = [ids(&format!("T: {text}")), ids("\nis:")].concat();
        let expected = [prompt.clone(), ids("-")].concat();
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.labels, hiding(prompt.len(), &expected));
        assert_eq!(example.placement, Some(placement.to_vec()));
        assert_eq!(tokenized.truncated, usize::from(max_length.is_some()));
    }
    for limit in [0, 7, 8] {
        let error = run(&["-", "+"], Some(&template), Some(limit)).expect_err("nothing fits");
        let expected = format!(
            "train.jsonl:1: max_length = {limit} leaves no room for a token of the text; raise max_length"
        );
        assert_eq!(error.to_string(), expected);
    }
    assert!(run(&["-", "+"], Some(&template), Some(9)).is_ok());
    let textless = Template::parse("so:{prompt:1}{label}").expect("a good template");
    let error = run(&["-", "+"], Some(&textless), None).expect_err("no text");
    assert!(error.to_string().contains("has no `{text}`"), "{error}");
    let template = Template::parse("{prompt:1}{text}").expect("a good template");
    let error = run(&["-", "+"], Some(&template), None).expect_err("no place");
    assert!(error.to_string().contains("has no `{label}`"), "{error}");
}

#[test]
fn candidates_are_the_same_prompt_with_the_words_of_every_class() {
    let template = Template::parse("{text}{prompt:1}:{label}{prompt:2}").expect("a good template");
    let (labels, words) = (labels(), owned(&["no", "yes!"]));
    let verbalizer = Verbalizer::new(&labels, &words, &tokenizer()).expect("good words");
    let all = verbalizer.candidates(&rows(ROWS), &tokenizer(), Some(&template), Some(9));
    let all = all.expect("good rows");
    assert_eq!(all.len(), 2);
    // The words of four tokens and the colon leave four for the text, whatever the class.
    assert_eq!(
        all[0].prompt,
        Prompt {
            input_ids: ids("so b:"),
            placement: Some(vec![4]),
        }
    );
    assert_eq!(all[0].answers, [ids("no"), ids("yes!")]);
    let examples = all[0].examples(5);
    assert_eq!(examples[1].input_ids, ids("so b:yes!"));
    assert_eq!(examples[1].labels, hiding(5, &ids("so b:yes!")));
    assert_eq!(examples[1].placement, Some(vec![4, 9, 9]));
    assert_eq!((examples[0].row, examples[0].line), (5, 1));
    // What is trained is one of them.
    let trained = run(&["no", "yes!"], Some(&template), Some(9)).expect("good rows");
    assert_eq!(
        Example {
            row: 0,
            ..examples[0].clone()
        },
        trained.examples[0]
    );
    for limit in [4, 5] {
        let error = verbalizer.candidates(&rows(ROWS), &tokenizer(), Some(&template), Some(limit));
        let error = error.expect_err("too long").to_string();
        let expected = format!("train.jsonl:1: max_length = {limit} leaves no room for a token");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn words_that_cannot_tell_classes_apart_are_refused() {
    for (words, expected) in [
        (&["a"][..], "1 words for 2 classes"),
        (
            &["a", ""],
            r#"the words "" of the class "pos" have no token"#,
        ),
        (
            &["a", "a"],
            r#"the classes "neg" and "pos" have the same words, "a""#,
        ),
    ] {
        let error = run(words, None, None).expect_err("bad words").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let several = Labels::numbered(2, ProblemType::MultiLabel);
    let error = Verbalizer::new(&several, &owned(&["a", "b"]), &tokenizer());
    let error = error.expect_err("several classes").to_string();
    assert!(error.contains("multi_label_classification"), "{error}");
}
