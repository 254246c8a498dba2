//! `predict`: what a model says of rows.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft_data::{Question, Row, Rows, Task, Tokenized};
use burn_peft_files::StagedFile;
use burn_peft_ops::Ops;
use burn_peft_train::{HeldOutRows, Predicted, Prediction, Stop, TaskSetup};

use super::shared::{ComputeArgs, ModelArgs, OpenModel, RowArgs, display};
use crate::{backend::Job, output, progress::Progress, ranks, signals};

/// Arguments of `predict`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["data", "text"])))]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows to predict; labels in them are not looked at.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// File for the predictions, one JSON object per row [default: stdout].
    #[arg(long, value_name = "FILE", requires = "data")]
    output: Option<PathBuf>,
    /// One text in place of a file; for tagging its words are separated by spaces, for questions it is the context.
    #[arg(long)]
    text: Option<String>,
    /// Second text of a pair.
    #[arg(long, requires = "text")]
    text_pair: Option<String>,
    /// Question about the text.
    #[arg(long, requires = "text")]
    question: Option<String>,
    #[command(flatten)]
    rows: RowArgs,
    /// Print JSON, as for a file, for one text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.compute.start_threads()?;
    args.rows.check()?;
    if let (Some(data), Some(output)) = (&args.data, &args.output)
        && let (Ok(data), Ok(file)) = (data.canonicalize(), output.canonicalize())
        && data == file
    {
        bail!("--output: {}: it is the file of --data", display(output));
    }
    let open = args.model.open()?;
    let task = open.task();
    let rows = match (&args.data, &args.text) {
        (Some(path), _) => args.rows.reader(Some(task.task)).read(path)?,
        (None, text) => Rows::single("--text", args.row(&task, text.as_deref().unwrap_or(""))?),
    };
    let tokenized = match task.head_kind() {
        // Prompts are tokenised where they are computed.
        None => Tokenized::default(),
        Some(_) => args.rows.tokenize(&open, &task, &rows)?,
    };
    if tokenized.truncated > 0 {
        output::warn(&format!(
            "{} of {} rows were cut to the longest length",
            tokenized.truncated,
            rows.rows().len()
        ));
    }
    args.compute.backend.run(Predict {
        args: &args,
        task,
        open,
        rows,
        tokenized,
    })
}

impl Args {
    /// The row that `--text` and its companions describe.
    fn row(&self, task: &TaskSetup, text: &str) -> Result<Row> {
        let name = task.task;
        if self.text_pair.is_some() && name != Task::SeqCls {
            bail!("--text-pair: the adapter's task is {name}, which has no pairs of texts");
        }
        if self.question.is_some() && name != Task::Qa {
            bail!("--question: the adapter's task is {name}, which has no questions");
        }
        Ok(match name {
            Task::CausalLm => Row::PromptCompletion {
                prompt: text.to_owned(),
                completion: String::new(),
            },
            Task::SeqCls => Row::Classification {
                text: text.to_owned(),
                text_pair: self.text_pair.clone(),
                label: None,
            },
            Task::TokenCls => Row::Tagging {
                words: text.split_whitespace().map(str::to_owned).collect(),
                tags: None,
            },
            Task::Qa => Row::Question(Question {
                id: None,
                context: text.into(),
                question: self
                    .question
                    .clone()
                    .context("--question is missing; --text is the context")?,
                answers: None,
            }),
        })
    }
}

struct Predict<'a> {
    args: &'a Args,
    task: TaskSetup,
    open: OpenModel,
    rows: Rows,
    tokenized: Tokenized,
}

impl Job for Predict<'_> {
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
        let model = open.load::<B::InnerBackend>(args.compute.dtype(None).into(), &device)?;
        let held_out = HeldOutRows {
            rows: &rows,
            examples: tokenized.examples,
            task: &task,
            template: open.template(),
            tokenizer: &open.tokenizer,
            stop_ids: open.stop_ids(),
            batch_size: args.rows.batch_size,
            max_length: args.rows.max_length,
            ranks: ranks::all(),
        };
        open.check_ranks(&held_out)?;
        let output = args.output.as_deref().filter(|_| ranks::is_first());
        let mut file = output.map(StagedFile::new).transpose()?;
        let stop = Stop::new();
        stop.training_begins();
        signals::stop_run(stop.clone(), "batch", args.json)?;
        let interrupter = stop.interrupter();
        let mut bar = Progress::counting("predicting");
        let (mut done, all) = (0, rows.rows().len() as u64);
        let predicted = held_out.predict(&model, &mut |predicted: Predicted| {
            if interrupter.should_stop() {
                bail!("stopped after {done} of {all} rows");
            }
            done += 1;
            bar.set(done, all);
            match &mut file {
                Some(file) => {
                    let mut line = serde_json::to_vec(&predicted)?;
                    line.push(b'\n');
                    Ok(file.add(&line)?)
                }
                None if args.text.is_some() && !args.json => {
                    output::print_report(&format!("{}\n", plain(&predicted.prediction)))
                }
                None => output::print_json(&predicted),
            }
        });
        if interrupter.should_stop() {
            // Without the file that has no name yet.
            drop(file);
            output::say(&format!("stopped after {done} of {all} rows"));
            signals::leave(signals::INTERRUPTED);
        }
        predicted?;
        match file {
            Some(file) => Ok(file.commit()?),
            None => Ok(()),
        }
    }
}

/// A prediction for a reader.
fn plain(prediction: &Prediction) -> String {
    let numbers = |numbers: &[f32]| {
        let texts: Vec<String> = numbers.iter().map(f32::to_string).collect();
        texts.join(" ")
    };
    match prediction {
        Prediction::Label(name) => name.clone(),
        Prediction::Names(names) => names.join(" "),
        Prediction::Tags(tags) => {
            let tags = tags.iter().map(|tag| tag.as_deref().unwrap_or("-"));
            tags.collect::<Vec<_>>().join(" ")
        }
        Prediction::Number(number) => number.to_string(),
        Prediction::Numbers(found) => numbers(found),
        Prediction::Answer(answer) if answer.start.is_none() => "(no answer)".to_owned(),
        Prediction::Answer(answer) => answer.text.clone(),
        Prediction::Text(text) => text.clone(),
    }
}
