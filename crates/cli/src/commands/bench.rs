//! `bench`: what a training step, or a generated token, costs on random weights; and how a server answers.

mod load;

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::backend::AutodiffBackend;
use burn_peft::{InitTokens, MethodConfig, PeftModel};
use burn_peft_decoder::{Checkpoint, Decoder, DecoderConfig};
use burn_peft_ops::{Kernels, Ops};
use burn_peft_train::{
    GradientCheckpointing, StepSize, SyntheticBatch, Trainee, time_decoding, time_steps,
};
use serde::Serialize;

use super::shared::{ComputeArgs, Recompute, method_config};
use crate::{backend::Job, memory, output, progress::Progress};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    step: StepArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put a load on a running server: requests/s, time to the first token and between tokens, by number of models.
    Serve(load::Args),
}

/// Arguments of `bench` for a training step, or for decoding.
#[derive(Debug, clap::Args)]
struct StepArgs {
    /// Model shape: qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b, or a model folder, of which only config.json is read.
    // Asked for, unless there is a subcommand.
    #[arg(long, value_name = "SHAPE", required = true)]
    shape: Option<String>,
    /// Fine-tuning method: bitfit, prompt-tuning, p-tuning, prefix-tuning or p-tuning-v2 [default: prompt-tuning].
    #[arg(long, value_name = "M")]
    method: Option<String>,
    /// Number of rows per step.
    #[arg(long, value_name = "B", default_value_t = 4)]
    batch: usize,
    /// Number of tokens per row, without virtual tokens.
    #[arg(long, value_name = "S", default_value_t = 256)]
    seq: usize,
    /// Number of supervised tokens per row, at its end.
    #[arg(long, value_name = "L", default_value_t = 64)]
    labels: usize,
    /// Number of virtual tokens; BitFit has none.
    #[arg(long, value_name = "P", default_value_t = 20)]
    virtual_tokens: usize,
    /// Number of steps to time, after one warm-up step.
    #[arg(long, value_name = "N", default_value_t = 3)]
    steps: usize,
    /// Recompute each layer in the backward pass instead of keeping its states; auto: if a step would not fit
    /// in memory.
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        default_missing_value = "always",
        default_value = "never"
    )]
    recompute: Recompute,
    /// Time this many greedy tokens after a prompt of --seq, instead of training steps.
    #[arg(long, value_name = "N")]
    new_tokens: Option<usize>,
    /// Set an option of the method, as in --set method.prefix_projection=false.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object to stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A training step, measured.
#[derive(Serialize)]
struct StepReport {
    shape: String,
    method: String,
    backend: String,
    dtype: &'static str,
    batch: usize,
    seq: usize,
    labels: usize,
    virtual_tokens: usize,
    steps: usize,
    recompute: bool,
    /// The median, as everything derived from it.
    step_s: f64,
    step_min_s: f64,
    step_max_s: f64,
    tokens_per_s: f64,
    peak_gib: Option<f64>,
    trainable: usize,
}

/// Decoding, measured.
#[derive(Serialize)]
struct DecodingReport {
    shape: String,
    backend: String,
    dtype: &'static str,
    batch: usize,
    seq: usize,
    new_tokens: usize,
    /// Seconds a step of all rows, the median.
    token_s: f64,
    token_min_s: f64,
    token_max_s: f64,
    tokens_per_s: f64,
    peak_gib: Option<f64>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(Command::Serve(args)) = &args.command {
        return load::run(args);
    }
    let args = args.step;
    args.compute.start_threads()?;
    let config = args.config()?;
    let method = args.method()?;
    args.check(&config, &method)?;
    args.compute.backend.run(Bench {
        args: &args,
        config,
        method,
    })
}

impl StepArgs {
    fn shape(&self) -> &str {
        // Never absent: clap asks for it.
        self.shape.as_deref().unwrap_or_default()
    }

    fn config(&self) -> Result<DecoderConfig> {
        if let Some(config) = DecoderConfig::named(self.shape()) {
            return Ok(config);
        }
        let folder = Path::new(self.shape());
        if !folder.is_dir() {
            bail!(
                "--shape {}: no such model folder; the shapes with a name are {}",
                self.shape(),
                DecoderConfig::NAMES.join(", ")
            );
        }
        Ok(Checkpoint::read_config(folder)?)
    }

    fn method(&self) -> Result<MethodConfig> {
        let named = method_config(self.method.as_deref(), None, &[])?;
        let tokens = (named.num_virtual_tokens() > 0).then_some(self.virtual_tokens);
        let tokens = tokens.map(|tokens| (tokens, "--virtual-tokens"));
        method_config(self.method.as_deref(), tokens, &self.set)
    }

    fn check(&self, config: &DecoderConfig, method: &MethodConfig) -> Result<()> {
        for (flag, value) in [
            ("--batch", Some(self.batch)),
            ("--seq", Some(self.seq)),
            ("--labels", Some(self.labels)),
            ("--steps", Some(self.steps)),
            ("--new-tokens", self.new_tokens),
        ] {
            if value == Some(0) {
                bail!("{flag} 0: it must be at least 1");
            }
        }
        if self.new_tokens.is_none() && self.labels > self.seq {
            bail!("--labels {}: a row has {} tokens", self.labels, self.seq);
        }
        let (more, what) = match self.new_tokens {
            Some(tokens) => (tokens, "new"),
            None => (method.num_virtual_tokens(), "virtual"),
        };
        if self.seq > config.positions_left(more) {
            bail!(
                "--seq {}: with {more} {what} tokens it exceeds the {} positions of {}",
                self.seq,
                config.max_position_embeddings,
                self.shape()
            );
        }
        let Some(memory) = self.compute.backend.memory() else {
            return Ok(());
        };
        let size = StepSize {
            dtype: self.compute.dtype(None).into(),
            batch: self.batch,
            seq: self.seq,
        };
        // The least that either kind of run takes.
        let needed = size.bytes(config, true) as u64;
        if needed > memory {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            bail!(
                "--shape {}: it takes {:.1} GiB of memory, and there are {:.1}",
                self.shape(),
                gib(needed),
                gib(memory)
            );
        }
        method.check_memory(config, memory - needed)?;
        Ok(())
    }
}

