//! `report.html`: a run to look at, as one page that needs nothing else.
//!
//! Everything on it comes from a template that escapes what it is given, so rows, names and warnings are text whatever
//! is in them. It has no scripts, and forbids the browser to load anything.

mod chart;
mod record_table;

use std::path::Path;

use anyhow::{Context, Result};
use burn_peft::with_commas;
use burn_peft_data::Rows;
use burn_peft_train::{
    ConfusionMatrix, HeldOut, RUN_FILE, RunConfig, RunInputs, RunReport, Scored, TaskScores,
    comparison,
};
use minijinja::Environment;
use serde::Serialize;
use serde_json::Value;

use self::chart::{Kind, Line, Scale, number};
use self::record_table::RecordTable;

/// Its name in the output folder.
pub(super) const PAGE_FILE: &str = "report.html";

/// Characters of a text that are shown.
const LONGEST_TEXT: usize = 1500;
/// Classes of a matrix that is shown as a table.
const MOST_CLASSES: usize = 12;

/// What a page is about.
pub(super) struct Run<'a> {
    pub(super) report: &'a RunReport,
    pub(super) config: &'a RunConfig,
    pub(super) inputs: &'a RunInputs,
    /// What the run said, in order.
    pub(super) notes: &'a [String],
}

/// Writes the page into the run's folder. Where nothing was left to do, the page that is there tells more.
pub(super) fn write(run: &Run<'_>) -> Result<()> {
    let dir = &run.report.output_dir;
    if run.report.summary.new_steps == 0 && dir.join(PAGE_FILE).exists() {
        return Ok(());
    }
    let config = burn_peft_files::read_to_string(&dir.join(RUN_FILE))?;
    let records = records_of(&dir.join("metrics.jsonl"))?;
    let page = Page::of(run, config, &records)?.render()?;
    Ok(burn_peft_files::write(
        &dir.join(PAGE_FILE),
        page.as_bytes(),
    )?)
}

fn records_of(path: &Path) -> Result<Vec<Value>> {
    let text = burn_peft_files::read_to_string(path)?;
    let records = text.lines().map(serde_json::from_str);
    records
        .collect::<serde_json::Result<_>>()
        .with_context(|| path.display().to_string())
}

/// What stands on the page.
#[derive(Debug, Default, Serialize)]
struct Page {
    title: String,
    status: String,
    tiles: Vec<Tile>,
    warnings: Vec<String>,
    charts: Vec<Chart>,
    held_out: String,
    scores: Vec<Score>,
    matrices: Vec<Matrix>,
    samples: Vec<Sample>,
    data: Vec<File>,
    notes: Vec<String>,
    config: String,
    records: RecordTable,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Tile {
    name: &'static str,
    value: String,
    note: String,
}

#[derive(Debug, Serialize)]
struct Chart {
    title: String,
    legend: Vec<Legend>,
    svg: String,
}

#[derive(Debug, Serialize)]
struct Legend {
    class: &'static str,
    name: &'static str,
}

#[derive(Debug, Serialize)]
struct Score {
    name: &'static str,
    before: String,
    after: String,
}

#[derive(Debug, Serialize)]
struct Matrix {
    title: &'static str,
    names: Vec<String>,
    /// None of many classes.
    rows: Vec<MatrixRow>,
    /// Instead of them.
    text: String,
}

#[derive(Debug, Serialize)]
struct MatrixRow {
    name: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Cell {
    count: usize,
    /// Of the rows of the class, 0 to 1.
    share: f64,
}

#[derive(Debug, Serialize)]
struct Sample {
    input: String,
    reference: String,
    before: Option<String>,
    after: String,
}

#[derive(Debug, Serialize)]
struct File {
    purpose: &'static str,
    rows: usize,
    name: String,
}

impl Page {
    fn of(run: &Run<'_>, config: String, records: &[Value]) -> Result<Self> {
        let Run {
            report,
            config: asked,
            inputs,
            notes,
        } = run;
        let (before, after) = (report.before.as_ref(), report.after.as_ref());
        let base = inputs.base_name.as_deref().unwrap_or("the built-in model");
        let summary = &report.summary;
        let (steps, total) = (summary.steps, report.total_steps);
        let is_warning = |note: &&String| note.starts_with("warning: ");
        let held_out = inputs.test.as_ref().or(inputs.valid.as_ref());
        Ok(Self {
            title: format!("{} on {base}", asked.method.name()),
            status: match summary.interrupted {
                true => format!("stopped: {steps} of {total} steps"),
                false => format!("finished: {steps} of {total} steps"),
            },
            tiles: tiles(report, records),
            warnings: notes
                .iter()
                .filter(is_warning)
                .map(|note| note["warning: ".len()..].to_owned())
                .collect(),
            charts: charts(records)?,
            held_out: held_out.map_or_else(String::new, |rows| {
                format!("{}: {} rows", rows.path(), rows.rows().len())
            }),
            scores: after.map_or_else(Vec::new, |after| {
                let scores = comparison(before, after).into_iter();
                scores
                    .map(|line| Score {
                        name: line.name,
                        before: line.before.unwrap_or_else(|| "-".into()),
                        after: line.after,
                    })
                    .collect()
            }),
            matrices: [("the base", before), ("with the adapter", after)]
                .into_iter()
                .filter_map(|(title, scores)| Some(Matrix::of(title, matrix_of(scores?)?)))
                .collect(),
            samples: after.map_or_else(Vec::new, |after| samples(before, after)),
            data: files(inputs),
            notes: notes
                .iter()
                .filter(|note| !is_warning(note))
                .cloned()
                .collect(),
            config,
            records: RecordTable::of(records),
            version: env!("CARGO_PKG_VERSION"),
        })
    }

