//! Questions whose answers a head finds in a context, in windows where the context is long.

use std::ops::Range;

use tokenizers::Encoding;

use super::source::{Numbered, Outcome, Source};
use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, Parts, RowLabel};
use crate::row::{Answer, Question};
use crate::rows::rows_of;

/// How contexts become windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// The tokens that two neighbouring windows share.
    pub(super) doc_stride: usize,
    /// The id at the end of each window that stands for "no answer".
    pub(super) no_answer: Option<u32>,
    /// Whether windows are kept in which nothing is learned.
    pub(super) every_window: bool,
}

/// What of the answers cannot be learned.
#[derive(Debug, Default)]
pub(super) struct Unlearned {
    /// Rows without an answer where "no answer" is none.
    unanswered: usize,
    /// Rows whose answer is in no window as a whole.
    too_long: usize,
}

impl Windows {
    pub(super) fn new(
        source: &Source<'_>,
        doc_stride: usize,
        no_answer: bool,
        every_window: bool,
    ) -> Result<Self> {
        if let Some(template) = source.template {
            return Err(template.unused_for("is for texts, and these rows are questions"));
        }
        let eos = || source.tokenizer.eos_id().ok_or(Error::NoEosForNoAnswer);
        Ok(Self {
            doc_stride,
            no_answer: no_answer.then(eos).transpose()?,
            every_window,
        })
    }

    /// Makes the examples of `rows`, in order.
    pub(super) fn tokenize_chunk(
        &self,
        source: &Source<'_>,
        rows: &[Numbered],
        unlearned: &mut Unlearned,
    ) -> Result<Vec<Outcome>> {
        let question = |(line, row): &'_ Numbered| match row.question() {
            Some(question) => (*line, question.clone()),
            None => unreachable!("rows of other tasks were refused"),
        };
        let questions: Vec<(usize, Question)> = rows.iter().map(question).collect();
        // White space in front of a question is dropped, as in transformers' `run_qa.py`.
        let texts = questions.iter().map(|(line, question)| {
            let texts = [question.question.trim_start(), &*question.context];
            (*line, texts.to_vec())
        });
        let encodings = source.encode_by_character(&texts.collect::<Vec<_>>())?;
        let outcome = |((line, question), encodings): (&(usize, Question), Vec<Encoding>)| {
            self.outcome(source, *line, question, &encodings, unlearned)
        };
        questions.iter().zip(encodings).map(outcome).collect()
    }

    fn outcome(
        &self,
        source: &Source<'_>,
        line: usize,
        question: &Question,
        encodings: &[Encoding],
        unlearned: &mut Unlearned,
    ) -> Result<Outcome> {
        let [asked, context] = encodings else {
            unreachable!("a row has two texts")
        };
        source.check(line, asked.get_ids())?;
        source.check(line, context.get_ids())?;
        let characters = trimmed(&question.context, context.get_offsets());
        if characters.is_empty() {
            let reason = "the context has no token, so there is no answer in it";
            return Err(source.bad(line, reason.to_owned()));
        }
        let [before, between, after] = &source.tokenizer.specials().pair;
        let around = before.len() + asked.len() + between.len() + after.len();
        let around = around + usize::from(self.no_answer.is_some());
        let room = source.limit.saturating_sub(around);
        if room < characters.len() && room <= self.doc_stride {
            return Err(source.bad(
                line,
                format!(
                    "the question has {} tokens, which leave room for {room} of the context's {} at \
                     max_length = {}, and doc_stride = {} of these are those of the window before; raise max_length, \
                     or shorten the question",
                    asked.len(),
                    characters.len(),
                    source.limit,
                    self.doc_stride,
                ),
            ));
        }
        // The first of several right answers is learned, as in `run_qa.py`.
        let answers = question.answers.as_deref();
        let answer = answers.map(|answers| answers.first().map(|answer| span(answer, &characters)));
        let front = [before, asked.get_ids(), between].concat();
        let mut examples = Vec::new();
        for window in windows(characters.len(), room, self.doc_stride) {
            let tokens = front.len()..front.len() + window.len();
            let behind = after.iter().chain(&self.no_answer);
            let mut input_ids = front.clone();
            input_ids.extend(&context.get_ids()[window.clone()]);
            input_ids.extend(behind);
            let no_answer = self.no_answer.map(|_| input_ids.len() - 1);
            let found = |answer: &Range<usize>| {
                let is_inside = window.start <= answer.start && answer.end <= window.end;
                is_inside.then(|| RowLabel::Span {
                    start: front.len() + answer.start - window.start,
                    end: front.len() + answer.end - 1 - window.start,
                })
            };
            let none = no_answer.map(|token| RowLabel::Span {
                start: token,
                end: token,
            });
            let row_label = match &answer {
                None => RowLabel::Unknown,
                Some(answer) => match answer.as_ref().and_then(found).or(none) {
                    Some(label) => label,
                    None if self.every_window => RowLabel::Unknown,
                    None => continue,
                },
            };
            examples.push(Example {
                labels: vec![IGNORE_INDEX; input_ids.len()],
                input_ids,
                row_label: Some(row_label),
                placement: None,
                parts: Parts::Context {
                    tokens,
                    characters: characters[window].to_vec(),
                    no_answer,
                },
                row: 0,
                line,
            });
        }
        match &answer {
            Some(None) if self.no_answer.is_none() => unlearned.unanswered += 1,
            Some(Some(answer)) => {
                let mut all = windows(characters.len(), room, self.doc_stride);
                let is_whole =
                    |window: Range<usize>| window.start <= answer.start && answer.end <= window.end;
                unlearned.too_long += usize::from(!all.any(is_whole));
            }
            _ => {}
        }
        Ok(Outcome {
            examples,
            too_long: None,
        })
    }
}

