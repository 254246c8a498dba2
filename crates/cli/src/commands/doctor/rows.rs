//! Rows as text, with what is learned of them.

use burn_peft_train::{PreviewRow, Stretch};

use super::{
    lengths::count,
    paint::{Look, Paint, columns, wrapped},
};
use crate::output::escaped;

/// Above so many characters, the middle of a stretch is left out.
const LONGEST: usize = 600;
/// Words with tags that are shown.
const WORDS: usize = 60;

/// What stands in front of each line.
const GUTTER: &str = "│ ";

/// A row: what it is, its text, and its label or tags.
pub(super) fn lines(row: &PreviewRow, paint: Paint) -> Vec<String> {
    let is_virtual = |stretch: &&Stretch| matches!(stretch, Stretch::Virtual { .. });
    let learned = row.tokens.iter().filter(|token| token.learned).count();
    let tokens = row.tokens.iter().filter(|token| token.id.is_some()).count();
    let mut title = format!("line {} · {} tokens", row.line, count(tokens));
    if row.stretches.iter().any(|stretch| is_virtual(&stretch)) {
        title += &format!(" + {} virtual", count(row.tokens.len() - tokens));
    }
    if learned > 0 && row.label.is_none() {
        title += &format!(" · {} learned", count(learned));
    }
    let mut lines = vec![paint.paint(Look::Dim, &title)];
    lines.extend(text(row, paint));
    if let Some(label) = &row.label {
        let label = escaped(&shortened(label).replace('\n', " "));
        let name = paint.paint(Look::Dim, "label  ");
        for (index, line) in wrapped(&label, paint.width - 9).iter().enumerate() {
            let name = if index == 0 { &name } else { "       " };
            lines.push(format!("{name}{}", paint.paint(Look::Learned, line)));
        }
    }
    if !row.tags.is_empty() {
        lines.extend(tags(row, paint));
    }
    lines
}

/// Text on lines with a gutter, and how wide the last one is.
struct Block {
    paint: Paint,
    lines: Vec<String>,
    line: String,
    width: usize,
}

impl Block {
    fn new(paint: Paint) -> Self {
        Self {
            paint,
            lines: Vec::new(),
            line: String::new(),
            width: 0,
        }
    }

    fn end_line(&mut self) {
        let gutter = self.paint.paint(Look::Dim, GUTTER);
        let line = std::mem::take(&mut self.line);
        self.lines.push(gutter + &line);
        self.width = 0;
    }

    /// Adds text, and breaks lines where the text has a break, and between words where they are full.
    fn push(&mut self, look: Look, text: &str) {
        let room = self.room();
        let mut piece = String::new();
        let end = |block: &mut Self, piece: &mut String| {
            block.line += &block.paint.paint(look, piece);
            piece.clear();
            block.end_line();
        };
        for word in text.split_inclusive([' ', '\n']) {
            let shown = word.chars().map(shown);
            let width = shown.clone().map(|shown| columns(&shown)).sum::<usize>();
            if self.width > 0 && self.width + width > room && width <= room {
                end(self, &mut piece);
            }
            for shown in shown {
                let width = columns(&shown);
                if self.width + width > room {
                    end(self, &mut piece);
                }
                self.width += width;
                piece += &shown;
            }
            if word.ends_with('\n') {
                end(self, &mut piece);
            }
        }
        self.line += &self.paint.paint(look, &piece);
    }

    /// Columns of a line behind the gutter. The report indents by two, too.
    fn room(&self) -> usize {
        self.paint.width - columns(GUTTER) - 2
    }

    fn finish(mut self) -> Vec<String> {
        if self.width > 0 {
            self.end_line();
        }
        self.lines
    }
}

/// A character as it can be seen, and without what it would do to a terminal.
fn shown(c: char) -> String {
    match c {
        '\n' => "⏎".to_owned(),
        '\t' => "⇥".to_owned(),
        c => escaped(c.encode_utf8(&mut [0; 4])),
    }
}

