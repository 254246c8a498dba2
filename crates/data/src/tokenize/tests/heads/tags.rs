//! Tagged words.

use super::*;

#[test]
fn the_first_token_of_each_word_has_its_class() {
    let labels = labels(&["B-X", "I-X", "O"]);
    let row = rows(&[r#"{"tokens":["abc","de","日"],"tags":["B-X","O","I-X"]}"#]);
    let example = run(&row, options(tagging(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids, ids("abc de日"));
    let none = IGNORE_INDEX;
    assert_eq!(
        example.labels,
        [0, none, none, 2, none, none, 1, none, none]
    );
    assert_eq!(example.parts, Parts::Words(vec![0, 3, 6]));
    assert_eq!(example.row_label, None);
    // On all pieces, one word is one span.
    let example = run(&row, options(tagging(&labels, true), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.labels, [0, 1, 1, 2, 2, 2, 1, 1, 1]);
}

#[test]
fn no_token_spans_two_words() {
    // "he" is a token, but not where its letters are words.
    let labels = labels(&["O", "X"]);
    let row = rows(&[r#"{"tokens":["h","e","国"],"tags":["O","X","X"]}"#]);
    let example = run(&row, options(tagging(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids[..2], [byte_id(b'h'), byte_id(b'e')]);
    assert_eq!(example.parts, Parts::Words(vec![0, 1, 2]));
}

#[test]
fn a_word_without_a_token_does_not_shift_the_others() {
    let labels = labels(&["A", "B", "C", "D"]);
    let row = rows(&[r#"{"tokens":["","x","","yz",""],"tags":["A","B","C","D","A"]}"#]);
    let example = run(&row, options(tagging(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(example.input_ids, ids("x yz"));
    assert_eq!(example.labels, [1, 3, IGNORE_INDEX, IGNORE_INDEX]);
    assert_eq!(example.parts, Parts::Words(vec![0, 0, 1, 1, 3]));
    let none = rows(&[r#"{"tokens":["",""],"tags":["A","B"]}"#]);
    let error = run(&none, options(tagging(&labels, false), None)).expect_err("no token");
    assert!(
        error
            .to_string()
            .starts_with("train.jsonl:1: the words have no token"),
        "{error}"
    );
}

#[test]
fn words_behind_the_cut_are_gone_and_the_row_counts_as_cut() {
    let labels = labels(&["O", "X"]);
    let lines = [
        r#"{"tokens":["abc","de","f"],"tags":["O","X","O"]}"#,
        r#"{"tokens":["a"],"tags":["O"]}"#,
    ];
    let tokenized =
        run(&rows(&lines), options(tagging(&labels, false), Some(5))).expect("good rows");
    assert_eq!((tokenized.truncated, tokenized.dropped), (1, 0));
    let example = &tokenized.examples[0];
    assert_eq!(example.parts, Parts::Words(vec![0, 3]));
    assert_eq!((example.len(), example.labels[3]), (5, 1));
    // What the tokenizer puts around a text stays.
    let tokenizer = tokenizer_with_bos();
    let with_bos = tokenize_rows(
        &rows(&lines),
        &tokenizer,
        options(tagging(&labels, false), Some(6)),
        &mut |_, _| {},
    );
    let example = with_bos.expect("good rows").examples.remove(0);
    let expected = [vec![IM_START], ids("abc "), vec![EOS]].concat();
    assert_eq!(example.input_ids, expected);
    assert_eq!(example.parts, Parts::Words(vec![1, 4]));
    assert_eq!(example.labels.last(), Some(&IGNORE_INDEX));
}

#[test]
fn each_token_of_given_ids_is_a_word() {
    let labels = labels(&["O", "X"]);
    let row = rows(&[r#"{"input_ids":[7,8,9],"tags":["X",-100,"O"]}"#]);
    let example = run(&row, options(tagging(&labels, false), None))
        .expect("a good row")
        .examples
        .remove(0);
    assert_eq!(
        (example.input_ids, example.labels),
        (vec![7, 8, 9], vec![1, -100, 0])
    );
    assert_eq!(example.parts, Parts::Words(vec![0, 1, 2]));
}

#[test]
fn words_to_be_predicted_have_no_label() {
    let labels = labels(&["O", "X"]);
    let rows = parse_rows_for("p.jsonl", r#"{"words":["ab","c"]}"#, Task::TokenCls);
    let tokenized = run(
        &rows.expect("a good row"),
        options(tagging(&labels, true), None),
    );
    let example = tokenized.expect("a good row").examples.remove(0);
    assert_eq!(example.labels, [IGNORE_INDEX; 4]);
    assert_eq!(example.row_label, Some(RowLabel::Unknown));
}
