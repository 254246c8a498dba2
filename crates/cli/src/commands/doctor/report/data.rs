//! Rows: the first of them, and how the files are made up.

use burn_peft_data::Task;
use burn_peft_train::{FileCheck, RunCheck};

use crate::{
    commands::doctor::{
        lengths::{self, count},
        page::{NAME, Page},
        rows, tokens,
    },
    output::escaped,
};

pub(super) fn preview(page: &mut Page, run: &RunCheck) {
    let Some(first) = run.preview.first() else {
        return;
    };
    let learned = match page.paint.has_colour() {
        true => "learned in green",
        false => "learned between ⟦ and ⟧",
    };
    page.heading("First rows", learned);
    for (index, row) in run.preview.iter().enumerate() {
        if index > 0 {
            page.text.push('\n');
        }
        for line in rows::lines(row, page.paint) {
            page.line(&line);
        }
    }
    page.heading("Tokens of the first row", "");
    for line in tokens::listing(&first.tokens, page.paint) {
        page.line(&line);
    }
}

pub(super) fn data(page: &mut Page, file: &FileCheck) {
    page.heading(&format!("Rows: {}", file.split), &escaped(&file.path));
    let mut rows = format!("{} of the form {}", count(file.rows), file.format);
    if file.task == Task::Qa {
        rows += &format!(", in {} windows", count(file.examples));
    }
    page.fact("rows", &rows);
    let Some(tokens) = &file.tokens else {
        page.fact("tokens", "not counted, because of an error below");
        return;
    };
    let mut cut = match (file.truncated, file.dropped) {
        (0, 0) => "none".to_owned(),
        (cut, 0) => count(cut),
        (cut, dropped) => format!("{}, and {} left out", count(cut), count(dropped)),
    };
    if let Some(lost) = file.lost {
        let share = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
        cut += &format!(
            "; {:.1} % of the tokens are lost",
            share(lost.tokens, lost.all_tokens)
        );
    }
    page.fact("cut", &cut);
    let repeats = file.repeats;
    let some = |rows| match rows {
        0 => "none".to_owned(),
        rows => count(rows),
    };
    let mut twice = some(repeats.repeated);
    if file.split != "train" {
        twice += &format!("; among the training rows, {}", some(repeats.in_train));
    }
    page.fact("repeated", &twice);
    page.fact("tokens", &lengths::summary(tokens));
    if file.split == "train" {
        for line in lengths::histogram(tokens, page.paint) {
            page.line(&format!("{}{line}", " ".repeat(NAME)));
        }
    }
    if let Some(supervised) = &file.supervised {
        let bars = lengths::sparkline(supervised);
        page.fact(
            "learned",
            &format!("{}  {bars}", lengths::summary(supervised)),
        );
    }
    if !file.labels.is_empty() {
        page.fact("labels", "");
        for line in lengths::labels(&file.labels, page.paint) {
            page.line(&format!("{}{line}", " ".repeat(NAME)));
        }
    }
}
