//! Examples of different lengths to one rectangle.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use burn_dataset::Dataset;

use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, RowLabel};
use crate::tokenizer::TextTokenizer;

/// How a batch is padded. Rows are padded on the right to the length of the longest row, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// The id in padded cells. They are masked and not supervised, so any id will do. Default 0.
    pub id: u32,
    /// The length is rounded up to a multiple of this. A GPU that tunes its kernels by shape then meets
    /// fewer shapes; try 64. Default: no rounding.
    pub multiple_of: Option<usize>,
}

impl Padding {
    /// Makes a padding with the tokenizer's `pad_token`, or with the id 0 if it has none.
    pub fn of(tokenizer: &TextTokenizer) -> Self {
        Self {
            id: tokenizer.pad_id().unwrap_or(0),
            ..Self::default()
        }
    }

    /// The width of a batch whose longest row has `longest` tokens.
    pub(crate) fn width(&self, longest: usize) -> usize {
        let multiple = self.multiple_of.unwrap_or(1).max(1);
        longest
            .checked_next_multiple_of(multiple)
            .unwrap_or(usize::MAX)
    }

    /// Checks that no batch is wider than the model has room for.
    ///
    /// # Errors
    /// A row of `longest` tokens is padded to more than `room`.
    pub fn check(&self, longest: usize, room: usize) -> Result<()> {
        let width = self.width(longest);
        match self.multiple_of {
            Some(multiple_of) if width > room => Err(Error::PaddedTooWide {
                multiple_of,
                longest,
                width,
                room,
            }),
            _ => Ok(()),
        }
    }
}

/// Padded examples. The ids are on the device. Mask and labels are on the host, so that the model can derive
/// positions, and the loss its supervised cells, without reading from the device.
#[derive(Debug, Clone)]
pub struct Batch<B: Backend> {
    /// Token ids `[batch, seq]`.
    pub input_ids: Tensor<B, 2, Int>,
    /// Row-major `[batch, seq]`: true for a token, false for padding.
    pub attention_mask: Vec<bool>,
    /// Row-major `[batch, seq]`: [`Example::labels`], and [`IGNORE_INDEX`] in padded cells.
    pub labels: Vec<i64>,
    /// The label of each row as a whole, `[batch]`.
    pub row_labels: Vec<Option<RowLabel>>,
    /// For each row and each virtual token, the cell that follows it, in `0..=seq`, ascending. `None`: all
    /// virtual tokens stand in front of the rows.
    pub placement: Option<Vec<Vec<usize>>>,
    /// The number of rows.
    pub batch: usize,
    /// The length of every row, padding included.
    pub seq: usize,
    /// For each row, the index of its example in the dataset, `[batch]`.
    pub indices: Vec<usize>,
}

impl<B: Backend> Batch<B> {
    /// The number of tokens, padding not included.
    pub fn tokens(&self) -> usize {
        let mask = self.attention_mask.iter();
        mask.filter(|&&is_token| is_token).count()
    }
}

/// Fetches the examples at `indices` and pads them into one batch on `device`.
///
/// # Panics
/// There are no indices, or one is outside the dataset, or only some examples have a placement.
pub(crate) fn load<B: Backend>(
    dataset: &dyn Dataset<Example>,
    indices: &[usize],
    padding: &Padding,
    device: &B::Device,
) -> Batch<B> {
    let fetch = |&index: &usize| dataset.get(index).expect("a dataset keeps its length");
    let examples: Vec<Example> = indices.iter().map(fetch).collect();
    collate(examples, indices, padding, device)
}

