//! Scores of answers, by the definition of SQuAD 2.0.

use std::{collections::HashMap, sync::LazyLock};

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

use super::mean;

/// Scores of answers to questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnswerScores {
    /// The share of questions whose answer is one of the right ones, 0 to 1.
    pub exact_match: f64,
    /// The mean, over the questions, of the F1 of words with the nearest right answer, 0 to 1.
    pub f1: f64,
}

impl AnswerScores {
    pub(super) fn of<T: AsRef<str>>(gold: &[Vec<T>], predicted: &[T]) -> Self {
        assert_eq!(gold.len(), predicted.len(), "an answer for each question");
        let rows = gold.iter().zip(predicted);
        let (exact, f1): (Vec<f64>, Vec<f64>) = rows.map(|row| of_row(row.0, row.1)).unzip();
        Self {
            exact_match: mean(&exact),
            f1: mean(&f1),
        }
    }
}

/// Exact match and F1 of one answer: the best over the right ones.
fn of_row<T: AsRef<str>>(gold: &[T], predicted: &T) -> (f64, f64) {
    let predicted = normalize(predicted.as_ref());
    // A right answer of which the normalisation leaves nothing does not count. Where none is left, the right answer is an
    // empty text.
    let answers = gold.iter().map(|answer| normalize(answer.as_ref()));
    let mut answers: Vec<Vec<String>> = answers.filter(|answer| !answer.is_empty()).collect();
    if answers.is_empty() {
        answers.push(Vec::new());
    }
    let exact = answers.contains(&predicted);
    let f1 = answers.iter().map(|answer| f1_of_words(answer, &predicted));
    (f64::from(u8::from(exact)), f1.fold(0.0, f64::max))
}

fn f1_of_words(gold: &[String], predicted: &[String]) -> f64 {
    if gold.is_empty() || predicted.is_empty() {
        return f64::from(u8::from(gold == predicted));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in gold {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in predicted {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    super::f1_of_counts(common, gold.len(), predicted.len())
}

/// The words of a text in lower case, without ASCII punctuation and English articles.
fn normalize(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let text: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let text = ARTICLE.replace_all(&text, " ");
    let words = text.split(is_space).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// An article between what Python's `\b` takes for the bounds of a word: there, marks and circled letters belong
/// to none.
#[expect(clippy::expect_used, reason = "the pattern is a constant")]
static ARTICLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?<![\p{L}\p{N}_])(?:an?|the)(?![\p{L}\p{N}_])").expect("a pattern that parses")
});

/// What `str.split` of Python splits at.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Cases, assert_close};
    use super::*;

    #[test]
    fn answers_score_by_the_definition_of_squad() {
        let cases = Cases::read(include_str!(
            "../../../../tests/fixtures/metrics/answers.json"
        ));
        for case in cases.at_least(300) {
            let gold: Vec<Vec<String>> = case.parse("gold");
            let found = AnswerScores::of(&gold, &case.parse::<Vec<String>>("predicted"));
            assert_close(
                found.exact_match,
                case.parse("exact_match"),
                &case.to_string(),
            );
            assert_close(found.f1, case.parse("f1"), &case.to_string());
        }
    }

    #[test]
    fn the_best_of_the_right_answers_counts() {
        let gold = [vec!["the old town", "old town"], vec![]];
        let found = AnswerScores::of(&gold, &["Old Town!", ""]);
        assert_eq!((found.exact_match, found.f1), (1.0, 1.0));
        let found = AnswerScores::of(&gold, &["town", "somewhere"]);
        assert_eq!(found.exact_match, 0.0);
        assert_close(found.f1, 1.0 / 3.0, "half of two thirds");
    }
}