struct Bench<'a> {
    args: &'a StepArgs,
    config: DecoderConfig,
    method: MethodConfig,
}

impl Job for Bench<'_> {
    fn run<B>(self, device: B::Device) -> Result<()>
    where
        B: AutodiffBackend<InnerBackend: Ops> + Ops,
    {
        let Self {
            args,
            config,
            method,
        } = self;
        if let Some(tokens) = args.new_tokens {
            let dtype = args.compute.dtype(None).into();
            let base = Decoder::<B::InnerBackend>::random(config, dtype, &device)?;
            let seconds = time_decoding(base, args.batch, args.seq, tokens);
            let peak_gib = peak_gib::<B>(&device);
            return args.report_decoding(tokens, seconds, peak_gib);
        }
        let base = Decoder::<B>::random(config, args.compute.dtype(None).into(), &device)?;
        let known_ids = base.config().vocab_size;
        let tokens = InitTokens {
            known_ids,
            ..InitTokens::default()
        };
        let adapter = method.init(&base, &tokens, 0)?;
        let trainable = method.num_trainable(base.config());
        let shape = SyntheticBatch {
            batch: args.batch,
            seq: args.seq,
            labels: args.labels,
        };
        let size = StepSize {
            dtype: args.compute.dtype(None).into(),
            batch: args.batch,
            seq: args.seq + method.num_virtual_tokens(),
        };
        let recompute = GradientCheckpointing::from(args.recompute);
        let recompute = recompute.decide(size, base.config(), args.compute.backend.memory());
        let trainee = Trainee::new(PeftModel::new(base, adapter)).recomputing(recompute);
        let mut bar = Progress::counting("timing");
        let seconds = time_steps(trainee, shape, args.steps, &mut |step| {
            bar.set(step as u64, args.steps as u64);
        });
        drop(bar);
        args.report_steps(
            &method,
            trainable,
            recompute,
            seconds,
            peak_gib::<B>(&device),
        )
    }
}

impl StepArgs {
    fn report_steps(
        &self,
        method: &MethodConfig,
        trainable: usize,
        recompute: bool,
        seconds: Vec<f64>,
        peak_gib: Option<f64>,
    ) -> Result<()> {
        let spread = Spread::of(seconds);
        let report = StepReport {
            shape: self.shape().to_owned(),
            method: method.name().to_owned(),
            backend: self.compute.backend.to_string(),
            dtype: self.compute.dtype(None).name(),
            batch: self.batch,
            seq: self.seq,
            labels: self.labels,
            virtual_tokens: method.num_virtual_tokens(),
            steps: self.steps,
            recompute,
            step_s: spread.median,
            step_min_s: spread.min,
            step_max_s: spread.max,
            tokens_per_s: (self.batch * self.seq) as f64 / spread.median,
            peak_gib,
            trainable,
        };
        if self.json {
            return output::print_json(&report);
        }
        output::print(&format!(
            "{} {} on {} in {}: {:.3} s a step ({:.3} to {:.3}), {:.1} tokens/s{}\n",
            report.shape,
            report.method,
            report.backend,
            report.dtype,
            report.step_s,
            report.step_min_s,
            report.step_max_s,
            report.tokens_per_s,
            peak_text(report.peak_gib),
        ))
    }

    fn report_decoding(
        &self,
        tokens: usize,
        seconds: Vec<f64>,
        peak_gib: Option<f64>,
    ) -> Result<()> {
        let spread = Spread::of(seconds);
        let report = DecodingReport {
            shape: self.shape().to_owned(),
            backend: self.compute.backend.to_string(),
            dtype: self.compute.dtype(None).name(),
            batch: self.batch,
            seq: self.seq,
            new_tokens: tokens,
            token_s: spread.median,
            token_min_s: spread.min,
            token_max_s: spread.max,
            tokens_per_s: self.batch as f64 / spread.median,
            peak_gib,
        };
        if self.json {
            return output::print_json(&report);
        }
        output::print(&format!(
            "{} decoding on {} in {}: {:.1} ms a token ({:.1} to {:.1}), {:.1} tokens/s{}\n",
            report.shape,
            report.backend,
            report.dtype,
            1e3 * report.token_s,
            1e3 * report.token_min_s,
            1e3 * report.token_max_s,
            report.tokens_per_s,
            peak_text(report.peak_gib),
        ))
    }
}

/// Of the device's own memory, or else of the process's.
fn peak_gib<B: Ops>(device: &B::Device) -> Option<f64> {
    let bytes = B::Plain::reserved_memory(device).or_else(memory::peak_resident);
    bytes.map(|bytes| bytes as f64 / (1_u64 << 30) as f64)
}

fn peak_text(peak: Option<f64>) -> String {
    peak.map_or_else(String::new, |peak| format!(", peak {peak:.2} GiB"))
}

/// Of several timings.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let count = seconds.len();
        Self {
            min: seconds[0],
            median: (seconds[(count - 1) / 2] + seconds[count / 2]) / 2.0,
            max: seconds[count - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of(vec![2.0, 9.0, 1.0]).median, 2.0);
    }
}
