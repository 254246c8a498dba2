//! Files with a word and its tag on each line, as those of the CoNLL tasks.

use std::collections::HashSet;
use std::path::Path;

use super::columns::Purpose;
use super::line::Line;
use crate::error::{Error, Result};
use crate::row::{LabelValue, Row, RowFormat};
use crate::task::Task;

/// Ends of names of such files.
const EXTENSIONS: [&str; 9] = [
    "conll", "bio", "iob", "iob2", "iobes", "bioes", "bmes", "tsv", "ner",
];

/// Begins a document. The line says nothing else.
const DOCUMENT: &str = "-DOCSTART-";

/// The most parts of a word between which there are spaces. The tables of GLUE have texts in their columns.
const MOST_PARTS: usize = 4;

/// Whether a file has words and tags in columns: by its name, or, unless the name says that it is JSON, by its first
/// sentence, each line of which ends in `O` or in a tag such as `B-PER`.
pub(super) fn is_conll(path: &str, text: &str, purpose: Purpose) -> bool {
    let extension = Path::new(path).extension().unwrap_or_default();
    let extension = extension.to_string_lossy().to_lowercase();
    if EXTENSIONS.contains(&extension.as_str()) {
        return true;
    }
    if extension.starts_with("json") || text.trim_start().starts_with(['{', '[']) {
        return false;
    }
    let Some(layout) = Layout::of(text) else {
        return false;
    };
    let lines = text.lines().skip_while(|line| layout.says_nothing(line));
    let sentence = lines.take_while(|line| !line.trim().is_empty());
    let mut words = sentence.map(|line| layout.cells(line)).peekable();
    let is_unlabelled = purpose == Purpose::Predicting(Task::TokenCls);
    words.peek().is_some()
        && words.all(|cells| match cells[..] {
            [_] => is_unlabelled,
            [_, .., tag] => cells.len() == layout.columns && is_tag(tag),
            [] => false,
        })
}

/// Reads the sentences of a file, each with the number of its first line. The first column has the words, the last
/// their tags; what is between them is not read. Blank lines end a sentence.
pub(super) fn parse(path: &str, text: &str, purpose: Purpose) -> Result<Vec<(usize, Row)>> {
    let Some(layout) = Layout::of(text) else {
        return Ok(Vec::new());
    };
    let is_labelled = match purpose {
        Purpose::Learning => true,
        Purpose::Predicting(Task::TokenCls) => false,
        Purpose::Predicting(task) => {
            return Err(Error::OtherTask {
                path: path.to_owned(),
                line: layout.first,
                format: "a word and its tag".to_owned(),
                found: RowFormat::Tagging.task(),
                task,
            });
        }
    };
    let mut rows = Vec::new();
    let (mut words, mut tags, mut begin) = (Vec::new(), Vec::new(), 0);
    // A blank line behind the last one ends the last sentence.
    for (index, text) in text.split('\n').chain([""]).enumerate() {
        let number = index + 1;
        if layout.says_nothing(text) {
            let is_comment = !text.trim().is_empty() && !text.starts_with(DOCUMENT);
            if !is_comment && !words.is_empty() {
                let (words, tags) = (std::mem::take(&mut words), std::mem::take(&mut tags));
                let tags = is_labelled.then_some(tags);
                rows.push((begin, Row::Tagging { words, tags }));
            }
            continue;
        }
        let line = Line { path, number };
        let cells = layout.cells(text);
        let (columns, first) = (layout.columns, layout.first);
        if cells.len() != columns {
            return Err(line.bad(format!(
                "{} columns, and line {first} has {columns}; write a word and its tag on each line, and a blank \
                 line behind each sentence",
                cells.len()
            )));
        }
        let (word, tag) = (cells[0], cells[columns - 1]);
        if is_labelled && columns == 1 {
            return Err(line.bad(format!(
                "the word {word:?} has no tag; write its tag behind it, with a tab between them"
            )));
        }
        if word.trim().split(' ').count() > MOST_PARTS {
            return Err(line.bad(
                "a text and not a word in the first column; for texts with a label, write rows \
                 {\"text\",\"label\"} in a file of JSON"
                    .to_owned(),
            ));
        }
        if is_labelled && tag.is_empty() {
            return Err(line.bad(format!("the tag of the word {word:?} is empty")));
        }
        if words.is_empty() {
            begin = number;
        }
        words.push(word.to_owned());
        if is_labelled {
            tags.push(LabelValue::Name(tag.to_owned()));
        }
    }
    Ok(rows)
}

