//! Commands that later versions have.

use anyhow::{Result, bail};

/// Whatever is typed behind the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// Says that the command is not there yet.
pub(crate) fn refuse(command: &str) -> Result<()> {
    bail!(
        "`{command}` is not there yet in this version; \
         there are `train`, `evaluate`, `predict`, `generate`, `inspect`, `export`, `serve` and `bench`"
    )
}