fn collate<B: Backend>(
    examples: Vec<Example>,
    indices: &[usize],
    padding: &Padding,
    device: &B::Device,
) -> Batch<B> {
    let batch = examples.len();
    let longest = examples.iter().map(Example::len).max();
    let longest = longest.expect("a batch has at least one example");
    let seq = padding.width(longest);

    let mut input_ids = vec![padding.id as i32; batch * seq];
    let mut attention_mask = vec![false; batch * seq];
    let mut labels = vec![IGNORE_INDEX; batch * seq];
    let mut row_labels = Vec::with_capacity(batch);
    let mut placement = Vec::new();
    for (row, example) in examples.into_iter().enumerate() {
        let cells = row * seq..row * seq + example.len();
        for (cell, &id) in input_ids[cells.clone()].iter_mut().zip(&example.input_ids) {
            *cell = id as i32;
        }
        labels[cells.clone()].copy_from_slice(&example.labels);
        attention_mask[cells].fill(true);
        row_labels.push(example.row_label);
        placement.extend(example.placement);
    }
    assert!(
        placement.is_empty() || placement.len() == batch,
        "either all examples of a batch say where their virtual tokens stand, or none does"
    );
    Batch {
        input_ids: Tensor::from_data(TensorData::new(input_ids, [batch, seq]), device),
        attention_mask,
        labels,
        row_labels,
        placement: (!placement.is_empty()).then_some(placement),
        batch,
        seq,
        indices: indices.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;
    use crate::test_support::examples;

    fn batch(padding: &Padding) -> Batch<Flex> {
        collate(examples(&[3, 1]), &[5, 7], padding, &Default::default())
    }

    fn ids(batch: &Batch<Flex>) -> Vec<i64> {
        batch.input_ids.to_data().iter::<i64>().collect()
    }

    #[test]
    fn right_padding_fills_up_to_the_longest_row_and_is_masked() {
        let batch = batch(&Padding {
            id: 9,
            ..Padding::default()
        });
        assert_eq!(
            (batch.batch, batch.seq, batch.input_ids.dims()),
            (2, 3, [2, 3])
        );
        assert_eq!(ids(&batch), [0, 1, 2, 100, 9, 9]);
        assert_eq!(batch.attention_mask, [true, true, true, true, false, false]);
        assert_eq!(batch.labels, [0, 1, 2, 100, IGNORE_INDEX, IGNORE_INDEX]);
        assert_eq!((batch.tokens(), batch.indices), (4, vec![5, 7]));
    }

    #[test]
    fn lengths_are_rounded_up_to_a_multiple() {
        let batch = batch(&Padding {
            multiple_of: Some(8),
            ..Padding::default()
        });
        assert_eq!(
            (batch.seq, batch.labels.len(), batch.attention_mask.len()),
            (8, 16, 16)
        );
        assert_eq!(batch.tokens(), 4);
    }

    #[test]
    fn padding_beyond_the_longest_sequence_is_refused() {
        let padding = |multiple_of| Padding { id: 0, multiple_of };
        assert!(padding(None).check(1024, 1004).is_ok());
        assert!(padding(Some(64)).check(29, 64).is_ok());
        for multiple in [1024, 1 << 62, usize::MAX] {
            let error = padding(Some(multiple)).check(1004, 1004);
            assert!(
                matches!(error, Err(Error::PaddedTooWide { .. })),
                "{multiple}"
            );
        }
    }

    #[test]
    fn virtual_tokens_stay_beside_the_ids_they_stand_beside() {
        let mut examples = examples(&[3, 1]);
        examples[0].placement = Some(vec![0, 2]);
        examples[1].placement = Some(vec![0, 1]);
        let padding = Padding {
            multiple_of: Some(4),
            ..Padding::default()
        };
        let batch = collate::<Flex>(examples, &[0, 1], &padding, &Default::default());
        assert_eq!(batch.placement, Some(vec![vec![0, 2], vec![0, 1]]));
        assert_eq!(batch.seq, 4);
    }

    #[test]
    fn without_a_placement_a_batch_has_none() {
        assert_eq!(batch(&Padding::default()).placement, None);
    }

    #[test]
    #[should_panic(expected = "either all examples of a batch")]
    fn rows_with_and_without_a_placement_do_not_go_together() {
        let mut examples = examples(&[3, 1]);
        examples[1].placement = Some(vec![0]);
        collate::<Flex>(examples, &[0, 1], &Padding::default(), &Default::default());
    }
}
