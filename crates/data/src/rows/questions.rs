//! Questions about texts, one a row or as SQuAD's files have them.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::columns::Columns;
use super::line::{Line, kind};
use crate::error::Result;
use crate::row::{Answer, Question, Row};

/// The most characters of a text that an error shows.
const SHOWN: usize = 60;

/// What was found beside the rows of a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Answers that stand somewhere else than their row says.
    pub(super) moved: usize,
}

impl Line<'_> {
    /// Reads a question, its context and its answers.
    pub(super) fn question(
        &self,
        object: &mut Map<String, Value>,
        columns: &Columns,
        found: &mut Found,
    ) -> Result<Row> {
        let context = self.string(object, "context")?;
        let is_labelled = columns.label.is_some();
        self.question_about(&context.into(), object, is_labelled, found)
    }

    /// Reads the paragraphs of an article of SQuAD.
    pub(super) fn article(
        &self,
        article: Map<String, Value>,
        is_labelled: bool,
        found: &mut Found,
    ) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (index, paragraph) in self
            .list(&article["paragraphs"], "paragraphs")?
            .iter()
            .enumerate()
        {
            let place = format!("paragraphs[{index}]");
            let text = paragraph.get("context").and_then(Value::as_str);
            let context: Arc<str> = text
                .ok_or_else(|| self.bad(format!("{place} needs a \"context\", a string")))?
                .into();
            let questions = paragraph.get("qas").and_then(Value::as_array);
            let questions = questions
                .ok_or_else(|| self.bad(format!("{place} needs \"qas\", a list of questions")))?;
            for (index, question) in questions.iter().enumerate() {
                let Value::Object(question) = question else {
                    return Err(self.bad(format!(
                        "{place}.qas[{index}] must be an object, found {}",
                        kind(question)
                    )));
                };
                let mut question = question.clone();
                rows.push(self.question_about(&context, &mut question, is_labelled, found)?);
            }
        }
        Ok(rows)
    }

    fn question_about(
        &self,
        context: &Arc<str>,
        object: &mut Map<String, Value>,
        is_labelled: bool,
        found: &mut Found,
    ) -> Result<Row> {
        let id = match object.get("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            Some(other) => {
                return Err(self.bad(format!("\"id\" must be a string, found {}", kind(other))));
            }
        };
        // Where all rows stand on one line, the id says which one it is.
        let bad = |reason: String| match &id {
            Some(id) => self.bad(format!("question {:?}: {reason}", shown(id))),
            None => self.bad(reason),
        };
        if context.trim().is_empty() {
            return Err(bad("\"context\" is empty".to_owned()));
        }
        let question = self.string(object, "question")?;
        if question.trim().is_empty() {
            return Err(bad("\"question\" is empty".to_owned()));
        }
        let answers = match is_labelled {
            false => None,
            true => {
                let answers = answers(object, context, found).map_err(bad)?;
                Some(answers)
            }
        };
        Ok(Row::Question(Question {
            id,
            context: Arc::clone(context),
            question,
            answers,
        }))
    }
}

