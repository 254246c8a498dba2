//! Scores of spans of tagged words, as seqeval computes them by default.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::share;

/// Scores of the spans that tags describe. A span is right if its type, its first and its last word are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanScores {
    /// The share of right spans among the predicted ones.
    pub precision: f64,
    /// The share of the text's spans that were found.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
    /// The share of words whose tag was predicted.
    pub accuracy: f64,
    /// The scores of each type of span, by name.
    pub types: BTreeMap<String, SpanScore>,
}

/// Scores of the spans of one type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpanScore {
    /// As in [`SpanScores`].
    pub precision: f64,
    /// As in [`SpanScores`].
    pub recall: f64,
    /// As in [`SpanScores`].
    pub f1: f64,
    /// The spans of this type in the text.
    pub support: usize,
}

impl SpanScores {
    pub(super) fn of<T: AsRef<str>>(gold: &[Vec<T>], predicted: &[Vec<T>]) -> Self {
        assert_eq!(gold.len(), predicted.len(), "a prediction for each row");
        let (mut right_tags, mut tags) = (0, 0);
        for (gold, predicted) in gold.iter().zip(predicted) {
            assert_eq!(gold.len(), predicted.len(), "a tag for each word");
            let pairs = gold.iter().zip(predicted);
            right_tags += pairs.filter(|(a, b)| a.as_ref() == b.as_ref()).count();
            tags += gold.len();
        }
        let (gold, predicted) = (spans(gold), spans(predicted));
        let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for span in &gold {
            let of_type = counts.entry(span.0).or_default();
            of_type[0] += usize::from(predicted.contains(span));
            of_type[1] += 1;
        }
        for span in &predicted {
            counts.entry(span.0).or_default()[2] += 1;
        }
        let all = [0, 1, 2].map(|kind| counts.values().map(|of_type| of_type[kind]).sum());
        let SpanScore {
            precision,
            recall,
            f1,
            ..
        } = SpanScore::of(all);
        Self {
            precision,
            recall,
            f1,
            accuracy: share(right_tags, tags),
            types: counts
                .into_iter()
                .map(|(name, counts)| (name.to_owned(), SpanScore::of(counts)))
                .collect(),
        }
    }
}

impl SpanScore {
    fn of([right, gold, predicted]: [usize; 3]) -> Self {
        Self {
            precision: share(right, predicted),
            recall: share(right, gold),
            f1: share(2 * right, gold + predicted),
            support: gold,
        }
    }
}

/// A type, and the first and the last word of a span.
type Span<'a> = (&'a str, usize, usize);

/// All spans. Words are counted through all rows, with one more, outside of any span, behind each row.
///
/// The rules are those of seqeval, which are those of CoNLL's script: they find spans in tags that follow no scheme
/// strictly, and do not know BILOU's `L` and `U`, which only bound a span where its type changes.
fn spans<T: AsRef<str>>(rows: &[Vec<T>]) -> HashSet<Span<'_>> {
    let with_end = |row: &'_ Vec<T>| row.len() + 1;
    let mut found = HashSet::with_capacity(rows.iter().map(with_end).sum::<usize>() / 4);
    let mut last = Tag {
        prefix: 'O',
        kind: "",
    };
    let (mut begin, mut word) = (0, 0);
    let ends = ["O"];
    for row in rows {
        for tag in row.iter().map(T::as_ref).chain(ends) {
            let tag = Tag::parse(tag);
            if last.ends_before(tag) {
                found.insert((last.kind, begin, word - 1));
            }
            if tag.starts_after(last) {
                begin = word;
            }
            last = tag;
            word += 1;
        }
    }
    found
}

/// A tag in its parts.
#[derive(Clone, Copy)]
struct Tag<'a> {
    prefix: char,
    kind: &'a str,
}

impl<'a> Tag<'a> {
    /// `B-PER` is `B` and `PER`. Without a hyphen the first character is the prefix and the others the type, so that `NOUN`
    /// is a span, and `ORG` none.
    fn parse(tag: &'a str) -> Self {
        let mut characters = tag.chars();
        let prefix = characters.next().unwrap_or('O');
        let rest = characters.as_str();
        let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
        Self {
            prefix,
            kind: if kind.is_empty() { "_" } else { kind },
        }
    }

    fn is_inside(self) -> bool {
        !matches!(self.prefix, 'O' | '.')
    }

    /// Whether a span ends with this tag if `next` follows.
    fn ends_before(self, next: Self) -> bool {
        match (self.prefix, next.prefix) {
            ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O') => true,
            _ => self.is_inside() && self.kind != next.kind,
        }
    }

    /// Whether a span starts with this tag if it follows `last`.
    fn starts_after(self, last: Self) -> bool {
        match (last.prefix, self.prefix) {
            (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I') => true,
            _ => self.is_inside() && self.kind != last.kind,
        }
    }
}

impl fmt::Display for SpanScores {
    /// A line for each type of span, if there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.types.len() < 2 {
            return Ok(());
        }
        let width = self.types.keys().map(|name| name.chars().count()).max();
        let width = width.unwrap_or_default();
        for (name, score) in &self.types {
            writeln!(
                f,
                "{name:<width$}  precision {:.3}, recall {:.3}, F1 {:.3}, of {}",
                score.precision, score.recall, score.f1, score.support
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Cases, assert_close};
    use super::*;

    #[test]
    fn spans_score_as_in_seqeval() {
        let cases = Cases::read(include_str!(
            "../../../../tests/fixtures/metrics/spans.json"
        ));
        for case in cases.at_least(300) {
            let rows = |name| -> Vec<Vec<String>> {
                let rows: Vec<String> = case.parse(name);
                let row = |row: String| row.split_whitespace().map(str::to_owned).collect();
                rows.into_iter().map(row).collect()
            };
            let found = SpanScores::of(&rows("gold"), &rows("predicted"));
            let scores = [found.precision, found.recall, found.f1, found.accuracy];
            let names = ["precision", "recall", "f1", "accuracy"];
            for (name, value) in names.into_iter().zip(scores) {
                assert_close(value, case.parse(name), &format!("{name} of {case}"));
            }
            let types: BTreeMap<String, [f64; 4]> = case.parse("types");
            assert!(found.types.keys().eq(types.keys()), "{case}");
            for (score, expected) in found.types.values().zip(types.values()) {
                assert_close(score.precision, expected[0], &case.to_string());
                assert_close(score.recall, expected[1], &case.to_string());
                assert_close(score.f1, expected[2], &case.to_string());
                assert_eq!(score.support as f64, expected[3], "{case}");
            }
        }
    }

    #[test]
    fn a_span_with_a_wrong_end_is_a_miss_and_a_false_one() {
        let gold = [vec!["B-X", "I-X", "O", "B-Y"]];
        let predicted = [vec!["B-X", "O", "O", "B-Y"]];
        let found = SpanScores::of(&gold, &predicted);
        assert_eq!((found.precision, found.recall, found.f1), (0.5, 0.5, 0.5));
        assert_eq!(found.accuracy, 0.75);
        assert_eq!(found.types["X"].f1, 0.0);
        assert!(found.to_string().contains("Y  precision 1.000"));
    }
}
