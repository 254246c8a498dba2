//! How long rows are.

use serde::Serialize;

/// The most bars of a histogram.
const BARS: usize = 10;

/// Numbers of tokens, and how they are spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The least.
    pub min: usize,
    /// The middle one.
    pub median: usize,
    /// 95 of 100 are this long or shorter.
    pub p95: usize,
    /// The most.
    pub max: usize,
    /// Their sum.
    pub total: usize,
    /// How many there are of about one length, shortest first.
    pub bars: Vec<Bar>,
}

/// A bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// The least length.
    pub from: usize,
    /// The greatest length.
    pub to: usize,
    /// How many rows have such a length.
    pub rows: usize,
}

impl Lengths {
    /// `None` of no numbers.
    pub(crate) fn of(lengths: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut sorted: Vec<usize> = lengths.into_iter().collect();
        sorted.sort_unstable();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        // The nearest rank.
        let at = |share: usize| sorted[(sorted.len() * share).div_ceil(100).max(1) - 1];
        let width = round_width(max - min + 1);
        let first = min / width;
        let mut bars: Vec<Bar> = (first..=max / width)
            .map(|bar| Bar {
                from: bar * width,
                to: (bar + 1) * width - 1,
                rows: 0,
            })
            .collect();
        for length in &sorted {
            bars[length / width - first].rows += 1;
        }
        Some(Self {
            min,
            median: at(50),
            p95: at(95),
            max,
            total: sorted.iter().sum(),
            bars,
        })
    }
}

/// The width of a bar, so that few of them hold so many lengths: 1, 2, 5, 10, 20, …
fn round_width(lengths: usize) -> usize {
    let mut unit = 1;
    loop {
        for times in [1, 2, 5] {
            // One bar more where the lengths do not begin with a bar.
            if lengths.div_ceil(unit * times) < BARS {
                return unit * times;
            }
        }
        unit *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_95th_of_a_hundred_are_lengths_that_occur() {
        let found = Lengths::of((1..=100).rev()).expect("there are some");
        assert_eq!((found.min, found.median), (1, 50));
        assert_eq!((found.p95, found.max, found.total), (95, 100, 5050));
        let one = Lengths::of([7]).expect("there is one");
        assert_eq!((one.min, one.median, one.p95, one.max), (7, 7, 7, 7));
        assert_eq!(Lengths::of([]), None);
    }

    #[test]
    fn bars_hold_every_row_once_and_touch() {
        for lengths in [
            vec![3],
            vec![0, 1],
            (5..900).collect(),
            vec![1, 30_000, 31, 64],
            vec![199; 12],
        ] {
            let found = Lengths::of(lengths.clone()).expect("there are some");
            let rows: usize = found.bars.iter().map(|bar| bar.rows).sum();
            assert_eq!(rows, lengths.len());
            assert!((1..=BARS).contains(&found.bars.len()), "{found:?}");
            let touch = |pair: &[Bar]| pair[0].to + 1 == pair[1].from;
            assert!(found.bars.windows(2).all(touch));
            let [first, .., last] = &found.bars[..] else {
                continue;
            };
            assert!(first.rows > 0 && last.rows > 0, "{found:?}");
        }
    }
}
