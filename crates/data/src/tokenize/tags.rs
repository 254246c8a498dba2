//! Words, each with a tag that a head learns.

use std::borrow::Cow;

use tokenizers::Encoding;

use super::source::{Numbered, Outcome, Source, TooLong};
use crate::error::Result;
use crate::example::{Example, IGNORE_INDEX, Parts, RowLabel};
use crate::labels::Labels;
use crate::row::Row;

/// The classes of tags and the tokens that have them.
pub(super) struct Tags<'a> {
    pub(super) labels: &'a Labels,
    /// For each class, that of the tokens of a word behind its first: `None` if they have none.
    further: Vec<Option<usize>>,
}

impl<'a> Tags<'a> {
    pub(super) fn new(labels: &'a Labels, label_all_tokens: bool) -> Self {
        // As in transformers' `run_ner.py`: one word begins one span.
        let further = |(class, name): (usize, &String)| {
            let inside = name.strip_prefix("B-").map(|name| format!("I-{name}"));
            let inside = inside.and_then(|inside| labels.class(&inside));
            label_all_tokens.then_some(inside.unwrap_or(class))
        };
        Self {
            labels,
            further: labels.names.iter().enumerate().map(further).collect(),
        }
    }

    /// Makes the examples of `rows`, in order.
    pub(super) fn tokenize_chunk(
        &self,
        source: &Source<'_>,
        rows: &[Numbered],
    ) -> Result<Vec<Outcome>> {
        if let Some(template) = source.template {
            return Err(template.unused_for("is for texts, and these rows are tagged words"));
        }
        let prepends_space = source.tokenizer.specials().prepends_space;
        let texts = rows.iter().map(|(line, row)| {
            let words = row.words().unwrap_or_default();
            (*line, spaced(words, prepends_space))
        });
        let texts: Vec<_> = texts.collect();
        let borrowed = texts.iter().map(|(line, texts)| {
            let texts = texts.iter().map(Cow::as_ref);
            (*line, texts.collect())
        });
        let encodings = source.encode(&borrowed.collect::<Vec<_>>())?;
        let outcome = |((line, row), words): (&Numbered, Vec<Encoding>)| {
            let gold = self.labels.gold_tags(row);
            let gold = gold.map_err(|reason| source.bad(*line, reason))?;
            let drafted = match row {
                Row::TaggingIds { input_ids, .. } => {
                    source.check_given(*line, input_ids)?;
                    Drafted::of_ids(input_ids, gold.as_deref(), source.limit)
                }
                _ => self.of_words(source, &words, gold.as_deref()),
            };
            source.check(*line, &drafted.input_ids)?;
            if drafted.is_cut && drafted.words.is_empty() {
                return Err(source.no_room(*line, "the words"));
            }
            if drafted.input_ids.is_empty() {
                let reason = "the words have no token, so there is nothing to tag";
                return Err(source.bad(*line, reason.to_owned()));
            }
            Ok(drafted.outcome(*line, gold.is_some()))
        };
        rows.iter().zip(encodings).map(outcome).collect()
    }

    fn of_words(&self, source: &Source<'_>, words: &[Encoding], gold: Option<&[i64]>) -> Drafted {
        let [before, after] = &source.tokenizer.specials().single;
        let room = source.limit.saturating_sub(after.len());
        let mut drafted = Drafted {
            labels: vec![IGNORE_INDEX; before.len()],
            input_ids: before.clone(),
            ..Drafted::default()
        };
        for (index, word) in words.iter().enumerate() {
            let ids = word.get_ids();
            drafted.words.push(drafted.input_ids.len());
            drafted.input_ids.extend(ids);
            let class = gold.map_or(IGNORE_INDEX, |gold| gold[index]);
            let further = usize::try_from(class).ok();
            let further = further.and_then(|class| self.further[class]);
            let further = further.map_or(IGNORE_INDEX, |class| class as i64);
            let labels = [class].into_iter().chain(std::iter::repeat(further));
            drafted.labels.extend(labels.take(ids.len()));
        }
        drafted.cut(room);
        drafted.input_ids.extend(after);
        drafted.labels.resize(drafted.input_ids.len(), IGNORE_INDEX);
        drafted
    }
}

/// A tagged row, tokenised.
#[derive(Default)]
struct Drafted {
    input_ids: Vec<u32>,
    labels: Vec<i64>,
    /// The first token of each word.
    words: Vec<usize>,
    is_cut: bool,
}

