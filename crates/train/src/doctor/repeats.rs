//! Rows that occur twice.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::hash::{DefaultHasher, Hash, Hasher};

use burn_peft_data::{Example, RowLabel};
use serde::Serialize;

/// Rows of a file that occur elsewhere, too. Rows are compared as they are tokenised, by hashes of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Repeats {
    /// Rows that an earlier row of the file is equal to.
    pub repeated: usize,
    /// Rows whose tokens an earlier row of the file has, with another label.
    pub conflicting: usize,
    /// Rows whose tokens a training row has; 0 for the training rows themselves.
    pub in_train: usize,
}

/// The tokens of the training rows.
#[derive(Debug, Default)]
pub(crate) struct Known(HashSet<u64>);

impl Known {
    pub(crate) fn of(train: &[Example]) -> Self {
        Self(train.iter().map(tokens).collect())
    }
}

impl Repeats {
    /// Of `examples`, which are compared with `train` where they are not those.
    pub(crate) fn of(examples: &[Example], train: Option<&Known>) -> Self {
        let mut found = Self::default();
        let mut labels: HashMap<u64, u64> = HashMap::with_capacity(examples.len());
        for example in examples {
            let tokens = tokens(example);
            found.in_train += usize::from(train.is_some_and(|train| train.0.contains(&tokens)));
            match labels.entry(tokens) {
                Entry::Vacant(entry) => {
                    entry.insert(label(example));
                }
                Entry::Occupied(first) if *first.get() == label(example) => found.repeated += 1,
                Entry::Occupied(_) => found.conflicting += 1,
            }
        }
        found
    }
}

fn tokens(example: &Example) -> u64 {
    let mut hasher = DefaultHasher::new();
    example.input_ids.hash(&mut hasher);
    hasher.finish()
}

fn label(example: &Example) -> u64 {
    let mut hasher = DefaultHasher::new();
    example.labels.hash(&mut hasher);
    match &example.row_label {
        None => 0_u8.hash(&mut hasher),
        Some(RowLabel::Class(class)) => (1_u8, class).hash(&mut hasher),
        Some(RowLabel::Classes(classes)) => (2_u8, classes).hash(&mut hasher),
        Some(RowLabel::Values(values)) => {
            let bits = values.iter().map(|value| value.to_bits());
            (3_u8, bits.collect::<Vec<_>>()).hash(&mut hasher);
        }
        Some(RowLabel::Span { start, end }) => (4_u8, start, end).hash(&mut hasher),
        Some(RowLabel::Unknown) => 5_u8.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use burn_peft_data::Parts;

    use super::*;

    fn example(ids: &[u32], class: usize) -> Example {
        Example {
            input_ids: ids.to_vec(),
            labels: vec![-100; ids.len()],
            row_label: Some(RowLabel::Class(class)),
            placement: None,
            parts: Parts::Whole,
            row: 0,
            line: 1,
        }
    }

    #[test]
    fn equal_rows_and_equal_texts_with_another_label_are_told_apart() {
        let rows = [
            example(&[1, 2], 0),
            example(&[1, 2], 0),
            example(&[1, 2], 1),
            example(&[2, 1], 0),
        ];
        let found = Repeats::of(&rows, None);
        assert_eq!(
            (found.repeated, found.conflicting, found.in_train),
            (1, 1, 0)
        );
    }

    #[test]
    fn a_row_that_is_trained_on_is_found_whatever_its_label() {
        let train = [example(&[1], 0), example(&[2], 1)];
        let valid = [example(&[3], 0), example(&[2], 0), example(&[1], 0)];
        let found = Repeats::of(&valid, Some(&Known::of(&train)));
        assert_eq!((found.repeated, found.in_train), (0, 2));
    }
}