fn text(row: &PreviewRow, paint: Paint) -> Vec<String> {
    let mut block = Block::new(paint);
    for stretch in &row.stretches {
        match stretch {
            Stretch::Virtual { virtual_tokens } => {
                block.push(Look::Virtual, &format!("[{virtual_tokens} virtual tokens]"));
            }
            Stretch::Text {
                text,
                learned: false,
            } => block.push(Look::Plain, &shortened(text)),
            Stretch::Text { text, .. } if paint.has_colour() => {
                block.push(Look::Learned, &shortened(text));
            }
            Stretch::Text { text, .. } => {
                block.push(Look::Plain, &format!("⟦{}⟧", shortened(text)));
            }
        }
    }
    block.finish()
}

/// A text without its middle, if that is long.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= LONGEST {
        return text.to_owned();
    }
    let half = LONGEST / 2;
    let first: String = text.chars().take(half).collect();
    let last: String = text.chars().skip(length - half).collect();
    format!(
        "{first} … ({} characters) … {last}",
        count(length - 2 * half)
    )
}

/// Words with their tags.
fn tags(row: &PreviewRow, paint: Paint) -> Vec<String> {
    let mut block = Block::new(paint);
    for (word, tag) in row.tags.iter().take(WORDS) {
        let word = escaped(&word.replace('\n', " "));
        let tag = tag.as_deref().map_or_else(|| "–".to_owned(), escaped);
        if block.width > 0 && block.width + columns(&word) + columns(&tag) + 3 > block.room() {
            block.end_line();
        } else if block.width > 0 {
            block.push(Look::Plain, "  ");
        }
        block.push(Look::Plain, &word);
        block.push(Look::Dim, "/");
        let look = match tag.as_str() {
            "O" | "–" => Look::Dim,
            _ => Look::Learned,
        };
        block.push(look, &tag);
    }
    let mut lines = block.finish();
    if row.tags.len() > WORDS {
        let more = format!("{}… {} more words", GUTTER, row.tags.len() - WORDS);
        lines.push(paint.paint(Look::Dim, &more));
    }
    lines.insert(0, paint.paint(Look::Dim, "tags"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stretches: Vec<Stretch>) -> PreviewRow {
        PreviewRow {
            line: 1,
            label: None,
            tags: Vec::new(),
            stretches,
            tokens: Vec::new(),
        }
    }

    fn text(text: &str, learned: bool) -> Stretch {
        Stretch::Text {
            text: text.to_owned(),
            learned,
        }
    }

    #[test]
    fn without_colours_marks_stand_around_what_is_learned() {
        let row = row(vec![
            Stretch::Virtual { virtual_tokens: 3 },
            text("question\n", false),
            text("answer", true),
        ]);
        let lines = lines(&row, Paint::plain(80));
        assert_eq!(lines[1..], ["│ [3 virtual tokens]question⏎", "│ ⟦answer⟧"]);
    }

    #[test]
    fn lines_break_between_words_and_lose_nothing() {
        let sentence = "The quick brown fox jumps over the lazy dog. ".repeat(5);
        let row = row(vec![text(&sentence, false)]);
        let lines = lines(&row, Paint::plain(50));
        let lines = lines[1..]
            .iter()
            .map(|line| line.trim_start_matches(GUTTER));
        assert_eq!(lines.clone().collect::<String>(), sentence);
        assert!(lines.clone().all(|line| line.ends_with(' ')));
        assert!(lines.count() > 5);
    }

    #[test]
    fn nothing_in_a_row_steers_the_terminal_and_lines_fit() {
        let row = row(vec![
            text("a\u{1b}[31m\u{202e}b", false),
            text(&"日".repeat(300), true),
        ]);
        let lines = lines(&row, Paint::plain(50));
        assert!(lines.iter().all(|line| columns(line) <= 48), "{lines:#?}");
        let all = lines.concat();
        assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}'));
        assert_eq!(all.matches('日').count(), 300);
    }

    #[test]
    fn the_middle_of_a_long_text_is_left_out_and_counted() {
        let long = format!("begin{}end", "x".repeat(5000));
        let short = shortened(&long);
        assert!(short.starts_with("begin") && short.ends_with("end"));
        assert!(short.contains("(4,408 characters)"), "{short}");
    }

    #[test]
    fn words_stand_beside_their_tags() {
        let mut row = row(vec![text("a b", false)]);
        row.tags = vec![("a".into(), Some("B-X".into())), ("b".into(), None)];
        let lines = lines(&row, Paint::plain(80));
        assert_eq!(lines.last().unwrap(), "│ a/B-X  b/–");
    }
}
