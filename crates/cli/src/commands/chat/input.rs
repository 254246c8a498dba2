//! Where lines come from: a terminal with line editing, or anything else line by line.

use std::{
    cell::Cell,
    io::{self, BufRead, IsTerminal},
};

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
    /// Ctrl-C where nothing was typed.
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
                    completions.has_text.set(false);
                }
                let prompt = format!("{}> ", shortened(label));
                let styled = format!("\u{1b}[1m{prompt}\u{1b}[0m");
                match editor.readline(&(prompt, styled)) {
                    Ok(text) => Ok(Read::Line(without_quotes(&text).to_owned())),
                    Err(ReadlineError::Interrupted) if has_text(editor) => {
                        Ok(Read::Line(String::new()))
                    }
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

/// Whether something was typed into the line that ended last.
fn has_text(editor: &Editor<Completions, MemHistory>) -> bool {
    editor.helper().is_some_and(|helper| helper.has_text.get())
}

/// The longest name in front of a prompt, in characters.
const LONGEST_LABEL: usize = 24;

/// The end of a name that is long.
fn shortened(label: &str) -> String {
    let count = label.chars().count();
    match count > LONGEST_LABEL {
        true => format!(
            "…{}",
            label
                .chars()
                .skip(count + 1 - LONGEST_LABEL)
                .collect::<String>()
        ),
        false => label.to_owned(),
    }
}

/// What stands around a turn of several lines.
const QUOTES: &str = "\"\"\"";

/// Whether a turn of several lines has begun and not ended.
fn is_open(text: &str) -> bool {
    let rest = text.strip_prefix(QUOTES);
    rest.is_some_and(|rest| !rest.trim_end().ends_with(QUOTES))
}

/// The lines between the quotes, if a text has them around it.
fn without_quotes(text: &str) -> &str {
    let rest = text.strip_prefix(QUOTES);
    let inner = rest.and_then(|rest| rest.trim_end().strip_suffix(QUOTES));
    inner.map_or(text, |inner| inner.trim_matches('\n'))
}

/// Completes commands and names of adapters, and lets a turn in quotes have several lines.
#[derive(Debug, Default)]
pub(super) struct Completions {
    adapters: Vec<String>,
    /// Whether there is something in the line: whoever presses Ctrl-C then wants another line, and not to leave.
    has_text: Cell<bool>,
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
        Ok(match is_open(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Hinter for Completions {
    type Hint = String;

    /// Gives no hint. It is asked for one whenever the line changes.
    fn hint(&self, line: &str, _at: usize, _context: &Context<'_>) -> Option<String> {
        self.has_text.set(!line.is_empty());
        None
    }
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
            ..Completions::default()
        };
        let of = |line: &str| completions.of(line);
        assert_eq!(of("/adapters"), (0, vec!["/adapters".to_owned()]));
        assert_eq!(of("/sa"), (0, vec!["/save".to_owned()]));
        let both = vec!["cards".to_owned(), "cats".to_owned()];
        assert_eq!(of("/adapter ca"), (9, both));
        assert_eq!(of("a /sa"), (5, vec![]));
    }

    #[test]
    fn a_turn_in_quotes_has_lines_until_they_close() {
        for (text, inner) in [
            ("\"\"\"a\nb\"\"\" ", Some("a\nb")),
            ("\"\"\"\na \\\n\nb\n\"\"\"", Some("a \\\n\nb")),
            ("\"\"\"a\n\"\"", None),
            ("\"\"\"", None),
        ] {
            assert_eq!(is_open(text), inner.is_none(), "{text}");
            assert_eq!(without_quotes(text), inner.unwrap_or(text));
        }
        assert!(!is_open("a \"\"\""));
        assert_eq!(without_quotes("a \"\"\""), "a \"\"\"");
    }

    #[test]
    fn a_long_name_shows_its_end() {
        assert_eq!(shortened("cards"), "cards");
        let long = shortened("/a/very/long/path/to/some/adapter");
        assert_eq!(long.chars().count(), LONGEST_LABEL);
        assert!(
            long.starts_with('…') && long.ends_with("some/adapter"),
            "{long}"
        );
    }
}