/// How the columns of a file stand.
struct Layout<'a> {
    /// Whether there are tabs between them, and otherwise spaces.
    has_tabs: bool,
    columns: usize,
    /// The first line with a word.
    first: usize,
    /// The tags of lines that are no comments, whatever else is one.
    tags: HashSet<&'a str>,
}

impl<'a> Layout<'a> {
    /// Finds it in the first line with a word. `None` if there is none.
    fn of(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().zip(1..);
        let is_word = |line: &str| {
            !line.trim().is_empty() && !line.starts_with(DOCUMENT) && !line.starts_with("# ")
        };
        let (line, first) = lines.find(|(line, _)| is_word(line))?;
        let mut layout = Self {
            has_tabs: line.contains('\t'),
            columns: 0,
            first,
            tags: HashSet::new(),
        };
        layout.columns = layout.cells(line).len();
        if layout.columns > 1 {
            let words = text.lines().filter(|line| is_word(line));
            let tags = words.filter_map(|line| layout.cells(line).pop());
            layout.tags = tags.collect();
        }
        Some(layout)
    }

    /// The columns of a line. A word may contain spaces where there are tabs between the columns, and it may be a wide
    /// space.
    fn cells<'l>(&self, line: &'l str) -> Vec<&'l str> {
        let line = line.trim_end_matches('\r');
        match self.has_tabs {
            true => line.split('\t').collect(),
            false => line.split(' ').filter(|cell| !cell.is_empty()).collect(),
        }
    }

    /// Whether a line has no word: it is blank, begins a document, or is a comment.
    fn says_nothing(&self, line: &str) -> bool {
        line.trim().is_empty() || line.starts_with(DOCUMENT) || self.is_comment(line)
    }

    /// Whether a line is a comment: it begins with `# `, and it is not the word `#` with its columns, the last of
    /// which is a tag.
    fn is_comment(&self, line: &str) -> bool {
        let cells = self.cells(line);
        let is_word = cells.len() == self.columns
            && cells
                .last()
                .is_some_and(|tag| is_tag(tag) || self.tags.contains(tag));
        line.starts_with("# ") && !is_word
    }
}

