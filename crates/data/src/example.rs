//! One tokenised and labelled row.

/// The label of a position that is not learned, as in PyTorch and transformers.
pub const IGNORE_INDEX: i64 = -100;

/// One tokenised row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids `[seq]`.
    pub input_ids: Vec<u32>,
    /// Labels `[seq]`: `labels[t]` is the id at position `t` itself, or [`IGNORE_INDEX`]. The loss
    /// shifts them by one.
    pub labels: Vec<i64>,
    /// For each virtual token, the index of the id that follows it, in `0..=seq`, ascending. The index
    /// `seq` is behind the last id. `None`: all virtual tokens stand in front of the row.
    pub placement: Option<Vec<usize>>,
    /// The line number in the file, from 1.
    pub line: usize,
}

impl Example {
    /// The number of token ids.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no token ids.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Whether a causal model can learn from this row. The label at position 0 does not count, because
    /// no token precedes it.
    pub(crate) fn has_target(&self) -> bool {
        let mut labels = self.labels.iter().skip(1);
        labels.any(|&label| label != IGNORE_INDEX)
    }

    /// Keeps the first `length` ids and all virtual tokens. Virtual tokens behind the cut move to it.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.input_ids.truncate(length);
        self.labels.truncate(length);
        for index in self.placement.iter_mut().flatten() {
            *index = (*index).min(length);
        }
    }
}