/// The answers of a question, each checked against its context, or what is wrong with them.
fn answers(
    object: &Map<String, Value>,
    context: &str,
    found: &mut Found,
) -> Result<Vec<Answer>, String> {
    let is_impossible = match object.get("is_impossible") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_impossible)) => *is_impossible,
        Some(other) => {
            return Err(format!(
                "\"is_impossible\" must be true or false, found {}",
                kind(other)
            ));
        }
    };
    let pairs: Vec<(&Value, &Value)> = match object.get("answers") {
        None if is_impossible => Vec::new(),
        Some(Value::Array(list)) => {
            let mut pairs = Vec::with_capacity(list.len());
            for (index, answer) in list.iter().enumerate() {
                let (Some(text), Some(start)) = (answer.get("text"), answer.get("answer_start"))
                else {
                    return Err(format!(
                        "answers[{index}] needs \"text\" and \"answer_start\""
                    ));
                };
                pairs.push((text, start));
            }
            pairs
        }
        Some(Value::Object(lists)) => {
            let list = |key: &str| {
                let list = lists.get(key).and_then(Value::as_array);
                list.ok_or_else(|| format!("\"answers\" needs \"{key}\", a list"))
            };
            let (texts, starts) = (list("text")?, list("answer_start")?);
            if texts.len() != starts.len() {
                return Err(format!(
                    "\"answers\" has {} texts and {} starts",
                    texts.len(),
                    starts.len()
                ));
            }
            texts.iter().zip(starts).collect()
        }
        other => {
            return Err(format!(
                "\"answers\" must be lists of texts and of starts, found {}",
                other.map_or("nothing", kind)
            ));
        }
    };
    if is_impossible && !pairs.is_empty() {
        return Err("\"is_impossible\" is true, and there are answers".to_owned());
    }
    let mut place = |(index, (text, start)): (usize, (&Value, &Value))| {
        let text = text.as_str().ok_or_else(|| {
            format!(
                "the text of answer {index} must be a string, found {}",
                kind(text)
            )
        })?;
        let start = start.as_i64().ok_or_else(|| {
            format!(
                "the answer_start of answer {index} must be a whole number, found {}",
                kind(start)
            )
        })?;
        let answer = placed(context, text, start)
            .map_err(|reason| format!("answer {index}, {:?}, {reason}", shown(text)))?;
        found.moved += usize::from(i64::try_from(answer.start) != Ok(start));
        Ok(answer)
    };
    pairs.into_iter().enumerate().map(&mut place).collect()
}

/// An answer where it stands in its context, or why it does not: at its start, or, if that is wrong and its text is
/// there once only, where that is. White space around it is not a part of it.
fn placed(context: &str, text: &str, start: i64) -> Result<Answer, String> {
    let answer = text.trim();
    if answer.is_empty() {
        return Err("is empty; a question without an answer has an empty list".to_owned());
    }
    let at = |start: usize| Answer {
        text: answer.to_owned(),
        start,
    };
    let begins = usize::try_from(start).ok();
    let rest = begins.and_then(|begins| {
        let mut places = context.char_indices().map(|(byte, _)| byte);
        Some((begins, &context[places.nth(begins)?..]))
    });
    if let Some((begins, rest)) = rest {
        let before = text.len() - text.trim_start().len();
        if rest.starts_with(text) {
            return Ok(at(begins + text[..before].chars().count()));
        }
        if rest.starts_with(answer) {
            return Ok(at(begins));
        }
    }
    let mut places = context.match_indices(answer).map(|(byte, _)| byte);
    match (places.next(), places.next()) {
        (Some(byte), None) => Ok(at(context[..byte].chars().count())),
        (None, _) => Err("does not stand in the context".to_owned()),
        (Some(_), Some(_)) => Err(format!(
            "does not stand at character {start} of the context, where {}, and stands at several others; \
             answer_start counts Unicode characters from 0",
            match rest {
                Some((_, rest)) => format!("{:?} is", shown_first(rest, answer.chars().count())),
                None => "nothing is".to_owned(),
            }
        )),
    }
}

fn shown(text: &str) -> String {
    shown_first(text, usize::MAX)
}

