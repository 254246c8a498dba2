//! Examples of different lengths to one rectangle.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::example::{Example, IGNORE_INDEX};
use crate::tokenizer::TextTokenizer;

/// Where padding goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingSide {
    /// After the tokens, as in training.
    #[default]
    Right,
    /// Before them, so that rows end together, as batched generation wants.
    Left,
}

/// How a batch is padded: to its longest row, and on to a multiple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// The id that fills up. It is masked and never supervised, so that any id will do. Default 0.
    pub id: u32,
    /// Where it goes. Default right.
    pub side: PaddingSide,
    /// Rounds the length up to a multiple of this; 64 keeps the shapes few on a GPU that tunes its
    /// kernels by shape. Default none.
    pub multiple_of: Option<usize>,
}

impl Padding {
    /// Right padding with the tokenizer's `pad_token`, or 0 where it has none.
    pub fn of(tokenizer: &TextTokenizer) -> Self {
        Self {
            id: tokenizer.pad_id().unwrap_or(0),
            ..Self::default()
        }
    }
}

/// Padded examples. The ids are on the device; mask and labels stay on the host, where the model
/// derives its positions, and the loss its list of supervised positions, without reading back.
#[derive(Debug, Clone)]
pub struct Batch<B: Backend> {
    /// Token ids `[batch, seq]`.
    pub input_ids: Tensor<B, 2, Int>,
    /// Row-major `[batch, seq]`: true for a token, false for padding.
    pub attention_mask: Vec<bool>,
    /// Row-major `[batch, seq]`: the id at that position, or [`IGNORE_INDEX`].
    pub labels: Vec<i64>,
    /// Per row, for each virtual token, the cell that it stands in front of, `0..=seq`, ascending.
    /// `None`: in front of every row, however many there are.
    pub placement: Option<Vec<Vec<usize>>>,
    /// The number of rows.
    pub batch: usize,
    /// The length of every row, padding included.
    pub seq: usize,
    /// Per row, the example's index in its dataset `[batch]`.
    pub indices: Vec<usize>,
    /// Per row, the example's line in its file `[batch]`.
    pub lines: Vec<usize>,
}

impl<B: Backend> Batch<B> {
    /// The number of labels that are not [`IGNORE_INDEX`], a label at position 0 included
    /// (see [`Example::supervised_tokens`]).
    pub fn supervised_tokens(&self) -> usize {
        self.labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count()
    }

    /// The number of tokens that are not padding.
    pub fn tokens(&self) -> usize {
        self.attention_mask
            .iter()
            .filter(|&&is_token| is_token)
            .count()
    }
}

/// Pads `examples` into one batch on `device`. `indices` are their places in the dataset, one each.
///
/// # Panics
/// There are no examples, or not as many indices; or only some examples have a placement.
pub fn collate<B: Backend>(
    examples: &[&Example],
    indices: &[usize],
    padding: &Padding,
    device: &B::Device,
) -> Batch<B> {
    assert!(!examples.is_empty(), "a batch has at least one example");
    assert_eq!(
        examples.len(),
        indices.len(),
        "every example of a batch has an index"
    );
    let batch = examples.len();
    let longest = examples
        .iter()
        .map(|example| example.len())
        .max()
        .unwrap_or(0);
    let seq = longest.next_multiple_of(padding.multiple_of.unwrap_or(1).max(1));

    let mut input_ids = vec![padding.id as i32; batch * seq];
    let mut attention_mask = vec![false; batch * seq];
    let mut labels = vec![IGNORE_INDEX; batch * seq];
    let mut placement = Vec::new();
    for (row, example) in examples.iter().enumerate() {
        let before = match padding.side {
            PaddingSide::Right => 0,
            PaddingSide::Left => seq - example.len(),
        };
        let places = example.placement.iter();
        placement.extend(places.map(|row| row.iter().map(|index| before + index).collect()));
        let start = row * seq + before;
        let places = start..start + example.len();
        for (place, &id) in input_ids[places.clone()].iter_mut().zip(&example.input_ids) {
            *place = id as i32;
        }
        labels[places.clone()].copy_from_slice(&example.labels);
        attention_mask[places].fill(true);
    }
    assert!(
        placement.is_empty() || placement.len() == batch,
        "either all examples of a batch say where their virtual tokens stand, or none does"
    );
    Batch {
        input_ids: Tensor::from_data(TensorData::new(input_ids, [batch, seq]), device),
        attention_mask,
        labels,
        placement: (!placement.is_empty()).then_some(placement),
        batch,
        seq,
        indices: indices.to_vec(),
        lines: examples.iter().map(|example| example.line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;
    use crate::test_support::examples;

    fn batch(padding: &Padding) -> Batch<Flex> {
        let examples = examples(&[3, 1]);
        collate(
            &examples.iter().collect::<Vec<_>>(),
            &[5, 7],
            padding,
            &Default::default(),
        )
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
        assert_eq!((batch.tokens(), batch.supervised_tokens()), (4, 4));
        assert_eq!((batch.indices, batch.lines), (vec![5, 7], vec![1, 2]));
    }

    #[test]
    fn left_padding_lets_rows_end_together() {
        let batch = batch(&Padding {
            side: PaddingSide::Left,
            ..Padding::default()
        });
        assert_eq!(ids(&batch), [0, 1, 2, 0, 0, 100]);
        assert_eq!(batch.attention_mask, [true, true, true, false, false, true]);
        assert_eq!(batch.labels[3..], [IGNORE_INDEX, IGNORE_INDEX, 100]);
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

    /// Rows of 3 and 1 ids with two virtual tokens each.
    fn placed(side: PaddingSide) -> Batch<Flex> {
        let mut examples = examples(&[3, 1]);
        examples[0].placement = Some(vec![0, 2]);
        examples[1].placement = Some(vec![0, 1]);
        let padding = Padding {
            side,
            multiple_of: Some(4),
            ..Padding::default()
        };
        collate(
            &examples.iter().collect::<Vec<_>>(),
            &[0, 1],
            &padding,
            &Default::default(),
        )
    }

    #[test]
    fn virtual_tokens_stay_beside_the_ids_they_stand_beside() {
        let right = placed(PaddingSide::Right);
        assert_eq!(right.placement, Some(vec![vec![0, 2], vec![0, 1]]));
        let left = placed(PaddingSide::Left);
        assert_eq!(left.placement, Some(vec![vec![1, 3], vec![3, 4]]));
        assert_eq!(left.seq, 4);
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
        let examples: Vec<&Example> = examples.iter().collect();
        collate::<Flex>(&examples, &[0, 1], &Padding::default(), &Default::default());
    }
}
