//! What goes to the terminal. Of several processes only the first speaks, but each says its errors.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::ranks;

/// What is said when standard output takes no more.
pub(crate) const NO_STDOUT: &str = "cannot write to standard output";

/// One JSON value on a line of stdout.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    print(&line)
}

/// Text to stdout, shown at once.
pub(crate) fn print(text: &str) -> Result<()> {
    if !ranks::is_first() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context(NO_STDOUT)
}

/// A report to stdout. Names in it come from files, and what in them would steer a terminal is escaped.
pub(crate) fn print_report(text: &str) -> Result<()> {
    let lines = text.split('\n').map(escaped);
    print(&lines.collect::<Vec<_>>().join("\n"))
}

/// Text to stdout that nobody knows: what in it would steer a terminal is escaped, but for the ends of lines and tabs.
pub(crate) fn print_harmless(text: &str) -> Result<()> {
    let parts = text.split_inclusive(['\n', '\t']).map(|part| {
        let end = part
            .strip_suffix(['\n', '\t'])
            .map_or("", |kept| &part[kept.len()..]);
        escaped(&part[..part.len() - end.len()]) + end
    });
    print(&parts.collect::<String>())
}

/// A line to stderr for whoever types, less loud than what they read there, where colours are wanted.
pub(crate) fn note(line: &str) {
    let stderr = io::stderr();
    let plain =
        !ranks::is_first() || !stderr.is_terminal() || std::env::var_os("NO_COLOR").is_some();
    match plain {
        true => say(line),
        false => {
            writeln!(stderr.lock(), "\u{1b}[2m{}\u{1b}[0m", bearable(line)).unwrap_or_default()
        }
    }
}

/// The longest line on stderr, in characters.
const LONGEST_LINE: usize = 4000;

/// A line to stderr, escaped and cut: what it quotes may be anything. Nobody is left to tell when stderr is closed, and
/// that must not end a run.
pub(crate) fn say(line: &str) {
    if ranks::is_first() {
        say_of_any(line);
    }
}

/// An error, as [`say`] says a line, also of another process than the first. What the first says too is left to it.
pub(crate) fn error(text: &str) {
    ranks::after_the_first();
    say_of_any(&match ranks::name() {
        Some(name) => format!("error: {name}: {text}"),
        None => format!("error: {text}"),
    });
}

fn say_of_any(line: &str) {
    writeln!(io::stderr().lock(), "{}", bearable(line)).ok();
}

/// A text as a line of stderr has it.
fn bearable(text: &str) -> String {
    let line = escaped(&text.replace(['\n', '\r', '\t'], " "));
    match line.char_indices().nth(LONGEST_LINE) {
        None => line,
        Some((end, _)) => format!("{}… ({} characters)", &line[..end], line.chars().count()),
    }
}

/// The text with escapes in place of the characters that steer a terminal or turn the direction of writing.
pub(crate) fn escaped(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match steers(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Points standard output and standard error nowhere where they are a terminal that was closed: writing there fails, and
/// not everything that writes is prepared for that.
pub(crate) fn let_go_of_a_closed_terminal() {
    #[cfg(unix)]
    {
        use nix::{errno::Errno, sys::termios::tcgetattr, unistd};
        let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") else {
            return;
        };
        if tcgetattr(io::stdout()).err() == Some(Errno::EIO) {
            unistd::dup2_stdout(&nowhere).ok();
        }
        if tcgetattr(io::stderr()).err() == Some(Errno::EIO) {
            unistd::dup2_stderr(&nowhere).ok();
        }
    }
}

/// A warning to stderr, on one line.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// An error with its causes on one line. A cause that the text before it quotes already is left
/// out: some libraries repeat their sources, others do not.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

/// Whether the program reading our output closed it, as `head` does.
pub(crate) fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json = cause
            .downcast_ref::<serde_json::Error>()
            .and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let not_found = || io::Error::new(io::ErrorKind::NotFound, "not found");
        let silent = Err::<(), _>(not_found()).context("a.json");
        assert_eq!(one_line(&silent.unwrap_err()), "a.json: not found");
        let repeating = Err::<(), _>(not_found()).context("a.json: not found");
        assert_eq!(one_line(&repeating.unwrap_err()), "a.json: not found");
    }

    #[test]
    fn what_is_quoted_cannot_steer_the_terminal_or_flood_it() {
        assert_eq!(
            bearable("a\u{1b}[31m\nb\tc\r\u{7f}\u{9b}\u{202e}é🙂"),
            r"a\u{1b}[31m b c \u{7f}\u{9b}\u{202e}é🙂"
        );
        let long = bearable(&"é".repeat(100_000));
        assert!(long.ends_with("é… (100000 characters)"), "{long}");
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), LONGEST_LINE);
        let fits = "x".repeat(LONGEST_LINE);
        assert_eq!(bearable(&fits), fits);
    }
}
