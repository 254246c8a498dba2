//! `burn-peft`: tunes, evaluates and runs language models with adapters of a few parameters.
//!
//! A thin program: it parses arguments, picks the backend and calls one function of the crates.

#![forbid(unsafe_code)]

mod backend;
mod builtin;
mod commands;
mod faults;
mod hub;
mod memory;
mod output;
mod progress;
mod ranks;
mod signals;
mod source;

use std::process::ExitCode;

use anyhow::Context;
use burn_peft_ops::{Allocator, keep_freed_memory};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Parameter-efficient fine-tuning of Qwen2, Qwen2.5, Qwen3 and Llama models, in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "burn-peft",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train an adapter (without arguments, on the built-in model and task).
    Train(commands::train::Args),
    /// Score a file: loss, perplexity, and the generated text for prompts with completions.
    Evaluate(commands::evaluate::Args),
    /// Predict labels, tags, answers or texts for rows.
    Predict(commands::predict::Args),
    /// Continue a text.
    Generate(commands::generate::Args),
    /// Show what a model or adapter folder contains.
    Inspect(commands::inspect::Args),
    /// Merge an adapter into a checkpoint, or write its prompt as a tensor.
    Export(commands::export::Args),
    /// Talk to a model, with or without adapters.
    Chat(commands::chat::Args),
    /// Check a run before it starts: files, tokens, lengths, memory and time. Takes the arguments of train.
    Doctor(commands::doctor::Args),
    /// Serve a model and any number of adapters over an OpenAI-compatible HTTP interface.
    Serve(commands::serve::Args),
    /// Time training steps or decoding with random weights of a model's shape.
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    keep_freed_memory();
    signals::survive_file_limits();
    faults::guarded(run)
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    exit_code(run_command(cli.command))
}

fn run_command(command: Command) -> anyhow::Result<()> {
    match command.alone() {
        Some(name) => ranks::refuse(name)?,
        None => ranks::join()?,
    }
    match command {
        Command::Train(args) => commands::train::run(args),
        Command::Evaluate(args) => commands::evaluate::run(args),
        Command::Predict(args) => commands::predict::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Bench(args) => commands::bench::run(args),
    }
}

impl Command {
    /// The name of a command that several processes cannot share.
    fn alone(&self) -> Option<&'static str> {
        match self {
            Self::Train(args) => args.alone(),
            Self::Evaluate(_) | Self::Predict(_) => None,
            Self::Generate(_) => Some("generate"),
            Self::Inspect(_) => Some("inspect"),
            Self::Export(_) => Some("export"),
            Self::Chat(_) => Some("chat"),
            Self::Doctor(_) => Some("doctor"),
            Self::Serve(_) => Some("serve"),
            Self::Bench(_) => Some("bench"),
        }
    }
}

/// Prints help, the version, or what is wrong with the arguments.
fn usage(text: &clap::Error) -> ExitCode {
    if !ranks::is_first() {
        ranks::after_the_first();
        return ExitCode::from(if text.use_stderr() { 2 } else { 0 });
    }
    match text.print() {
        // Nobody is left to tell when standard error is closed.
        _ if text.use_stderr() => ExitCode::from(2),
        written => exit_code(written.context(output::NO_STDOUT)),
    }
}

fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => {
            ranks::finish();
            ExitCode::SUCCESS
        }
        Err(error) if output::reader_is_gone(&error) => {
            // The others may wait for this one.
            ranks::abort(0);
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&output::one_line(&error));
            ranks::abort(1);
            ExitCode::FAILURE
        }
    }
}