    fn render(&self) -> Result<String> {
        let mut environment = Environment::new();
        // The end of its name has the template escape for HTML.
        environment.add_template(PAGE_FILE, include_str!("page/page.html"))?;
        Ok(environment.get_template(PAGE_FILE)?.render(self)?)
    }
}

fn tiles(report: &RunReport, records: &[Value]) -> Vec<Tile> {
    let summary = &report.summary;
    let mut tiles = Vec::new();
    let mut tile = |name, value: Option<String>, note: String| {
        tiles.extend(value.map(|value| Tile { name, value, note }));
    };
    let loss = |scores: &HeldOut| number(scores.evaluation.loss);
    tile(
        "held-out loss",
        report.after.as_ref().map(loss),
        report
            .before
            .as_ref()
            .map_or_else(String::new, |before| format!("the base: {}", loss(before))),
    );
    let best = summary.best_eval.as_ref();
    let metric = best.map_or("", |best| best.metric.trim_start_matches("eval_"));
    tile(
        "best evaluation",
        best.map(|best| number(best.value)),
        best.map_or_else(String::new, |best| {
            format!("{metric}, at step {}", best.step)
        }),
    );
    let last = series(records, "loss")
        .last()
        .map(|(_, loss)| number(*loss));
    tile("training loss", last, "at the end".into());
    tile(
        "trained",
        Some(with_commas(report.trainable_params)),
        "parameters".into(),
    );
    let speed = summary.tokens as f64 / summary.seconds.max(1e-9);
    tile(
        "time",
        Some(duration(summary.seconds)),
        format!("{} tokens/s", with_commas(speed as usize)),
    );
    tiles
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The values of a key by steps.
fn series(records: &[Value], key: &str) -> Vec<(f64, f64)> {
    let point = |record: &Value| Some((record["step"].as_f64()?, record[key].as_f64()?));
    records.iter().filter_map(point).collect()
}

fn charts(records: &[Value]) -> Result<Vec<Chart>> {
    let line = |kind, key| Line {
        kind,
        points: series(records, key),
    };
    let base = |key| {
        let at_0 = series(records, key).into_iter().find(|at| at.0 == 0.0);
        at_0.map(|(_, value)| value)
    };
    let mut charts = Vec::new();
    let mut chart = |title: String, lines: &[Line], base: Option<f64>, scale| -> Result<()> {
        let legend = [
            (lines.len() > 1).then_some(("train", "training")),
            (lines.iter().any(Line::is_of_evaluations)).then_some(("eval", "validation")),
            base.map(|_| ("base", "the base, validation")),
        ];
        let legend = legend.into_iter().flatten();
        charts.extend(chart::draw(lines, base, scale)?.map(|svg| Chart {
            title,
            legend: legend.map(|(class, name)| Legend { class, name }).collect(),
            svg,
        }));
        Ok(())
    };
    let losses = [line(Kind::Train, "loss"), line(Kind::Eval, "eval_loss")];
    chart("Loss".into(), &losses, base("eval_loss"), Scale::Linear)?;
    for key in record_table::other_scores(records) {
        let title = capitalised(&key["eval_".len()..].replace('_', " "));
        let lines = [line(Kind::Eval, key)];
        chart(title, &lines, base(key), Scale::Linear)?;
    }
    for (title, key, scale) in [
        ("Learning rate", "learning_rate", Scale::Linear),
        ("Gradient norm", "grad_norm", Scale::Wide),
        ("Tokens per second", "tokens_per_second", Scale::Linear),
    ] {
        chart(title.into(), &[line(Kind::Train, key)], None, scale)?;
    }
    Ok(charts)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.clone()).collect()
}

fn matrix_of(scores: &HeldOut) -> Option<&ConfusionMatrix> {
    match scores.scores.as_ref()? {
        TaskScores::Classes(scores) => Some(&scores.confusion_matrix),
        _ => None,
    }
}

impl Matrix {
    fn of(title: &'static str, matrix: &ConfusionMatrix) -> Self {
        if matrix.names.len() > MOST_CLASSES {
            return Self {
                title,
                names: Vec::new(),
                rows: Vec::new(),
                text: matrix.to_string(),
            };
        }
        let row = |(class, name): (usize, &String)| MatrixRow {
            name: name.clone(),
            cells: matrix.counts[class]
                .iter()
                .map(|count| Cell {
                    count: *count,
                    share: *count as f64 / matrix.gold(class).max(1) as f64,
                })
                .collect(),
        };
        Self {
            title,
            names: matrix.names.clone(),
            rows: matrix.names.iter().enumerate().map(row).collect(),
            text: String::new(),
        }
    }
}

fn samples(before: Option<&HeldOut>, after: &HeldOut) -> Vec<Sample> {
    let sample = |(index, scored): (usize, &Scored)| Sample {
        input: shortened(&scored.prompt),
        reference: shortened(&scored.reference),
        before: before
            .and_then(|before| before.samples.get(index))
            .map(|before| shortened(&before.text)),
        after: shortened(&scored.text),
    };
    after.samples.iter().enumerate().map(sample).collect()
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn files(inputs: &RunInputs) -> Vec<File> {
    let file = |(purpose, rows): (&'static str, Option<&Rows>)| {
        rows.map(|rows| File {
            purpose,
            rows: rows.rows().len(),
            name: rows.path().to_owned(),
        })
    };
    [
        ("training", Some(&inputs.train)),
        ("validation", inputs.valid.as_ref()),
        ("scores before and after", inputs.test.as_ref()),
    ]
    .into_iter()
    .filter_map(file)
    .collect()
}

#[cfg(test)]
mod tests;
