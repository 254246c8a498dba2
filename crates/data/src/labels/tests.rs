//! Classes and what rows say in their terms.

use super::*;
use crate::rows::parse_rows;

fn rows(lines: &[&str]) -> Rows {
    parse_rows("train.jsonl", &lines.join("\n")).expect("good rows")
}

/// Rows with these labels, in JSON.
fn labelled(labels: &[&str]) -> Rows {
    let line = |label: &&str| format!(r#"{{"text":"a","label":{label}}}"#);
    let lines: Vec<String> = labels.iter().map(line).collect();
    parse_rows("train.jsonl", &lines.join("\n")).expect("good rows")
}

fn tagged(tags: &[&str]) -> Rows {
    let line = |tags: &&str| format!(r#"{{"tokens":["a","b"],"tags":{tags}}}"#);
    let lines: Vec<String> = tags.iter().map(line).collect();
    parse_rows("train.jsonl", &lines.join("\n")).expect("good rows")
}

fn of(rows: &Rows) -> Labels {
    Labels::of(rows).expect("good labels")
}

fn golds(labels: &Labels, rows: &Rows) -> Vec<RowLabel> {
    let gold = |(_, row): &(usize, Row)| labels.gold(row).expect("a known label");
    rows.rows().iter().map(gold).collect()
}

#[test]
fn names_are_sorted_by_code_point_and_there_once() {
    let rows = labelled(&[r#""b""#, r#""a""#, r#""差评""#, r#""B""#, r#""a""#]);
    let labels = of(&rows);
    assert_eq!(labels.names, ["B", "a", "b", "差评"]);
    assert_eq!(labels.problem_type, ProblemType::SingleLabel);
    assert_eq!(golds(&labels, &rows), [2, 1, 3, 0, 1].map(RowLabel::Class));
}

#[test]
fn numbers_of_classes_make_as_many_as_the_largest_says() {
    let rows = labelled(&["3", "0"]);
    let labels = of(&rows);
    assert_eq!(labels.names, ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]);
    assert_eq!(
        golds(&labels, &rows),
        [RowLabel::Class(3), RowLabel::Class(0)]
    );
}

#[test]
fn lists_give_several_classes_a_row() {
    let rows = labelled(&[r#"["b","c"]"#, "[]", r#""a""#]);
    let labels = of(&rows);
    assert_eq!(labels.problem_type, ProblemType::MultiLabel);
    assert_eq!(
        golds(&labels, &rows),
        [
            RowLabel::Classes(vec![false, true, true]),
            RowLabel::Classes(vec![false; 3]),
            RowLabel::Classes(vec![true, false, false]),
        ]
    );
    assert_eq!(of(&labelled(&["[2]", "[0]"])).len(), 3);
}

#[test]
fn a_single_fraction_makes_all_labels_numbers() {
    let rows = labelled(&["1", "-2", "0.5"]);
    let labels = of(&rows);
    assert_eq!(
        (labels.problem_type, labels.len()),
        (ProblemType::Regression, 1)
    );
    let values = [1.0, -2.0, 0.5].map(|value| RowLabel::Values(vec![value]));
    assert_eq!(golds(&labels, &rows), values);
    let rows = labelled(&["[1, 2]", "[0.5, 3]"]);
    let labels = of(&rows);
    assert_eq!(
        (labels.problem_type, labels.len()),
        (ProblemType::Regression, 2)
    );
    assert_eq!(golds(&labels, &rows)[0], RowLabel::Values(vec![1.0, 2.0]));
    // Whole numbers of other rows are numbers here, too.
    assert_eq!(
        golds(&of(&labelled(&["0.5"])), &labelled(&["4"])),
        [RowLabel::Values(vec![4.0])]
    );
}

#[test]
fn tags_are_sorted_like_names_and_numbers_of_tags_count() {
    let rows = tagged(&[r#"["O","I-B"]"#, r#"["B-A","O"]"#]);
    let labels = of(&rows);
    assert_eq!(labels.names, ["B-A", "I-B", "O"]);
    let gold = labels.gold_tags(&rows.rows()[0].1);
    assert_eq!(gold, Ok(Some(vec![2, 1])));
    assert_eq!(of(&tagged(&["[0,2]"])).len(), 3);
    // A number is an index where names are known.
    let numbers = tagged(&["[2,0]"]);
    assert_eq!(labels.gold_tags(&numbers.rows()[0].1), Ok(Some(vec![2, 0])));
    assert!(labels.check(&numbers).is_ok());
}

#[test]
fn tokens_without_a_tag_have_the_ignored_index() {
    let rows = rows(&[r#"{"input_ids":[5,6,7],"tags":[-100,1,0]}"#]);
    let labels = of(&rows);
    assert_eq!(labels.len(), 2);
    let gold = labels.gold_tags(&rows.rows()[0].1);
    assert_eq!(gold, Ok(Some(vec![IGNORE_INDEX, 1, 0])));
}

#[test]
fn a_label_of_other_rows_that_is_no_class_is_refused_with_the_nearest() {
    let labels = of(&labelled(&[r#""positive""#, r#""negative""#]));
    for (label, expected) in [
        (
            r#""postive""#,
            r#"the label "postive" is none of the 2 classes; did you mean "positive"?"#,
        ),
        (
            r#""neutral""#,
            r#"the label "neutral" is none of the 2 classes"#,
        ),
        (
            "2",
            "the label 2 is the number of no class; there are 2, from 0",
        ),
        ("-1", "the label -1 is the number of no class"),
        ("0.5", "the label 0.5 is a fraction"),
        (
            r#"["positive","negative"]"#,
            "the label is a list of 2, and here a row has one class",
        ),
    ] {
        let other = labelled(&[r#""negative""#, label]);
        let error = labels.check(&other).expect_err(label).to_string();
        let expected = format!("train.jsonl:2: {expected}");
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(error.contains("did you mean"), label == r#""postive""#);
    }
    assert!(labels.check(&labelled(&["1"])).is_ok());
    let tags = of(&tagged(&[r#"["O","B-PER"]"#]));
    let error = tags
        .check(&tagged(&[r#"["O","B-per"]"#]))
        .expect_err("no class");
    assert!(
        error.to_string().contains(r#"did you mean "B-PER"?"#),
        "{error}"
    );
}

#[test]
fn labels_that_make_no_classes_are_refused() {
    for (labels, expected) in [
        (
            &["0.5", r#""a""#][..],
            "train.jsonl:2: the label is a name, and that of line 1 is a fraction",
        ),
        (
            &["[0.5,1]", "2"],
            "train.jsonl:2: the label has 1 number, and there are 2 outputs",
        ),
        (&["0", "-1"], "train.jsonl:2: the label -1 is no class"),
        (
            &["0", "65536"],
            "train.jsonl:2: the label 65536 is above 65535",
        ),
        (
            &[r#""a""#, r#""b""#, "2"],
            "train.jsonl:3: the label 2 is a number, and that of line 1 is the name \"a\"",
        ),
        (
            &[r#""a""#, r#""a""#],
            r#"train.jsonl: every row has the class "a""#,
        ),
        (&["0"], r#"train.jsonl: every row has the class "LABEL_0""#),
        (
            &[r#""x""#, "0"],
            "train.jsonl:2: the label 0 is a number, and that of line 1 is the name \"x\"",
        ),
        (
            &["[0,1,0]", "[2]"],
            "train.jsonl:1: the class \"LABEL_0\" is there twice",
        ),
        (&["[]"], "train.jsonl: no row has a label"),
    ] {
        let error = Labels::of(&labelled(labels)).expect_err("no classes");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let texts = rows(&[r#"{"text":"a"}"#]);
    let error = Labels::of(&texts).expect_err("no classes").to_string();
    assert_eq!(error, "train.jsonl: these rows have no classes");
}

#[test]
fn a_number_is_the_class_of_that_name_before_it_is_an_index() {
    let stars = labelled(&[r#""1""#, r#""2""#, r#""3""#]);
    let labels = of(&stars);
    let numbers = labelled(&["1", "3"]);
    assert_eq!(golds(&labels, &numbers), [0, 2].map(RowLabel::Class));
    let error = labels.check(&labelled(&["0"])).expect_err("no name");
    assert_eq!(
        error.to_string(),
        "train.jsonl:1: the label 0 is none of the 3 classes, whose names are numbers"
    );
    // Names that are the indices of no class leave these to be indices.
    let tens = of(&labelled(&[r#""10""#, r#""20""#]));
    assert_eq!(
        golds(&tens, &labelled(&["20", "0"])),
        [1, 0].map(RowLabel::Class)
    );
    let tags = of(&tagged(&[r#"["1","2"]"#]));
    let gold = tags.gold_tags(&tagged(&["[1,2]"]).rows()[0].1);
    assert_eq!(gold, Ok(Some(vec![0, 1])));
}

#[test]
fn a_number_beside_names_in_digits_is_such_a_name() {
    let rows = labelled(&[r#""1""#, "1", "3", r#""-2""#, "-2"]);
    let labels = of(&rows);
    assert_eq!(labels.names, ["-2", "1", "3"]);
    assert_eq!(golds(&labels, &rows), [1, 1, 2, 0, 0].map(RowLabel::Class));
    assert_eq!(of(&tagged(&[r#"["1",2]"#])).names, ["1", "2"]);
    // "01" is a name and no number.
    let error = Labels::of(&labelled(&[r#""01""#, "1"])).expect_err("a mix");
    assert!(error.to_string().contains("is the name \"01\""), "{error}");
}

#[test]
fn labels_are_read_as_the_type_that_is_asked_for() {
    let rows = labelled(&["5", "-1", "2.5", "0"]);
    let labels = Labels::of_type(&rows, Some(ProblemType::Regression)).expect("numbers");
    assert_eq!(labels, Labels::numbered(1, ProblemType::Regression));
    let values = [5.0, -1.0, 2.5, 0.0].map(|value| RowLabel::Values(vec![value]));
    assert_eq!(golds(&labels, &rows), values);
    let whole = labelled(&["5", "1"]);
    let labels = Labels::of_type(&whole, Some(ProblemType::Regression)).expect("numbers");
    assert_eq!(labels.len(), 1);
    let pairs = labelled(&["[5,1]", "[0,7]"]);
    let labels = Labels::of_type(&pairs, Some(ProblemType::Regression)).expect("numbers");
    assert_eq!(golds(&labels, &pairs)[1], RowLabel::Values(vec![0.0, 7.0]));

    let labels = Labels::of_type(&whole, Some(ProblemType::SingleLabel)).expect("classes");
    assert_eq!(labels, Labels::numbered(6, ProblemType::SingleLabel));
    let labels = Labels::of_type(&whole, Some(ProblemType::MultiLabel)).expect("classes");
    assert_eq!(labels, Labels::numbered(6, ProblemType::MultiLabel));
    let mut classes = vec![false; 6];
    classes[5] = true;
    assert_eq!(golds(&labels, &whole)[0], RowLabel::Classes(classes));

    for (labels, asked, expected) in [
        (
            &["1", r#""a""#][..],
            ProblemType::Regression,
            "train.jsonl:2: the label is \"a\", and here labels are numbers",
        ),
        (
            &["0", "0.5"],
            ProblemType::SingleLabel,
            "train.jsonl:2: the label 0.5 is a fraction, and labels of single_label_classification are classes",
        ),
        (
            &["[0,2]", "[1]"],
            ProblemType::SingleLabel,
            "train.jsonl:1: the label is a list of 2, and here a row has one class",
        ),
        (
            &["[]"],
            ProblemType::Regression,
            "train.jsonl: no row has a label",
        ),
    ] {
        let error = Labels::of_type(&labelled(labels), Some(asked)).expect_err("another type");
        assert_eq!(error.to_string(), expected);
    }
    // Tags are classes whatever is asked for.
    let tags = Labels::of_type(&tagged(&["[0,1]"]), Some(ProblemType::Regression));
    assert_eq!(tags.expect("tags").problem_type, ProblemType::SingleLabel);
}

#[test]
fn flags_say_of_each_class_whether_a_row_has_it() {
    let flags = |values: &[bool]| RowLabel::Classes(values.to_vec());
    for asked in [None, Some(ProblemType::MultiLabel)] {
        for labels in [["[1,0,0]", "[0,1,1]"], ["[1.0,0.0,0.0]", "[0,1.0,1.0]"]] {
            let rows = labelled(&labels);
            let labels = Labels::of_type(&rows, asked).expect("flags");
            assert_eq!(labels, Labels::numbered(3, ProblemType::MultiLabel));
            assert_eq!(
                golds(&labels, &rows),
                [flags(&[true, false, false]), flags(&[false, true, true])]
            );
        }
    }
    // Of other names, in their order.
    let mut named = of(&labelled(&[r#"["b"]"#, r#"["a"]"#]));
    assert_eq!(
        golds(&named, &labelled(&["[0,1]"])),
        [flags(&[false, true])]
    );
    // Lists of several lengths are numbers of classes, also where they look like flags.
    let numbers = labelled(&["[0,1]", "[0]", "[1]"]);
    assert_eq!(golds(&of(&numbers), &numbers)[0], flags(&[true, true]));
    // So are two values for more classes than two.
    named.names.push("c".to_owned());
    assert_eq!(
        golds(&named, &labelled(&["[0,1]"])),
        [flags(&[true, true, false])]
    );
    let error = named
        .check(&labelled(&["[0,0,1,0]"]))
        .expect_err("no class has the last flag");
    assert!(
        error
            .to_string()
            .starts_with("train.jsonl:1: the label has 4 flags, and there are 3 classes"),
        "{error}"
    );
    // Of a regression they are numbers, and one class has no list.
    let rows = labelled(&["[0,1]", "[1,1]"]);
    let numbers = Labels::of_type(&rows, Some(ProblemType::Regression)).expect("numbers");
    assert_eq!(golds(&numbers, &rows)[0], RowLabel::Values(vec![0.0, 1.0]));
    let error = Labels::of_type(&rows, Some(ProblemType::SingleLabel)).expect_err("lists");
    assert!(
        error.to_string().contains("here a row has one class"),
        "{error}"
    );
}
