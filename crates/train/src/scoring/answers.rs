//! From logits to an answer.

use std::ops::Range;

use burn_peft_data::Parts;
use serde::Serialize;

/// How an answer is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerOptions {
    /// The most tokens of an answer. Default: 30, as in transformers' examples.
    pub max_answer_length: usize,
    /// By how much the score of "no answer" must exceed that of the best answer to be chosen. Default: 0, as
    /// in transformers' examples.
    pub null_score_diff_threshold: f64,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            max_answer_length: 30,
            null_score_diff_threshold: 0.0,
        }
    }
}

/// What a model says of one window of a row's context.
#[derive(Debug, Clone, Copy)]
pub struct AnswerWindow<'a> {
    /// For each token of the window, the logit that the answer starts there `[seq]`.
    pub start: &'a [f32],
    /// For each token of the window, the logit that the answer ends with it `[seq]`.
    pub end: &'a [f32],
    /// What the tokens are: [`Parts::Context`].
    pub parts: &'a Parts,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// A piece of the context; empty where it has no answer.
    pub text: String,
    /// The index of the answer's first character in the context, counted in Unicode scalar values as in SQuAD. `None`
    /// without an answer.
    pub start: Option<usize>,
    /// The index behind its last character.
    pub end: Option<usize>,
    /// The logit of its start plus the logit of its end; without an answer, those of "no answer".
    pub score: f64,
}

/// The answer with the greatest score in all windows of a row's `context`, without the white space at its ends.
///
/// All spans of the context are looked at. Transformers' examples look at those between the 20 best starts and the 20
/// best ends of a window, and so can miss the best span of a model that has learned little. As there, the score
/// of "no answer" is the least of all windows: an answer has to be nowhere.
///
/// # Panics
/// Where a window is not one of a context, or has fewer logits than tokens.
pub fn best_answer(context: &str, windows: &[AnswerWindow<'_>], options: &AnswerOptions) -> Answer {
    let mut best: Option<Span> = None;
    let mut no_answer: Option<f64> = None;
    let bounds = CharacterBounds::new(context);
    for window in windows {
        let Parts::Context {
            tokens,
            characters,
            no_answer: null_token,
        } = window.parts
        else {
            panic!("an answer is looked for in a window of a context");
        };
        if let Some(token) = null_token {
            let score = f64::from(window.start[*token]) + f64::from(window.end[*token]);
            no_answer = Some(no_answer.map_or(score, |least| least.min(score)));
        }
        let logits = (&window.start[tokens.clone()], &window.end[tokens.clone()]);
        let blank: Vec<bool> = characters
            .iter()
            .map(|range| bounds.slice(range).trim().is_empty())
            .collect();
        let found = best_span(logits, &blank, options.max_answer_length);
        if let Some((first, last, score)) = found
            && best.as_ref().is_none_or(|best| score > best.score)
        {
            best = Some(Span {
                characters: characters[first].start..characters[last].end,
                score,
            });
        }
    }
    match (best, no_answer) {
        (Some(best), Some(none)) if none - best.score > options.null_score_diff_threshold => {
            Answer::none(none)
        }
        (Some(best), _) => bounds.answer(best),
        (None, none) => Answer::none(none.unwrap_or_default()),
    }
}

/// Characters of the context, and the score of the span that they are.
struct Span {
    characters: Range<usize>,
    score: f64,
}

/// The first and the last token of the best span, and its score. A span of nothing but `blank` tokens is none.
fn best_span(
    (start, end): (&[f32], &[f32]),
    blank: &[bool],
    longest: usize,
) -> Option<(usize, usize, f64)> {
    let mut best: Option<(usize, usize, f64)> = None;
    for (first, start) in start.iter().enumerate() {
        let mut has_text = false;
        for (last, end) in end.iter().enumerate().skip(first).take(longest) {
            has_text |= !blank[last];
            let score = f64::from(*start) + f64::from(*end);
            if has_text && best.is_none_or(|(.., best)| score > best) {
                best = Some((first, last, score));
            }
        }
    }
    best
}

impl Answer {
    /// "No answer".
    fn none(score: f64) -> Self {
        Self {
            text: String::new(),
            start: None,
            end: None,
            score,
        }
    }
}

/// A text, and the byte at which each of its characters begins.
struct CharacterBounds<'a> {
    text: &'a str,
    bytes: Vec<usize>,
}

impl<'a> CharacterBounds<'a> {
    fn new(text: &'a str) -> Self {
        let bytes = text.char_indices().map(|(byte, _)| byte);
        Self {
            text,
            bytes: bytes.chain([text.len()]).collect(),
        }
    }

