//! Questions about texts, one a row or as SQuAD's files have them.

#[cfg(test)]
mod tests;

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
    pub(super) fn questions(
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
        let (answer, is_moved) = placed(context, text, start)
            .map_err(|reason| format!("answer {index}, {:?}, {reason}", shown(text)))?;
        found.moved += usize::from(is_moved);
        Ok(answer)
    };
    pairs.into_iter().enumerate().map(&mut place).collect()
}

/// An answer where it stands in its context, or why it does not: at its start, or, if that is wrong and its text is
/// there once only, where that is. White space around it is not a part of it. Also, whether it stands somewhere else.
fn placed(context: &str, text: &str, start: i64) -> Result<(Answer, bool), String> {
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
        if rest.starts_with(answer) {
            return Ok((at(begins), false));
        }
        // The start may be that of the white space in front of the answer.
        let trimmed = rest.trim_start();
        if text.starts_with(char::is_whitespace) && trimmed.starts_with(answer) {
            let before = &rest[..rest.len() - trimmed.len()];
            return Ok((at(begins + before.chars().count()), false));
        }
    }
    let mut places = context.match_indices(answer).map(|(byte, _)| byte);
    match (places.next(), places.next()) {
        (Some(byte), None) => Ok((at(context[..byte].chars().count()), true)),
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
