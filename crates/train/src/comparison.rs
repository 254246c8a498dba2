//! The scores before and after training, side by side.

use crate::{HeldOut, TaskScores};

/// A score of the same rows before and after training, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreLine {
    /// What is measured.
    pub name: &'static str,
    /// Of the base alone, where that was measured.
    pub before: Option<String>,
    /// Of the adapter.
    pub after: String,
}

/// Every score that `after` has, the loss first.
pub fn comparison(before: Option<&HeldOut>, after: &HeldOut) -> Vec<ScoreLine> {
    type Score = (&'static str, fn(&HeldOut) -> Option<String>);
    const SCORES: [Score; 5] = [
        ("loss", |h| Some(format!("{:.4}", h.evaluation.loss))),
        ("perplexity", |h| {
            Some(format!("{:.3}", h.evaluation.perplexity?))
        }),
        ("BLEU", |h| Some(format!("{:.3}", h.texts?.bleu))),
        ("exact match", |h| {
            Some(format!("{:.1} %", 100.0 * h.texts?.exact_match))
        }),
        ("slots in text", |h| {
            Some(format!("{:.1} %", 100.0 * h.texts?.slot_accuracy?))
        }),
    ];
    let mut lines = Vec::new();
    for (name, score) in SCORES {
        lines.extend(score(after).map(|after| ScoreLine {
            name,
            before: before.and_then(score),
            after,
        }));
    }
    let of_task = |h: &HeldOut| h.scores.as_ref().map(TaskScores::lines).unwrap_or_default();
    let mut of_base = before.map(of_task).unwrap_or_default();
    for (name, after) in of_task(after) {
        let known = of_base.iter().position(|(known, _)| *known == name);
        let before = known.map(|index| of_base.remove(index).1);
        lines.push(ScoreLine {
            name,
            before,
            after,
        });
    }
    let empty = |h: &HeldOut| h.texts.map_or(0, |texts| texts.empty_texts);
    let (empty_before, empty) = (before.map(empty), empty(after));
    if empty_before.unwrap_or(0) + empty > 0 {
        lines.push(ScoreLine {
            name: "empty texts",
            before: empty_before.map(|count| count.to_string()),
            after: empty.to_string(),
        });
    }
    lines
}