    fn slice(&self, characters: &Range<usize>) -> &'a str {
        &self.text[self.bytes[characters.start]..self.bytes[characters.end]]
    }

    /// The answer that a span is.
    fn answer(&self, span: Span) -> Answer {
        let text = self.slice(&span.characters);
        let leading = text.chars().take_while(|c| c.is_whitespace()).count();
        let text = text.trim();
        let start = span.characters.start + leading;
        Answer {
            text: text.to_owned(),
            start: Some(start),
            end: Some(start + text.chars().count()),
            score: span.score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str = "Où? À Zoë’s bar.";

    /// A window of three tokens of a question, tokens of [`CONTEXT`] at these characters, and one for "no answer".
    fn window(characters: &[Range<usize>], has_null: bool) -> Parts {
        let tokens = 3..3 + characters.len();
        Parts::Context {
            no_answer: has_null.then_some(tokens.end),
            tokens,
            characters: characters.to_vec(),
        }
    }

    fn words() -> Vec<Range<usize>> {
        vec![0..3, 3..5, 5..9, 9..11, 11..15, 15..16]
    }

    /// Logits that are zero but at some tokens.
    fn logits(seq: usize, at: &[(usize, f32)]) -> Vec<f32> {
        let mut logits = vec![0.0; seq];
        for (token, logit) in at {
            logits[*token] = *logit;
        }
        logits
    }

    fn answer(start: &[(usize, f32)], end: &[(usize, f32)], options: AnswerOptions) -> Answer {
        let parts = window(&words(), true);
        let (start, end) = (logits(10, start), logits(10, end));
        let window = AnswerWindow {
            start: &start,
            end: &end,
            parts: &parts,
        };
        best_answer(CONTEXT, &[window], &options)
    }

    #[test]
    fn an_answer_is_a_slice_by_characters_without_white_space_around_it() {
        let found = answer(&[(5, 2.0)], &[(7, 3.0)], AnswerOptions::default());
        assert_eq!(found.text, "Zoë’s bar");
        assert_eq!((found.start, found.end), (Some(6), Some(15)));
        assert_eq!(found.score, 5.0);
        assert_eq!(
            serde_json::to_string(&found).unwrap(),
            r#"{"text":"Zoë’s bar","start":6,"end":15,"score":5.0}"#
        );
    }

    #[test]
    fn the_question_is_no_answer_and_an_end_is_not_before_its_start() {
        let start = [(0, 9.0), (6, 4.0), (4, 3.0)];
        let end = [(2, 9.0), (3, 5.0), (5, 3.0)];
        let found = answer(&start, &end, AnswerOptions::default());
        assert_eq!((found.text.as_str(), found.score), ("À Zoë", 6.0));
    }

    #[test]
    fn an_answer_is_not_longer_than_allowed() {
        let options = AnswerOptions {
            max_answer_length: 2,
            ..AnswerOptions::default()
        };
        let (start, end) = ([(3, 4.0)], [(5, 5.0), (4, 2.0)]);
        assert_eq!(answer(&start, &end, options).text, "Où? À");
        assert_eq!(
            answer(&start, &end, AnswerOptions::default()).text,
            "Où? À Zoë"
        );
    }

    #[test]
    fn no_answer_must_exceed_the_best_by_the_threshold() {
        let (start, end) = ([(9, 3.0), (7, 1.0)], [(9, 2.0), (7, 1.0)]);
        let chosen = |null_score_diff_threshold| {
            let options = AnswerOptions {
                null_score_diff_threshold,
                ..AnswerOptions::default()
            };
            answer(&start, &end, options)
        };
        let none = chosen(2.5);
        assert_eq!((none.text.as_str(), none.start, none.end), ("", None, None));
        assert_eq!(none.score, 5.0);
        assert_eq!(
            serde_json::to_string(&none).unwrap(),
            r#"{"text":"","start":null,"end":null,"score":5.0}"#
        );
        assert_eq!(chosen(3.0).text, "bar");
    }

    #[test]
    fn the_best_window_answers_and_the_least_sure_one_says_that_there_is_none() {
        let parts = [window(&words()[..3], true), window(&words()[3..], true)];
        let start = [
            logits(7, &[(3, 1.0), (6, 9.0)]),
            logits(7, &[(4, 2.0), (6, 0.5)]),
        ];
        let end = logits(7, &[]);
        let windows = [0, 1].map(|index| AnswerWindow {
            start: &start[index],
            end: &end,
            parts: &parts[index],
        });
        let options = AnswerOptions::default();
        assert_eq!(best_answer(CONTEXT, &windows, &options).text, "bar");
        assert_eq!(best_answer(CONTEXT, &windows[..1], &options).start, None);
    }

    #[test]
    fn a_span_of_white_space_is_no_answer() {
        let context = "a \n b";
        let parts = window(&[0..1, 1..3, 3..5], false);
        let start = logits(6, &[(4, 5.0)]);
        let end = logits(6, &[(4, 5.0), (5, 1.0)]);
        let window = AnswerWindow {
            start: &start,
            end: &end,
            parts: &parts,
        };
        let found = best_answer(context, &[window], &AnswerOptions::default());
        assert_eq!((found.text.as_str(), found.start), ("b", Some(4)));
        let none = best_answer(context, &[], &AnswerOptions::default());
        assert_eq!((none.text.as_str(), none.start), ("", None));
    }
}
