//! How often an epoch has each example.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Examples of several files, and how often an epoch has those of each.
///
/// With weight 1, an epoch has each example of the file once. With 2.5, it has each twice and half of them, rounded to
/// whole examples, once more. The examples that come once more are the next ones of a random order that the seed
/// decides, from the start again at its end. So all are used equally often over the epochs, and an epoch is a pure
/// function of the seed and its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    examples: usize,
    /// How often an epoch has all of them.
    whole: usize,
    /// How many it has once more.
    more: usize,
}

impl Mix {
    /// Files with their numbers of examples and their weights, which are above 0.
    ///
    /// Of a file with examples, an epoch has at least one.
    pub fn new(files: impl IntoIterator<Item = (usize, f64)>) -> Self {
        let part = |(examples, weight): (usize, f64)| {
            let least = usize::from(examples > 0);
            let all = ((weight * examples as f64).round() as usize).max(least);
            Part {
                examples,
                whole: all.checked_div(examples).unwrap_or(0),
                more: all.checked_rem(examples).unwrap_or(0),
            }
        };
        Self {
            parts: files.into_iter().map(part).collect(),
        }
    }

    /// Each of so many examples once an epoch.
    pub fn once(examples: usize) -> Self {
        Self::new([(examples, 1.0)])
    }

    /// The number of examples in an epoch.
    pub fn len(&self) -> usize {
        let parts = self.parts.iter();
        parts
            .map(|part| part.whole * part.examples + part.more)
            .sum()
    }

    /// Whether an epoch has no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an epoch has each example once.
    pub fn is_once(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.all(|part| part.examples == 0 || (part.whole == 1 && part.more == 0))
    }

    /// The number of examples of all files.
    pub(crate) fn examples(&self) -> usize {
        self.parts.iter().map(|part| part.examples).sum()
    }

    /// The indices of the examples of an epoch, which counts from 0, file by file.
    pub(crate) fn epoch(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let mut all = Vec::with_capacity(self.len());
        let mut first = 0;
        for (number, part) in self.parts.iter().enumerate() {
            for _ in 0..part.whole {
                all.extend(first..first + part.examples);
            }
            if part.more > 0 {
                let mut order: Vec<usize> = (first..first + part.examples).collect();
                order.shuffle(&mut random(seed, number));
                // The product of both may be too large for a number of 64 bits.
                let start = epoch % part.examples * part.more % part.examples;
                all.extend(order.iter().cycle().skip(start).take(part.more));
            }
            first += part.examples;
        }
        all
    }
}

/// The random generator of a file. Its key has the seed and the number of the file in separate bytes, as those of the
/// order have.
fn random(seed: u64, file: usize) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(file as u64).to_le_bytes());
    key[16..].copy_from_slice(b"burn-peft mix\0\0\0");
    StdRng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of the examples is in some epochs.
    fn counts(mix: &Mix, epochs: std::ops::Range<usize>) -> Vec<usize> {
        let mut counts = vec![0; mix.examples()];
        for epoch in epochs {
            let indices = mix.epoch(7, epoch);
            assert_eq!(indices.len(), mix.len());
            indices.iter().for_each(|&index| counts[index] += 1);
        }
        counts
    }

    #[test]
    fn an_epoch_has_each_example_as_often_as_its_file_weighs() {
        let mix = Mix::new([(4, 1.0), (3, 2.0), (10, 0.5), (8, 2.5)]);
        assert_eq!(mix.len(), 4 + 6 + 5 + 20);
        let counts = counts(&mix, 0..1);
        assert_eq!(counts[..7], [1, 1, 1, 1, 2, 2, 2]);
        assert!(counts[7..17].iter().all(|&count| count <= 1));
        assert!(counts[17..].iter().all(|count| (2..=3).contains(count)));
    }

    #[test]
    fn over_the_epochs_all_examples_of_a_file_come_equally_often() {
        let mix = Mix::new([(10, 0.3)]);
        assert_eq!(counts(&mix, 0..10), [3; 10]);
        let three = counts(&mix, 4..7);
        assert!(three.iter().all(|&count| count <= 1), "{three:?}");
    }

    #[test]
    fn the_examples_that_come_once_more_depend_on_the_seed_and_the_epoch_alone() {
        let mix = Mix::new([(10, 0.5)]);
        assert_eq!(mix.epoch(7, 3), mix.epoch(7, 3));
        assert_ne!(mix.epoch(7, 3), mix.epoch(7, 2));
        assert_ne!(mix.epoch(7, 3), mix.epoch(8, 3));
        // A later build that resumes a run must use the same. This fails if `rand` changes them.
        assert_eq!(mix.epoch(7, 0), [2, 4, 1, 8, 5]);
    }

    #[test]
    fn a_small_weight_leaves_an_example_and_no_example_is_none() {
        assert_eq!(Mix::new([(10, 0.001)]).len(), 1);
        assert_eq!(Mix::new([(0, 2.5)]).epoch(7, 0), [0; 0]);
        assert!(Mix::new([(0, 1.0)]).is_empty());
    }

    #[test]
    fn only_weights_of_one_are_once_each() {
        assert!(Mix::new([(3, 1.0), (2, 1.0)]).is_once());
        assert!(!Mix::new([(3, 1.0), (2, 2.0)]).is_once());
        assert!(!Mix::new([(2, 0.5)]).is_once());
    }
}
