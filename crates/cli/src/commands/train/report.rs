//! What a run has come to, for a reader.

use anyhow::Result;
use burn_peft_train::{HeldOut, LrCurve, RunInputs, RunReport, ScoreLine, comparison};

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
    for ScoreLine {
        name,
        before,
        after,
    } in comparison(before, after)
    {
        let before = before.unwrap_or_else(|| "-".into());
        text += &format!("{name:15}{before:>12}{after:>12}\n");
    }
    text + "\n"
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