impl Drafted {
    /// Of token ids, each of which is a word.
    fn of_ids(input_ids: &[u32], gold: Option<&[i64]>, limit: usize) -> Self {
        let mut drafted = Self {
            input_ids: input_ids.to_vec(),
            labels: gold.map_or_else(|| vec![IGNORE_INDEX; input_ids.len()], <[i64]>::to_vec),
            words: (0..input_ids.len()).collect(),
            is_cut: false,
        };
        drafted.cut(limit);
        drafted
    }

    /// Cuts words and tokens behind `room` tokens.
    fn cut(&mut self, room: usize) {
        self.is_cut = self.input_ids.len() > room;
        self.input_ids.truncate(room);
        self.labels.truncate(room);
        // A word without a token begins where the next one does. Behind the last token there is none: if it was not
        // cut off, it shares the last.
        let end = self.input_ids.len();
        match self.is_cut {
            true => self.words.retain(|first| *first < end),
            false => {
                let last = end.saturating_sub(1);
                self.words
                    .iter_mut()
                    .for_each(|first| *first = (*first).min(last));
            }
        }
    }

    fn outcome(self, line: usize, is_labelled: bool) -> Outcome {
        let has_label = self.labels.iter().any(|label| *label != IGNORE_INDEX);
        let example = Example {
            input_ids: self.input_ids,
            labels: self.labels,
            row_label: (!is_labelled).then_some(RowLabel::Unknown),
            placement: None,
            parts: Parts::Words(self.words),
            row: 0,
            line,
        };
        let is_left = has_label || !is_labelled;
        Outcome {
            too_long: self.is_cut.then(TooLong::default),
            examples: Vec::from_iter(is_left.then_some(example)),
        }
    }
}

/// The words as they stand in a text: with a space in front of each but the first, unless one of the two characters
/// that meet is of a script without spaces, or the row is such a text by character.
fn spaced(words: &[String], prepends_space: bool) -> Vec<Cow<'_, str>> {
    let is_one = |word: &String| word.chars().count() == 1;
    let by_character = words.iter().all(is_one)
        && words
            .iter()
            .flat_map(|word| word.chars())
            .any(is_without_spaces);
    let mut before: Option<char> = None;
    let spaced = |word: &'_ String| -> bool {
        let meeting = before.zip(word.chars().next());
        before = word.chars().last().or(before);
        let is_between = |(left, right)| !is_without_spaces(left) && !is_without_spaces(right);
        meeting.is_some_and(is_between) && !by_character && !prepends_space
    };
    let spaces: Vec<bool> = words.iter().map(spaced).collect();
    let text = |(word, has_space): (&'_ String, bool)| match has_space {
        true => format!(" {word}"),
        false => word.clone(),
    };
    let texts = words.iter().zip(spaces).map(text);
    texts.map(Cow::Owned).collect()
}

/// Whether a character is of a script that puts no spaces between words: Chinese, Japanese, Thai, Lao, Tibetan,
/// Burmese or Khmer, with the punctuation and the wide forms of the first two. Korean has spaces.
fn is_without_spaces(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0FFF
        | 0x1000..=0x109F
        | 0x1780..=0x17FF
        | 0x2E80..=0x312F
        | 0x31A0..=0x4DBF
        | 0x4E00..=0x9FFF
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE4F
        | 0xFF00..=0xFF9F
        | 0xFFE0..=0xFFEF
        | 0x1B000..=0x1B16F
        | 0x20000..=0x3FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        spaced(&words, false).concat()
    }

    #[test]
    fn spaces_stand_where_the_script_has_them() {
        for (words, text) in [
            (
                &["I", "live", "in", "New York", "."][..],
                "I live in New York .",
            ),
            (&["他", "在", "IBM", "工作", "。"], "他在IBM工作。"),
            (
                &["「", "toto", "」", "会員", "BIG", "CUP"],
                "「toto」会員BIG CUP",
            ),
            (&["서울", "에서", "왔다"], "서울 에서 왔다"),
            (&["สวัสดี", "ครับ"], "สวัสดีครับ"),
            // By character.
            (&["I", "B", "M", "的", "5", "G"], "IBM的5G"),
            (&["I", "B"], "I B"),
            // An empty word is nothing, and the next meets the one before it.
            (&["", "a", "", "b", ""], "a b"),
        ] {
            assert_eq!(joined(words), text);
        }
    }

    #[test]
    fn a_tokenizer_that_puts_a_space_in_front_of_a_text_gets_none() {
        let words = ["a".to_owned(), "b".to_owned()];
        assert_eq!(spaced(&words, true).concat(), "ab");
    }
}
