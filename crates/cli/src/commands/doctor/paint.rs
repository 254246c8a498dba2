//! Colours, where there are any, and the width of lines.

use std::io::{IsTerminal, stdout};

use crossterm::style::Stylize;
use unicode_width::UnicodeWidthChar;

/// Lines that are longer are hard to read.
const WIDEST: usize = 110;
/// A terminal that does not say how wide it is, and a file.
const USUAL: usize = 80;

/// How a report is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colour: bool,
    /// Characters of a line.
    pub(super) width: usize,
}

/// What is drawn differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// What the model learns.
    Learned,
    /// Virtual tokens.
    Virtual,
    /// What matters less.
    Dim,
    Heading,
    Good,
    Warning,
    Bad,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = stdout().is_terminal();
        let size = crossterm::terminal::size().ok().filter(|_| terminal);
        let columns = size.map_or(USUAL, |(columns, _)| usize::from(columns));
        Self {
            colour: terminal && !dumb && !set("NO_COLOR"),
            width: columns.clamp(40, WIDEST),
        }
    }

    #[cfg(test)]
    pub(super) fn plain(width: usize) -> Self {
        Self {
            colour: false,
            width,
        }
    }

    /// Whether there are colours.
    pub(super) fn has_colour(self) -> bool {
        self.colour
    }

    /// A text with this look. Control characters in it must have been replaced.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        // The darker colours can be read on light backgrounds, too.
        match look {
            Look::Plain => text.to_owned(),
            Look::Learned | Look::Good => text.dark_green().to_string(),
            Look::Virtual => text.dark_magenta().to_string(),
            Look::Dim => text.dim().to_string(),
            Look::Heading => text.bold().to_string(),
            Look::Warning => text.dark_yellow().to_string(),
            Look::Bad => text.dark_red().bold().to_string(),
        }
    }
}

/// The columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(column).sum()
}

/// The columns that a character takes.
pub(super) fn column(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// A text, filled up with spaces to so many columns.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Words on lines of at most `width` columns; a longer word has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && columns(line) + 1 + columns(word) > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            *line += word;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_wide_as_they_may_be_and_lose_no_word() {
        let text = "one two three 日本語 five";
        for width in [1, 6, 11, 40] {
            let lines = wrapped(text, width);
            assert_eq!(lines.join(" "), text);
            let fits = |line: &String| columns(line) <= width || !line.contains(' ');
            assert!(lines.iter().all(fits), "{lines:?}");
        }
        assert_eq!(wrapped(text, 10)[1], "three");
        assert_eq!(columns("日本語"), 6);
    }

    #[test]
    fn without_colours_there_is_no_escape_sequence() {
        let text = Paint::plain(80).paint(Look::Learned, "text");
        assert_eq!(text, "text");
    }
}
