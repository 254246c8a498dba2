//! `evaluate`: scores of a file.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::backend::AutodiffBackend;
use burn_peft_data::{Example, Rows, Tokenized};
use burn_peft_ops::Ops;
use burn_peft_train::{
    Evaluation, ExampleLoss, HeldOut, HeldOutRows, Scored, TaskScores, TaskSetup, TextScores, Texts,
};
use serde::Serialize;

use super::shared::{ComputeArgs, ModelArgs, OpenModel, RowArgs, display};
use crate::{backend::Job, builtin, output, progress::stage_bars, ranks};

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows to score [default: the built-in test rows of the adapter's task].
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print each row's loss and the text generated for it, and with --json what a head says of it.
    #[arg(long)]
    per_example: bool,
    /// Do not generate and score texts (BLEU, exact match, slots), which takes most of the time.
    #[arg(long)]
    no_generate: bool,
    #[command(flatten)]
    rows: RowArgs,
    /// Print one JSON object to stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    #[serde(flatten)]
    scores: Option<&'a TaskScores>,
    #[serde(flatten)]
    texts: Option<TextScores>,
    truncated: usize,
    dropped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_example: Option<Vec<PerExample<'a>>>,
}

/// One row on its own.
#[derive(Serialize)]
struct PerExample<'a> {
    #[serde(flatten)]
    loss: ExampleLoss,
    /// The generated text with its prompt and its reference.
    #[serde(flatten)]
    written: Option<&'a Scored>,
}

impl<'a> PerExample<'a> {
    /// The rows that were scored, in the order of the file.
    fn of(found: &'a HeldOut, examples: &[Example]) -> Vec<Self> {
        let rows = found.evaluation.of_rows(examples).into_iter();
        let entry = |(row, loss)| Self {
            loss,
            written: found.completions.get::<usize>(row),
        };
        rows.map(entry).collect()
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    args.rows.check()?;
    let open = args.model.open()?;
    let task = open.task();
    let rows = match &args.data {
        Some(path) => args.rows.reader(None).read(path)?,
        None => builtin::rows(task.task, builtin::Split::Test)?,
    };
    task.check(&rows)?;
    let tokenized = args.rows.tokenize(&open, &task, &rows)?;
    args.compute.backend.run(Evaluate {
        args: &args,
        task,
        open,
        rows,
        tokenized,
    })
}

struct Evaluate<'a> {
    args: &'a Args,
    task: TaskSetup,
    open: OpenModel,
    rows: Rows,
    tokenized: Tokenized,
}

impl Job for Evaluate<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self {
            args,
            task,
            open,
            rows,
            tokenized,
        } = self;
        let Tokenized {
            examples,
            truncated,
            dropped,
            ..
        } = tokenized;
        let model = open.load::<B::InnerBackend>(args.compute.dtype(None).into(), &device)?;
        let held_out = HeldOutRows {
            rows: &rows,
            examples,
            task: &task,
            template: open.template(),
            tokenizer: &open.tokenizer,
            stop_ids: open.stop_ids(),
            batch_size: args.rows.batch_size,
            max_length: args.rows.max_length,
            ranks: ranks::all(),
        };
        open.check_ranks(&held_out)?;
        let texts = match args.no_generate {
            true => Texts::None,
            false => Texts::Scored,
        };
        let found = held_out.score(&model, texts, &mut stage_bars())?;
        let evaluation = &found.evaluation;
        let report = Report {
            evaluation,
            scores: found.scores.as_ref(),
            texts: found.texts,
            truncated,
            dropped,
            per_example: args
                .per_example
                .then(|| PerExample::of(&found, &held_out.examples)),
        };
        if args.json {
            return output::print_json(&report);
        }
        output::print_report(&report.to_text(&rows, args))
    }
}

impl Report<'_> {
    fn to_text(&self, rows: &Rows, args: &Args) -> String {
        let Evaluation {
            loss,
            perplexity,
            label_tokens,
            examples,
            ..
        } = self.evaluation;
        let file = args.data.as_deref().map_or(rows.path().to_owned(), display);
        let mut text = format!(
            "{file}: {examples} {}, {label_tokens} {}\nloss         {loss:.4}\n",
            if rows.rows().len() < *examples {
                "windows"
            } else {
                "rows"
            },
            if perplexity.is_some() {
                "supervised tokens"
            } else {
                "labels"
            },
        );
        if let Some(perplexity) = perplexity {
            text += &format!("perplexity   {perplexity:.3}\n");
        }
        if let Some(scores) = self.scores {
            text += &scores.to_string();
        }
        if let Some(scores) = &self.texts {
            text += &scores.to_string();
        }
        if self.truncated + self.dropped > 0 {
            text += &format!(
                "{} rows were cut to the longest length, {} left out because nothing supervised \
                 was left of them\n",
                self.truncated, self.dropped
            );
        }
        let labels = if perplexity.is_some() {
            "tokens"
        } else {
            "labels"
        };
        for (index, row) in self.per_example.iter().flatten().enumerate() {
            text += &format!(
                "row {index}: nll {:.4}, {} {labels}\n",
                row.loss.nll, row.loss.label_tokens
            );
            if let Some(written) = row.written {
                text += &format!("  {}\n", written.text.trim().replace('\n', " ⏎ "));
            }
        }
        text
    }
}
