//! A report that grows by lines.

use super::paint::{Look, Paint, column, columns, padded, wrapped};
use crate::output::escaped;

/// Columns of the name of a fact.
pub(super) const NAME: usize = 12;

/// Lines under headings.
pub(super) struct Page {
    pub(super) paint: Paint,
    pub(super) text: String,
}

impl Page {
    pub(super) fn heading(&mut self, title: &str, beside: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &self.paint.paint(Look::Heading, title);
        if !beside.is_empty() {
            let room = self.paint.width - columns(title) - 2;
            let beside = ending(beside, room);
            let gap = self.paint.width - columns(title) - columns(&beside);
            self.text += &" ".repeat(gap);
            self.text += &self.paint.paint(Look::Dim, &beside);
        }
        self.text.push('\n');
    }

    /// A line that is drawn already.
    pub(super) fn line(&mut self, line: &str) {
        self.text += format!("  {line}").trim_end();
        self.text.push('\n');
    }

    /// A fact, on as many lines as it takes.
    pub(super) fn fact(&mut self, name: &str, value: &str) {
        let value = escaped(&value.replace('\n', " "));
        let lines = wrapped(&value, self.paint.width - NAME - 2);
        for (index, line) in lines.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let name = padded(name, NAME);
            self.line(&format!("{}{line}", self.paint.paint(Look::Dim, &name)));
        }
    }

    /// A sentence behind a mark.
    pub(super) fn marked(&mut self, mark: &str, look: Look, text: &str) {
        let text = escaped(&text.replace('\n', " "));
        for (index, line) in wrapped(&text, self.paint.width - 4).iter().enumerate() {
            let mark = if index == 0 { mark } else { " " };
            self.line(&format!("{} {line}", self.paint.paint(look, mark)));
        }
    }
}

/// The end of a text that is too long, as of a path.
fn ending(text: &str, width: usize) -> String {
    let mut length = columns(text);
    if length <= width {
        return text.to_owned();
    }
    let rest = text.chars().skip_while(|c| {
        let skipped = length >= width;
        length -= if skipped { column(*c) } else { 0 };
        skipped
    });
    std::iter::once('…').chain(rest).collect()
}
