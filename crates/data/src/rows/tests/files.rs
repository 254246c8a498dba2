//! Kinds of files, and how they are packed.

use std::path::PathBuf;

use super::*;

fn fixture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/data");
    Path::new(folder).join(name)
}

fn rows(name: &str) -> Vec<Row> {
    let rows = read_rows(&fixture(name)).expect("good rows");
    rows.rows().iter().map(|(_, row)| row.clone()).collect()
}

/// `make_tables.py` made these from the text files, with each packing that data sets have.
#[test]
fn a_parquet_table_has_the_rows_of_the_text_that_it_was_made_from() {
    for name in [
        "ultrachat",
        "openai_tools",
        "prompt_completion",
        "question_answer",
        "tokenized",
    ] {
        let text = rows(&format!("{name}.jsonl"));
        assert_eq!(rows(&format!("{name}.parquet")), text, "{name}");
    }
}

#[test]
fn a_packed_file_has_the_rows_of_the_text_in_it() {
    for name in ["dolly.jsonl", "alpaca.json", "question_answer.csv"] {
        assert_eq!(rows(&format!("{name}.gz")), rows(name), "{name}");
    }
    // The bytes say what a file is, whatever it is called.
    let bytes = std::fs::read(fixture("dolly.jsonl.gz")).expect("a fixture");
    let read = RowReader::default()
        .parse("dolly", &bytes)
        .expect("good rows");
    assert_eq!(read.rows().len(), 2);
}

#[test]
fn damaged_and_unknown_files_are_refused_by_name() {
    let packed = std::fs::read(fixture("dolly.jsonl.gz")).expect("a fixture");
    let table = std::fs::read(fixture("ultrachat.parquet")).expect("a fixture");
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 20].to_vec();
    let mut no_pages = table.clone();
    no_pages[4..200].fill(0xff);
    for (bytes, expected) in [
        (cut(&packed), "a.b: it is packed with gzip and damaged"),
        (cut(&table), "a.b: this Parquet file cannot be read"),
        (no_pages, "a.b: this Parquet file cannot be read"),
        (b"PAR1".to_vec(), "a.b: this Parquet file cannot be read"),
        (b"PK\x03\x04rest".to_vec(), "a.b: it is a zip archive"),
        (
            b"\x28\xb5\x2f\xfdrest".to_vec(),
            "a.b: it is packed with zstd",
        ),
        (b"ARROW1".to_vec(), "a.b: it is an Arrow file"),
    ] {
        let error = RowReader::default().parse("a.b", &bytes);
        let message = error.expect_err("a bad file").to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn the_id_of_a_data_set_is_no_path() {
    let message = |path: &str| {
        let error = read_rows(Path::new(path)).expect_err("there is no such file");
        error.to_string()
    };
    assert!(message("nobody-has/such_a-set").contains("Data are local files"));
    assert!(message("nobody-has/such_a-set").contains("hf download nobody-has/such_a-set"));
    for path in [
        "nobody-has/such.jsonl",
        "/nobody-has/such",
        "a/b/c",
        "nobody-has",
    ] {
        assert!(message(path).contains("cannot be read"), "{path}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    assert!(message(&path).contains("it is a folder"));
}

/// More rows than are read at a time, with one thing wrong.
#[test]
fn rows_keep_their_order_and_the_first_error_is_the_one_that_is_told() {
    let row =
        |index: usize| format!("{{\"prompt\":\"{index}\",\"completion\":\"b\",\"id\":{index}}}\n");
    let mut lines: Vec<String> = (0..10_000).map(row).collect();
    let read = parse_rows("rows.jsonl", &lines.concat()).expect("good rows");
    for (index, (line, row)) in read.rows().iter().enumerate() {
        let (prompt, _) = row.prompt_and_answer().expect("a prompt");
        assert_eq!(
            (*line, prompt.as_ref()),
            (index + 1, index.to_string().as_str())
        );
    }
    assert_eq!(
        read.notes(),
        ["rows.jsonl: key \"id\" in 10000 rows is not used"]
    );
    lines[9_000] = "{\"prompt\":1}\n".to_owned();
    lines[5_000] = "{\"prompt\":\"a\"}\n".to_owned();
    let message = message_of(&lines.concat());
    assert!(
        message.starts_with("train.jsonl:5001: no \"completion\""),
        "{message}"
    );
}