/// The first characters of a text, so many or [`SHOWN`].
fn shown_first(text: &str, most: usize) -> String {
    text.chars().take(most.min(SHOWN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Rows, parse_rows, parse_rows_for};
    use crate::task::Task;

    fn questions(rows: &Rows) -> Vec<&Question> {
        let question = |(_, row): &'_ (usize, Row)| row.question().is_some();
        assert!(rows.rows().iter().all(question));
        let rows = rows.rows().iter();
        rows.filter_map(|(_, row)| row.question()).collect()
    }

    fn row(context: &str, rest: &str) -> String {
        format!(r#"{{"context":{context:?},"question":"q?",{rest}}}"#)
    }

    fn answers_of(rest: &str) -> Vec<(String, usize)> {
        let rows = parse_rows("qa.jsonl", &row("日本 is 🦀 Paris.", rest)).expect("a good row");
        let answers = questions(&rows)[0].answers.clone().expect("a labelled row");
        answers
            .into_iter()
            .map(|answer| (answer.text, answer.start))
            .collect()
    }

    fn message_of(text: &str) -> String {
        let error = parse_rows("qa.jsonl", text).expect_err("a bad row");
        error.to_string()
    }

    #[test]
    fn answers_are_counted_in_characters_in_either_spelling() {
        let expected = [("🦀".to_owned(), 6), ("Paris".to_owned(), 8)];
        for rest in [
            r#""answers":{"text":["🦀","Paris"],"answer_start":[6,8]}"#,
            r#""answers":[{"text":"🦀","answer_start":6},{"answer_start":8,"text":"Paris"}]"#,
            r#""id":"x","title":"t","is_impossible":false,"answers":{"text":["🦀","Paris"],"answer_start":[6,8]}"#,
        ] {
            assert_eq!(answers_of(rest), expected, "{rest}");
        }
        for rest in [
            r#""answers":{"text":[],"answer_start":[]}"#,
            r#""answers":[]"#,
            r#""answers":[],"is_impossible":true"#,
        ] {
            assert_eq!(answers_of(rest), [], "{rest}");
        }
    }

    #[test]
    fn white_space_is_no_part_of_an_answer() {
        for (text, start) in [(" Paris", 7), (" Paris", 8), ("Paris ", 8), ("Paris\\n", 8)] {
            let rest = format!(r#""answers":[{{"text":"{text}","answer_start":{start}}}]"#);
            assert_eq!(answers_of(&rest), [("Paris".to_owned(), 8)], "{rest}");
        }
    }

    #[test]
    fn a_wrong_start_is_mended_where_the_answer_stands_once_and_said() {
        // The bytes of UTF-8, and one too many.
        for start in [15, 9, -1, 999] {
            let text = row(
                "日本 is 🦀 Paris.",
                &format!(r#""answers":[{{"text":"Paris","answer_start":{start}}}]"#),
            );
            let rows = parse_rows("qa.jsonl", &text).expect("a good row");
            let answer = &questions(&rows)[0].answers.as_ref().expect("labelled")[0];
            assert_eq!(answer.start, 8);
            assert_eq!(
                rows.notes(),
                [
                    "qa.jsonl: 1 answer does not begin where answer_start says and was found at another place"
                ]
            );
        }
        let message = message_of(&row(
            "a b a b",
            r#""answers":[{"text":"a","answer_start":2}]"#,
        ));
        assert!(
            message.starts_with(r#"qa.jsonl:1: answer 0, "a", does not stand at character 2 of the context, where "b" is"#),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_with_a_question_is_named_with_its_id() {
        for (rest, expected) in [
            (
                r#""answers":[{"text":"Rome","answer_start":0}]"#,
                r#"answer 0, "Rome", does not stand in the context"#,
            ),
            (
                r#""id":"x7","answers":[{"text":"Rome","answer_start":0}]"#,
                r#"question "x7": answer 0"#,
            ),
            (
                r#""answers":[{"text":"","answer_start":0}]"#,
                "is empty; a question without",
            ),
            (
                r#""answers":[{"text":"a"}]"#,
                r#"answers[0] needs "text" and "answer_start""#,
            ),
            (
                r#""answers":{"text":["a"],"answer_start":[]}"#,
                r#""answers" has 1 texts and 0 starts"#,
            ),
            (
                r#""answers":{"text":["a"]}"#,
                r#""answers" needs "answer_start", a list"#,
            ),
            (r#""answers":["a"]"#, "answers[0] needs"),
            (r#""answers":"a""#, r#""answers" must be lists"#),
            (r#""answers":null"#, "found null"),
            (
                r#""answers":[{"text":3,"answer_start":0}]"#,
                "must be a string, found a number",
            ),
            (
                r#""answers":[{"text":"a","answer_start":0.5}]"#,
                "must be a whole number, found a fraction",
            ),
            (
                r#""is_impossible":true,"answers":[{"text":"a","answer_start":0}]"#,
                "is_impossible\" is true, and there are answers",
            ),
            (r#""is_impossible":3,"answers":[]"#, "must be true or false"),
            (r#""id":[],"answers":[]"#, "\"id\" must be a string"),
        ] {
            let message = message_of(&format!("\n{}", row("a cat", rest)));
            assert!(message.starts_with("qa.jsonl:2: "), "{message}");
            assert!(message.contains(expected), "{message}");
        }
        let message = message_of(&row(" ", r#""answers":[]"#));
        assert!(message.contains(r#""context" is empty"#), "{message}");
        let message = message_of(r#"{"context":"a","question":"","answers":[]}"#);
        assert!(message.contains(r#""question" is empty"#), "{message}");
    }

    const SQUAD: &str = r#"{"version": "v2.0", "data": [
{"title": "A", "paragraphs": [{"context": "a cat sat", "qas": [
  {"id": "1", "question": "who?", "answers": [{"text": "a cat", "answer_start": 0}], "is_impossible": false},
  {"id": "2", "question": "why?", "answers": [], "is_impossible": true, "plausible_answers": [{"text": "sat", "answer_start": 6}]}]}]},
{"title": "B", "paragraphs": [{"context": "b", "qas": [
  {"id": "3", "question": "what?", "answers": [{"text": "b", "answer_start": 0}]}]}]}]}"#;

    #[test]
    fn a_squad_file_is_its_questions() {
        let on_one_line = SQUAD.replace('\n', " ");
        for (text, lines) in [(SQUAD, [2, 2, 5]), (&on_one_line, [1, 2, 3])] {
            let rows = parse_rows("dev-v2.0.json", text).expect("good rows");
            assert_eq!(rows.task(), Task::Qa);
            let numbers: Vec<usize> = rows.rows().iter().map(|(line, _)| *line).collect();
            assert_eq!(numbers, lines);
            let ids: Vec<_> = questions(&rows).iter().map(|q| q.id.clone()).collect();
            assert_eq!(ids, ["1", "2", "3"].map(|id| Some(id.to_owned())));
            assert_eq!(questions(&rows)[1].answers, Some(Vec::new()));
            assert!(rows.notes().is_empty(), "{:?}", rows.notes());
        }
        // Without answers, as the file of a hidden test set.
        let hidden = r#"{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 9, "question": "q"}]}]}]}"#;
        let rows = parse_rows_for("test.json", hidden, Task::Qa).expect("good rows");
        assert_eq!(questions(&rows)[0].answers, None);
        assert_eq!(questions(&rows)[0].id.as_deref(), Some("9"));
        let error = parse_rows_for("test.json", hidden, Task::SeqCls).expect_err("another task");
        assert!(
            error
                .to_string()
                .contains("is for the task qa, and the task is seq-cls"),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_squad_file_has_its_line() {
        for (from, to, expected) in [
            (
                r#""context": "b", "#,
                "",
                r#"dev.json:5: paragraphs[0] needs a "context""#,
            ),
            (
                r#""qas": [
  {"id": "3""#,
                r#""qa": [
  {"id": "3""#,
                r#"dev.json:5: paragraphs[0] needs "qas""#,
            ),
            (
                r#""text": "b""#,
                r#""text": "c""#,
                r#"dev.json:5: question "3": answer 0, "c", does not stand"#,
            ),
            (
                r#""question": "who?", "#,
                "",
                r#"dev.json:2: "question" must be a string, found nothing"#,
            ),
        ] {
            let text = SQUAD.replace(from, to);
            assert_ne!(text, SQUAD);
            let error = parse_rows("dev.json", &text)
                .expect_err("a bad file")
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
