//! One tokenised and labelled row.

/// The label of a position that is not learned, as in PyTorch and transformers.
pub const IGNORE_INDEX: i64 = -100;

/// One tokenised row.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids `[seq]`.
    pub input_ids: Vec<u32>,
    /// Labels `[seq]`. Of a text to write, `labels[t]` is the id at position `t` itself, or [`IGNORE_INDEX`]; the loss
    /// shifts them by one. Of a tagged text, it is the class of the word whose token stands there, or
    /// [`IGNORE_INDEX`]. All are [`IGNORE_INDEX`] where the label is the [`row_label`](Self::row_label).
    pub labels: Vec<i64>,
    /// The label of the row as a whole; `None` of a text to write and of a tagged one. [`RowLabel::Unknown`] where there is
    /// no label, also of a tagged row.
    pub row_label: Option<RowLabel>,
    /// For each virtual token, the index of the id that follows it, in `0..=seq`, ascending. The index
    /// `seq` is behind the last id. `None`: all virtual tokens stand in front of the row.
    pub placement: Option<Vec<usize>>,
    /// What the tokens of the row are parts of.
    pub parts: Parts,
    /// The index of the row in the file. A long text with a question becomes several examples of one row.
    pub row: usize,
    /// The line number in the file, from 1.
    pub line: usize,
}

/// The label of a row as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum RowLabel {
    /// One class.
    Class(usize),
    /// For each class, whether it is one of the row's.
    Classes(Vec<bool>),
    /// Numbers, one for each output of the head.
    Values(Vec<f32>),
    /// The first and the last token of the answer; the same token twice, [`Parts::Context`]'s `no_answer`, where
    /// there is none in this window.
    Span {
        /// The index of its first token.
        start: usize,
        /// The index of its last token.
        end: usize,
    },
    /// Not known: the row is to be predicted, or its answer is not in this window.
    Unknown,
}

/// What the tokens of an example are parts of, as far as the task reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Parts {
    /// Nothing that the task asks for.
    #[default]
    Whole,
    /// Words: for each word of the row, in order, the index of its first token. A word without a token has that of the
    /// next one that has some. The words that were cut off are not among them. Each token of given ids is a word.
    Words(Vec<usize>),
    /// A question and a window of its context.
    Context {
        /// The tokens of the context.
        tokens: std::ops::Range<usize>,
        /// For each of them, the characters of the row's context that it covers, from 0; a character is a Unicode
        /// scalar value, as in SQuAD.
        characters: Vec<std::ops::Range<usize>>,
        /// The token whose choice means that there is no answer here, if that is a choice.
        no_answer: Option<usize>,
    },
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
        self.row_label.is_some() || labels.any(|&label| label != IGNORE_INDEX)
    }

    /// Keeps the first `length` ids and all virtual tokens. Virtual tokens behind the cut move to it.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.input_ids.truncate(length);
        self.labels.truncate(length);
        for index in self.placement.iter_mut().flatten() {
            *index = (*index).min(length);
        }
        if let Parts::Words(words) = &mut self.parts {
            words.retain(|first| *first < length);
        }
    }
}
