//! `evaluate`: scores of a file.

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::{
    data::{dataloader::DataLoader, dataset::InMemDataset},
    tensor::backend::AutodiffBackend,
};
use burn_peft_data::{
    EvalLoader, Padding, Rows, TokenizeOptions, Tokenized, read_rows, tokenize_rows,
};
use burn_peft_ops::Ops;
use burn_peft_train::{
    Evaluation, ExampleLoss, TextScores, complete, evaluate, prompts_and_references,
};
use serde::Serialize;

use super::shared::{ComputeArgs, ModelArgs, OpenModel, display};
use crate::{backend::Job, builtin, output, progress::Progress};

/// Arguments of `evaluate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows to score, JSONL [default: the built-in task's test rows].
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print each row's loss.
    #[arg(long)]
    per_example: bool,
    /// Do not generate and score texts (BLEU, exact match, slots), which takes most of the time.
    #[arg(long)]
    no_generate: bool,
    /// Number of rows per batch.
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: usize,
    /// Maximum tokens per row; longer rows are cut and counted [default: the model's maximum].
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
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
    texts: Option<TextScores>,
    truncated: usize,
    dropped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_example: Option<&'a [ExampleLoss]>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    if args.batch_size == 0 {
        bail!("--batch-size is 0, expected 1 or more");
    }
    let rows = match &args.data {
        Some(path) => read_rows(path)?,
        None => builtin::rows(builtin::Split::Test)?,
    };
    let open = args.model.open()?;
    let longest = open.longest_row();
    let options = TokenizeOptions {
        max_length: Some(args.max_length.unwrap_or(longest).min(longest)),
        template: open.template.as_ref(),
    };
    let mut bar = Progress::counting("tokenising");
    let tokenized = tokenize_rows(&rows, &open.tokenizer, options, &mut |done, all| {
        bar.set(done as u64, all as u64);
    })?;
    drop(bar);
    args.compute.backend.run(Evaluate {
        args: &args,
        open,
        rows,
        tokenized,
    })
}

struct Evaluate<'a> {
    args: &'a Args,
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
            open,
            rows,
            tokenized,
        } = self;
        let Tokenized {
            examples,
            truncated,
            dropped,
        } = tokenized;
        let model = open.load::<B::InnerBackend>(args.compute.dtype(None).into(), &device)?;
        let loader = EvalLoader::new(
            InMemDataset::new(examples),
            args.batch_size,
            Padding::of(&open.tokenizer),
            device,
        )?;
        let total = DataLoader::num_items(&loader) as u64;
        let mut bar = Progress::counting("evaluating");
        let evaluation = evaluate(&model, &loader, &mut |done| bar.set(done as u64, total));
        drop(bar);
        let texts = match prompts_and_references(&rows, open.template.as_ref()) {
            Some(prompts) if !args.no_generate => {
                let mut bar = Progress::counting("generating");
                let stop_ids = open.stop_ids();
                let texts = complete(
                    &model,
                    &open.tokenizer,
                    &prompts,
                    args.batch_size,
                    &stop_ids,
                    &mut |done| bar.set(done as u64, prompts.len() as u64),
                )?;
                TextScores::of(&texts)
            }
            _ => None,
        };
        let report = Report {
            evaluation: &evaluation,
            texts,
            truncated,
            dropped,
            per_example: args.per_example.then_some(&evaluation.per_example),
        };
        if args.json {
            return output::print_json(&report);
        }
        output::print(&report.to_text(&rows, args))
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
            "{file}: {examples} rows, {label_tokens} supervised tokens\n\
             loss         {loss:.4}\nperplexity   {perplexity:.3}\n"
        );
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
        for (index, row) in self.per_example.unwrap_or_default().iter().enumerate() {
            text += &format!(
                "row {index}: nll {:.4}, {} tokens\n",
                row.nll, row.label_tokens
            );
        }
        text
    }
}