impl Unlearned {
    /// A sentence for each reason.
    pub(super) fn notes(&self, path: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unanswered > 0 {
            notes.push(format!(
                "{path}: {} without an answer: nothing is learned of that where \"no answer\" is no choice",
                rows_of(self.unanswered)
            ));
        }
        if self.too_long > 0 {
            notes.push(format!(
                "{path}: in {} the answer is in no window as a whole: raise max_length or doc_stride",
                rows_of(self.too_long)
            ));
        }
        notes
    }
}

/// The windows of a context of `length` tokens: each of `room` tokens but the last, and each begins `doc_stride` tokens
/// in front of the end of the one before, as in transformers.
fn windows(length: usize, room: usize, doc_stride: usize) -> impl Iterator<Item = Range<usize>> {
    let step = room.saturating_sub(doc_stride).max(1);
    let mut next = Some(0_usize);
    std::iter::from_fn(move || {
        let start = next?;
        let end = start.saturating_add(room).min(length);
        next = (end < length).then_some(start + step);
        Some(start..end)
    })
}

/// The characters of the context that tokens cover, without white space around them, so that an answer of whole tokens
/// has none.
fn trimmed(context: &str, offsets: &[(usize, usize)]) -> Vec<Range<usize>> {
    let is_space: Vec<bool> = context.chars().map(char::is_whitespace).collect();
    let trimmed = |&(start, end): &(usize, usize)| {
        let covered = &is_space[start.min(is_space.len())..end.min(is_space.len())];
        match covered.iter().position(|space| !space) {
            // White space alone.
            None => end..end,
            Some(first) => {
                let behind = covered.iter().rev().take_while(|space| **space).count();
                start + first..end - behind
            }
        }
    };
    offsets.iter().map(trimmed).collect()
}

/// The tokens that cover an answer: from the first that goes beyond its beginning to the last that begins in it. Where a
/// character is several tokens, all of them are in.
fn span(answer: &Answer, characters: &[Range<usize>]) -> Range<usize> {
    let answered = answer.start..answer.start + answer.text.chars().count();
    let first = characters
        .iter()
        .position(|token| token.end > answered.start);
    let first = first.unwrap_or(characters.len() - 1);
    let begins_inside = |token: &Range<usize>| token.start < answered.end;
    let last = characters.iter().rposition(begins_inside).unwrap_or(first);
    first..last.max(first) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_by_the_stride_and_end_with_the_context() {
        let of = |length, room, stride| windows(length, room, stride).collect::<Vec<_>>();
        assert_eq!(of(10, 4, 1), [0..4, 3..7, 6..10]);
        assert_eq!(of(11, 4, 1), [0..4, 3..7, 6..10, 9..11]);
        assert_eq!(of(10, 4, 0), [0..4, 4..8, 8..10]);
        assert_eq!(of(4, 4, 3), vec![Range { start: 0, end: 4 }]);
        assert_eq!(of(5, 4, 3), [0..4, 1..5]);
        assert_eq!(of(5, usize::MAX, 3), vec![Range { start: 0, end: 5 }]);
    }

    #[test]
    fn a_span_takes_all_tokens_of_its_characters() {
        let answer = |start: usize, text: &str| Answer {
            text: text.to_owned(),
            start,
        };
        // "a", " cat", then a character of three tokens, then white space alone and "b".
        let characters = trimmed(
            "a cat日 b",
            &[(0, 1), (1, 5), (5, 6), (5, 6), (5, 6), (6, 7), (7, 8)],
        );
        assert_eq!(characters, [0..1, 2..5, 5..6, 5..6, 5..6, 7..7, 7..8]);
        assert_eq!(span(&answer(2, "cat"), &characters), 1..2);
        assert_eq!(span(&answer(5, "日"), &characters), 2..5);
        assert_eq!(span(&answer(3, "at日"), &characters), 1..5);
        assert_eq!(span(&answer(7, "b"), &characters), 6..7);
        assert_eq!(span(&answer(0, "a cat日 b"), &characters), 0..7);
    }
}
