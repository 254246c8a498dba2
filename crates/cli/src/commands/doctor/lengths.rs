//! Lengths as bars.

use burn_peft_train::{Bar, LabelCount, Lengths};
use indicatif::HumanCount;

use super::paint::{Look, Paint, columns, padded};

/// Columns of the longest bar.
const LONGEST: usize = 32;
/// Labels that are listed.
const LABELS: usize = 12;

/// The least, the middle, the 95th of a hundred and the most.
pub(super) fn summary(lengths: &Lengths) -> String {
    format!(
        "min {} · median {} · p95 {} · max {}",
        count(lengths.min),
        count(lengths.median),
        count(lengths.p95),
        count(lengths.max)
    )
}

/// A bar for each length, one a line.
pub(super) fn histogram(lengths: &Lengths, paint: Paint) -> Vec<String> {
    let named = lengths.bars.iter().map(|bar| (range(bar), bar.rows));
    bars(&named.collect::<Vec<_>>(), paint, Align::Right)
}

/// The same on one line.
pub(super) fn sparkline(lengths: &Lengths) -> String {
    let most = lengths.bars.iter().map(|bar| bar.rows).max().unwrap_or(0);
    let level = |rows: usize| match rows {
        0 => ' ',
        rows => BLOCKS[(rows * (BLOCKS.len() - 1)).div_ceil(most.max(1))],
    };
    lengths.bars.iter().map(|bar| level(bar.rows)).collect()
}

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar for each label.
pub(super) fn labels(labels: &[LabelCount], paint: Paint) -> Vec<String> {
    let mut sorted: Vec<_> = labels
        .iter()
        .map(|label| (crate::output::escaped(&label.label), label.count))
        .collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = sorted.len().saturating_sub(LABELS);
    sorted.truncate(LABELS);
    let mut lines = bars(&sorted, paint, Align::Left);
    if more > 0 {
        lines.push(format!("… {} more", count(more)));
    }
    lines
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

fn bars(named: &[(String, usize)], paint: Paint, align: Align) -> Vec<String> {
    let most = named
        .iter()
        .map(|(_, rows)| *rows)
        .max()
        .unwrap_or(0)
        .max(1);
    let names = named.iter().map(|(name, _)| columns(name));
    let width = names.max().unwrap_or(0).min(paint.width / 3);
    let longest = LONGEST.min(paint.width.saturating_sub(width + 16)).max(1);
    let line = |(name, rows): &(String, usize)| {
        let name = shortened(name, width);
        let name = match align {
            Align::Left => padded(&name, width),
            Align::Right => format!("{}{name}", " ".repeat(width - columns(&name))),
        };
        // What there is at all is seen.
        let bar = "█".repeat((rows * longest).div_ceil(most));
        let bar = if bar.is_empty() {
            String::new()
        } else {
            bar + " "
        };
        format!(
            "{}  {}{}",
            paint.paint(Look::Dim, &name),
            paint.paint(Look::Learned, &bar),
            count(*rows)
        )
    };
    named.iter().map(line).collect()
}

/// A name in so many columns.
fn shortened(name: &str, width: usize) -> String {
    if columns(name) <= width {
        return name.to_owned();
    }
    let mut short = String::new();
    for c in name.chars() {
        if columns(&short) + super::paint::column(c) + 1 > width {
            break;
        }
        short.push(c);
    }
    short + "…"
}

fn range(bar: &Bar) -> String {
    match bar.from == bar.to {
        true => bar.from.to_string(),
        false => format!("{}–{}", bar.from, bar.to),
    }
}

/// A number with a comma behind thousands.
pub(super) fn count(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// So many things.
pub(super) fn several(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", count(number)),
    }
}

/// A size with as many digits as matter.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 99.95) + usize::from(unit > 0 && size < 9.995);
    format!("{size:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(bars: &[usize]) -> Lengths {
        let bar = |(index, rows): (usize, &usize)| Bar {
            from: index * 10,
            to: index * 10 + 9,
            rows: *rows,
        };
        Lengths {
            min: 0,
            median: 5,
            p95: 19,
            max: 29,
            total: 100,
            bars: bars.iter().enumerate().map(bar).collect(),
        }
    }

    #[test]
    fn the_most_rows_have_the_longest_bar_and_no_rows_none() {
        let lines = histogram(&lengths(&[64, 0, 1]), Paint::plain(80));
        let blocks = |line: &String| line.chars().filter(|c| *c == '█').count();
        let found: Vec<usize> = lines.iter().map(blocks).collect();
        assert_eq!(found, [LONGEST, 0, 1]);
        assert!(lines[0].starts_with("  0–9  █") && lines[0].ends_with(" 64"));
        assert_eq!(sparkline(&lengths(&[64, 0, 1])), "█ ▁");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (size, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "0.98 KiB"),
            (1536, "1.50 KiB"),
            (13_915_000, "13.3 MiB"),
            (353_128_000, "337 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(several(1, "row") + &several(2000, "row"), "1 row2,000 rows");
    }

    #[test]
    fn the_most_frequent_labels_come_first_and_the_rest_is_counted() {
        let label = |count| LabelCount {
            label: format!("class {count}"),
            count,
        };
        let found: Vec<LabelCount> = (1..=15).map(label).collect();
        let lines = labels(&found, Paint::plain(80));
        assert!(lines[0].starts_with("class 15  █"), "{lines:?}");
        assert_eq!(lines.len(), LABELS + 1);
        assert_eq!(lines[LABELS], "… 3 more");
    }
}
