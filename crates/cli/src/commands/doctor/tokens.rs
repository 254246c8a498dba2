//! The tokens of a row: position, id, text and label, a column each.

use burn_peft_train::PreviewToken;

use super::paint::{Look, Paint, columns, padded};
use crate::output::escaped;

/// Tokens that are shown at the ends and on both sides of where learning begins or ends.
const AROUND: usize = 5;
/// Columns of a token's text.
const LONGEST: usize = 14;
/// Blocks of lines.
const BLOCKS: usize = 6;

/// What one column shows.
struct Column {
    cells: [String; 4],
    look: Look,
}

/// Lines that show the tokens of a row, as many side by side as fit. Long stretches of one kind are left out.
pub(super) fn listing(tokens: &[PreviewToken], paint: Paint) -> Vec<String> {
    const NAMES: [&str; 4] = ["position", "id", "token", "label"];
    let indent = "position".len() + 2;
    let (mut lines, mut block, mut width) = (Vec::new(), Vec::new(), indent);
    let mut blocks = 0;
    let columns_of_row = columns_of(tokens);
    let all = columns_of_row.len();
    let mut shown = 0;
    let mut flush = |block: &mut Vec<Column>| {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        for (row, name) in NAMES.iter().enumerate() {
            let mut line = paint.paint(Look::Dim, &padded(name, indent));
            for column in block.iter() {
                let text = padded(&column.cells[row], width_of(column) + 2);
                let look = match (row, column.look) {
                    (_, Look::Virtual | Look::Dim) | (2, _) | (3, Look::Learned) => column.look,
                    _ => Look::Dim,
                };
                line += &paint.paint(look, &text);
            }
            lines.push(line.trim_end().to_owned());
        }
        block.clear();
    };
    for column in columns_of_row {
        let own = width_of(&column) + 2;
        if width + own > paint.width.saturating_sub(4) && !block.is_empty() {
            flush(&mut block);
            (width, blocks) = (indent, blocks + 1);
        }
        if blocks == BLOCKS {
            break;
        }
        shown += 1;
        width += own;
        block.push(column);
    }
    if !block.is_empty() {
        flush(&mut block);
    }
    if shown < all {
        lines.push(paint.paint(Look::Dim, "… (--json has all tokens)"));
    }
    lines
}

fn width_of(column: &Column) -> usize {
    let widths = column.cells.iter().map(|cell| columns(cell));
    widths.max().unwrap_or(0)
}

/// Tokens near an end or a change, and one column for each stretch between.
fn columns_of(tokens: &[PreviewToken]) -> Vec<Column> {
    let kind = |token: &PreviewToken| (token.id.is_none(), token.learned);
    let mut found = Vec::new();
    for stretch in tokens.chunk_by(|a, b| kind(a) == kind(b)) {
        if stretch[0].id.is_none() {
            found.push(virtual_tokens(stretch));
        } else if stretch.len() <= 2 * AROUND + 1 {
            found.extend(stretch.iter().map(one));
        } else {
            let (first, rest) = stretch.split_at(AROUND);
            let (between, last) = rest.split_at(rest.len() - AROUND);
            found.extend(first.iter().map(one));
            found.push(left_out(between));
            found.extend(last.iter().map(one));
        }
    }
    found
}

fn span(tokens: &[PreviewToken]) -> String {
    match tokens {
        [only] => only.position.to_string(),
        [first, .., last] => format!("{}–{}", first.position, last.position),
        [] => String::new(),
    }
}

fn virtual_tokens(tokens: &[PreviewToken]) -> Column {
    let text = format!("{} virtual", tokens.len());
    Column {
        cells: [span(tokens), "–".into(), text, "–".into()],
        look: Look::Virtual,
    }
}

fn left_out(tokens: &[PreviewToken]) -> Column {
    let text = format!("({} more)", tokens.len());
    Column {
        cells: [span(tokens), "…".into(), text, "…".into()],
        look: Look::Dim,
    }
}

fn one(token: &PreviewToken) -> Column {
    let number = |number: Option<String>| number.unwrap_or_default();
    Column {
        cells: [
            token.position.to_string(),
            number(token.id.map(|id| id.to_string())),
            visible(&token.text),
            number(token.label.map(|label| label.to_string())),
        ],
        look: match token.learned {
            true => Look::Learned,
            false => Look::Plain,
        },
    }
}

/// A token's text on one line, with spaces that can be seen.
fn visible(text: &str) -> String {
    let text = text.replace('\n', "⏎").replace('\t', "⇥").replace(' ', "·");
    let text = escaped(&text);
    if columns(&text) <= LONGEST {
        return text;
    }
    let mut short: String = text.chars().take(LONGEST - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(position: usize, id: Option<u32>, learned: bool) -> PreviewToken {
        PreviewToken {
            position,
            id,
            text: id.map_or_else(String::new, |id| format!(" w{id}")),
            label: id.map(|id| if learned { i64::from(id) } else { -100 }),
            learned,
        }
    }

    #[test]
    fn a_token_has_its_position_id_text_and_label_in_one_column() {
        let tokens = [
            token(0, None, false),
            token(1, None, false),
            token(2, Some(7), false),
            token(3, Some(8), true),
        ];
        let lines = listing(&tokens, Paint::plain(80));
        let cells = |line: &String| line.split_whitespace().map(str::to_owned).collect();
        let cells: Vec<Vec<String>> = lines.iter().map(cells).collect();
        assert_eq!(cells[0], ["position", "0–1", "2", "3"]);
        assert_eq!(cells[1], ["id", "–", "7", "8"]);
        assert_eq!(cells[2], ["token", "2", "virtual", "·w7", "·w8"]);
        assert_eq!(cells[3], ["label", "–", "-100", "8"]);
    }

    #[test]
    fn long_stretches_are_left_out_and_lines_fit() {
        let tokens: Vec<PreviewToken> = (0..500)
            .map(|index| token(index, Some(index as u32), index >= 400))
            .collect();
        for width in [40, 80, 110] {
            let lines = listing(&tokens, Paint::plain(width));
            assert!(
                lines.iter().all(|line| columns(line) <= width),
                "{lines:#?}"
            );
        }
        let lines = listing(&tokens, Paint::plain(110)).join("\n");
        for named in ["399", "400", "499", "(390 more)", "(90 more)"] {
            assert!(lines.contains(named), "{named}: {lines}");
        }
        assert!(!lines.contains("w200"), "{lines}");
    }
}
