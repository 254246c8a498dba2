//! What a run has come to, for a reader.

use anyhow::Result;
use burn_peft_train::{HeldOut, LrCurve, RunInputs, RunReport, TaskScores};

use super::display;
use crate::output;

/// Texts that are printed.
const SAMPLES: usize = 3;

pub(super) fn to_text(report: &RunReport, inputs: &RunInputs, again: Option<String>) -> String {
    let dir = display(&report.output_dir);
    let mut text = String::from("\n");
    if let Some(after) = &report.after {
        let rows = inputs.test.as_ref().or(inputs.valid.as_ref());
        let name = rows.map_or("held-out rows", |rows| rows.path());
        text += &format!("{name}: {} rows\n", after.evaluation.examples);
        text += &table(report.before.as_ref(), after);
        text += &samples(report.before.as_ref(), after);
    }
    let summary = &report.summary;
    text += &format!(
        "trained for {} steps in {:.0} s\n",
        summary.new_steps, summary.seconds
    );
    if summary.stopped_early {
        text += &format!(
            "ended at step {}: the evaluations got no better\n",
            summary.steps
        );
    }
    if let Some(best) = &summary.best_eval
        && summary.adapter_step == best.step
    {
        text += &format!(
            "the adapter is that of step {}, the best: {} {:.4}\n",
            best.step, best.metric, best.value
        );
    }
    if let Some(line) = again {
        text += &format!("{line}\n");
    }
    text + &format!("adapter: {dir}\n")
}

/// What a run at a rising rate has shown.
pub(super) fn print_curve(curve: &LrCurve, json: bool) -> Result<()> {
    if json {
        return output::print_json(curve);
    }
    // As many lines as one sees at a glance.
    let every = curve.points.len().div_ceil(20).max(1);
    let mut text = format!("{:>12}{:>12}\n", "rate", "loss");
    for point in curve.points.iter().step_by(every) {
        text += &format!("{:>12.1e}{:>12.4}\n", point.learning_rate, point.smoothed);
    }
    text += &match curve.learning_rate {
        Some(rate) => format!("take --set train.learning_rate={rate:.0e}\n"),
        None => {
            "the loss falls at no rate by more than chance; more steps (--max-steps) may show one\n"
                .to_owned()
        }
    };
    output::print(&text)
}

/// The scores before and after, side by side.
fn table(before: Option<&HeldOut>, after: &HeldOut) -> String {
    let mut text = format!("{:15}{:>12}{:>12}\n", "", "before", "after");
    for (name, before, after) in scores(before, after) {
        text += &format!("{name:15}{before:>12}{after:>12}\n");
    }
    text + "\n"
}

/// The scores by name, before and after.
pub(super) fn scores(
    before: Option<&HeldOut>,
    after: &HeldOut,
) -> Vec<(&'static str, String, String)> {
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
    let mut found = Vec::new();
    for (name, score) in SCORES {
        let Some(after) = score(after) else { continue };
        let before = before.and_then(score).unwrap_or_else(|| "-".into());
        found.push((name, before, after));
    }
    let lines = |h: &HeldOut| h.scores.as_ref().map(TaskScores::lines).unwrap_or_default();
    let before_lines = before.map(lines).unwrap_or_default();
    for (name, value) in lines(after) {
        let before = before_lines.iter().find(|(known, _)| *known == name);
        let before = before.map_or("-", |(_, value)| value);
        found.push((name, before.to_owned(), value));
    }
    let empty = |h: &HeldOut| h.texts.map_or(0, |texts| texts.empty_texts);
    let (empty_before, empty) = (before.map_or(0, empty), empty(after));
    if empty_before + empty > 0 {
        found.push(("empty texts", empty_before.to_string(), empty.to_string()));
    }
    found
}

/// The first texts before and after.
fn samples(before: Option<&HeldOut>, after: &HeldOut) -> String {
    let mut text = String::new();
    for (index, sample) in after.completions.iter().take(SAMPLES).enumerate() {
        text += &format!("prompt   {}\n", sample.prompt.trim_end());
        if let Some(before) = before.and_then(|before| before.completions.get(index)) {
            text += &format!("before   {}\n", shown(&before.text));
        }
        text += &format!("after    {}\n\n", shown(&sample.text));
    }
    text
}

/// A generated text on one line of bearable length.
fn shown(text: &str) -> String {
    const LONGEST: usize = 240;
    let line = text.trim().replace('\n', " ⏎ ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
