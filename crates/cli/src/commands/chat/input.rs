//! Where lines come from: a terminal with line editing, or anything else line by line.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context as _, Result, bail};
use rustyline::{
    Behavior, Config, Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::MemHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    adapters::{Adapters, NONE},
    command::COMMANDS,
};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A line, or of a terminal several.
    Line(String),
    /// Ctrl-C in place of a line.
    Interrupt,
    /// The end of the input.
    End,
}

/// The source of lines.
pub(super) enum Input {
    /// Somebody types.
    Terminal(Box<Editor<Completions, MemHistory>>),
    /// One line is one turn.
    Lines(io::Lines<io::StdinLock<'static>>),
}

impl Input {
    /// Standard input.
    pub(super) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(io::stdin().lock().lines()));
        }
        let config = Config::builder()
            .auto_add_history(true)
            // Standard output may be a file or a pipe.
            .behavior(Behavior::PreferTerm)
            .build();
        let mut editor = Editor::with_history(config, MemHistory::new()).context(CANNOT_READ)?;
        editor.set_helper(Some(Completions::default()));
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// Whether somebody types.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line. `label` stands in front of the prompt, and the names of `adapters` can be completed.
    pub(super) fn read(&mut self, label: &str, adapters: &Adapters) -> Result<Read> {
        match self {
            Self::Lines(lines) => match lines.next().transpose() {
                Ok(Some(line)) => Ok(Read::Line(line)),
                Ok(None) => Ok(Read::End),
                Err(error) => Err(error).context(CANNOT_READ),
            },
            Self::Terminal(editor) => {
                if let Some(completions) = editor.helper_mut() {
                    completions.adapters = names(adapters);
                }
                let prompt = format!("{label}> ");
                let styled = format!("\u{1b}[1m{prompt}\u{1b}[0m");
                match editor.readline(&(prompt, styled)) {
                    Ok(text) => Ok(Read::Line(text.replace("\\\n", "\n"))),
                    Err(ReadlineError::Interrupted) => Ok(Read::Interrupt),
                    Err(ReadlineError::Eof) => Ok(Read::End),
                    Err(error) => bail!("{CANNOT_READ}: {error}"),
                }
            }
        }
    }
}

/// What is said when standard input gives nothing.
const CANNOT_READ: &str = "cannot read from standard input";

fn names(adapters: &Adapters) -> Vec<String> {
    let names = adapters.all().iter().map(|named| named.name.clone());
    names.chain([NONE.to_owned()]).collect()
}

/// Completes commands and names of adapters, and lets a line go on behind a backslash.
#[derive(Debug, Default)]
pub(super) struct Completions {
    adapters: Vec<String>,
}

impl Completions {
    /// Where what is completed begins, and what it may become.
    fn of(&self, line: &str) -> (usize, Vec<String>) {
        let beginning = |text: &str, all: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            let fitting = all.filter(|name| name.starts_with(text));
            fitting.map(str::to_owned).collect()
        };
        if let Some(name) = line.strip_prefix("/adapter ") {
            let names = &mut self.adapters.iter().map(String::as_str);
            return (line.len() - name.len(), beginning(name, names));
        }
        match line.starts_with('/') && !line.contains(char::is_whitespace) {
            true => {
                let names = &mut COMMANDS.iter().map(|(name, ..)| *name);
                (0, beginning(line, names))
            }
            false => (line.len(), Vec::new()),
        }
    }
}

impl Completer for Completions {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.of(&line[..at]))
    }
}

impl Validator for Completions {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match context.input().ends_with('\\') {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Hinter for Completions {
    type Hint = String;
}

impl Highlighter for Completions {}

impl Helper for Completions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_adapters_are_completed() {
        let adapters = ["cards".to_owned(), "cats".to_owned()];
        let completions = Completions {
            adapters: adapters.into(),
        };
        let of = |line: &str| completions.of(line);
        assert_eq!(of("/adapters"), (0, vec!["/adapters".to_owned()]));
        assert_eq!(of("/sa"), (0, vec!["/save".to_owned()]));
        let both = vec!["cards".to_owned(), "cats".to_owned()];
        assert_eq!(of("/adapter ca"), (9, both));
        assert_eq!(of("a /sa"), (5, vec![]));
    }
}