/// Whether a text is a tag of a span: `O`, or a letter of its place in the span, a dash and a name.
fn is_tag(text: &str) -> bool {
    let mut characters = text.chars();
    let place = characters.next();
    text == "O"
        || place.is_some_and(|place| "BIESLUMOW".contains(place))
            && characters.next().is_some_and(|dash| "-_".contains(dash))
            && characters.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Rows, parse_rows, parse_rows_for};

    /// The line, the words and the tags of each sentence.
    fn sentences(rows: &Rows) -> Vec<(usize, String, String)> {
        let sentence = |(line, row): &(usize, Row)| {
            let tags = row.tags().unwrap_or_default().iter();
            let tags = tags.map(|tag| match tag {
                LabelValue::Name(name) => name.clone(),
                other => panic!("{other:?} is no name"),
            });
            let words = row.words().expect("a tagged row").join("|");
            (*line, words, tags.collect::<Vec<_>>().join(" "))
        };
        rows.rows().iter().map(sentence).collect()
    }

    fn read(path: &str, text: &str) -> Vec<(usize, String, String)> {
        sentences(&parse_rows(path, text).expect("good rows"))
    }

    fn owned(line: usize, words: &str, tags: &str) -> (usize, String, String) {
        (line, words.to_owned(), tags.to_owned())
    }

    fn message_of(path: &str, text: &str) -> String {
        let error = parse_rows(path, text).expect_err("these rows are bad");
        error.to_string()
    }

    #[test]
    fn a_conll_2003_file_is_read_as_it_is() {
        let text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n. . O O\n\n\
                    -DOCSTART- -X- -X- O\n\nPeter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n";
        let expected = [
            owned(3, "EU|rejects|.", "B-ORG O O"),
            owned(9, "Peter|Blackburn", "B-PER I-PER"),
        ];
        for path in ["eng.testb", "train.txt", "a.conll", "B.BIO", "x"] {
            assert_eq!(read(path, text), expected, "{path}");
        }
        assert_eq!(read("a.iob", &text.replace('\n', "\r\n")), expected);
    }

    #[test]
    fn chinese_by_character_keeps_every_character() {
        let text = "北\tB-LOC\n京\tI-LOC\n\u{3000}\tO\n \tO\n[\tO\n\n大 连\tO";
        let expected = [
            owned(1, "北|京|\u{3000}| |[", "B-LOC I-LOC O O O"),
            owned(7, "大 连", "O"),
        ];
        assert_eq!(read("msra.tsv", text), expected);
        let spaces = "北 B-LOC\n\u{3000} O\n";
        assert_eq!(read("x.bmes", spaces), [owned(1, "北|\u{3000}", "B-LOC O")]);
    }

    #[test]
    fn comments_are_passed_over_and_the_word_hash_is_not() {
        let text = "# sent_id = 1\na O\n# id two\nb O\n# O\n\n# text\n";
        assert_eq!(read("w.conll", text), [owned(2, "a|b|#", "O O O")]);
        let text = "# a b\na\tO\n# B-X\n#\tO\n# \tO\n";
        assert_eq!(read("w.conll", text), [owned(2, "a|#|# ", "O O O")]);
        // Tags of other kinds are known from other lines.
        let text = "# NN\na DT\n# text\nb NN\n";
        assert_eq!(read("w.conll", text), [owned(1, "#|a|b", "NN DT NN")]);
        let rows = parse_rows_for("w.conll", "a\n# a\n#\n", Task::TokenCls);
        assert_eq!(sentences(&rows.expect("good rows"))[0].1, "a|#");
    }

    #[test]
    fn text_that_is_no_table_of_tags_is_not_taken_for_one() {
        for text in ["Once upon a time\nthere was", "a b\nc d", "word"] {
            let message = message_of("book.txt", text);
            assert!(message.starts_with("book.txt:1: not JSON"), "{message}");
        }
        // A JSON file stays one, whatever is in it.
        let message = message_of("rows.jsonl", "a O\nb O\n");
        assert!(message.starts_with("rows.jsonl:1: not JSON"), "{message}");
        assert_eq!(read("part-of-speech.conll", "a DT\n")[0].2, "DT");
    }

    #[test]
    fn a_line_that_does_not_fit_is_named() {
        for (text, expected) in [
            ("a O\n\nb\nc O", "a.bio:3: 1 columns, and line 1 has 2"),
            ("a\tO\nb O\n", "a.bio:2: 1 columns"),
            ("a\n", r#"a.bio:1: the word "a" has no tag"#),
            (
                "a\tO\nb\t\n",
                r#"a.bio:2: the tag of the word "b" is empty"#,
            ),
            ("\n# only this\n", "a.bio: no rows"),
            (
                "sentence\tlabel\nit is not a good film\t0\n",
                "a.bio:2: a text and not a word in the first column",
            ),
        ] {
            let message = message_of("a.bio", text);
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn words_to_be_predicted_need_no_tags() {
        for (path, text) in [
            ("a.conll", "a\nb\n\nc\n"),
            ("a.txt", "a\nb\n\nc\n"),
            ("a.txt", "a O\nb B-X\n\nc O"),
        ] {
            let rows = parse_rows_for(path, text, Task::TokenCls).expect("good rows");
            assert_eq!(sentences(&rows), [owned(1, "a|b", ""), owned(4, "c", "")]);
            assert!(rows.rows().iter().all(|(_, row)| row.tags().is_none()));
        }
        let error = parse_rows_for("a.conll", "a O", Task::SeqCls).expect_err("another task");
        assert!(
            error
                .to_string()
                .contains("is for the task token-cls, and the task is seq-cls"),
            "{error}"
        );
    }
}
