//! Which cells of a padded batch hold tokens, and in which order they stand.

use burn::tensor::{Bool, DType, Tensor, TensorData, backend::Backend};

/// Added to the score of a key that must not be seen. Finite: a row that may see nothing (left
/// padding) then averages over everything instead of dividing zero by zero.
const HIDDEN_SCORE: f64 = -1e9;

/// The attention mask of a batch, on the host: masks for the device, rotary positions and cache
/// lengths are all derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionMask {
    batch: usize,
    seq: usize,
    /// Row-major `[batch, seq]`; true where there is a token.
    cells: Vec<bool>,
    /// Row-major `[batch, seq]`: each cell's place in its row, where that is not its index. Keys and
    /// values of a prefix are the first cells of a cache wherever in the row they stand.
    places: Option<Vec<usize>>,
}

impl AttentionMask {
    /// A mask from row-major `[batch, seq]` cells, true where there is a token.
    ///
    /// # Panics
    /// If `cells` is not `batch · seq` long.
    #[must_use]
    pub fn new(batch: usize, seq: usize, cells: Vec<bool>) -> Self {
        assert_eq!(cells.len(), batch * seq, "a mask has batch · seq cells");
        Self {
            batch,
            seq,
            cells,
            places: None,
        }
    }

    /// A batch without padding.
    #[must_use]
    pub fn full(batch: usize, seq: usize) -> Self {
        Self::new(batch, seq, vec![true; batch * seq])
    }

    /// Rows.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Cells in a row.
    #[must_use]
    pub fn seq(&self) -> usize {
        self.seq
    }

    /// The cells of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[bool] {
        &self.cells[row * self.seq..(row + 1) * self.seq]
    }

    /// This mask, and behind it `other`'s cells, row by row.
    ///
    /// # Panics
    /// If the batches differ.
    #[must_use]
    pub fn then(&self, other: &Self) -> Self {
        let joined = self.joined(other);
        let Some(places) = &self.places else {
            return joined;
        };
        let places = (0..self.batch)
            .flat_map(|row| {
                let before = &places[row * self.seq..(row + 1) * self.seq];
                before.iter().copied().chain(self.seq..joined.seq)
            })
            .collect();
        Self {
            places: Some(places),
            ..joined
        }
    }

    /// This mask's cells, which are all tokens, standing among `other`'s: cell `i` of row `r` in front
    /// of `other`'s cell `before[r][i]`. In memory they come first.
    ///
    /// # Panics
    /// If a cell is to stand behind the end of a row.
    pub(crate) fn among(&self, other: &Self, before: &[Vec<usize>]) -> Self {
        let joined = self.joined(other);
        let mut places = Vec::with_capacity(joined.cells.len());
        for before in before {
            assert!(
                before.iter().all(|cell| *cell <= other.seq),
                "a place in the row"
            );
            places.extend(before.iter().enumerate().map(|(index, cell)| cell + index));
            places.extend(
                (0..other.seq).map(|cell| cell + before.iter().filter(|b| **b <= cell).count()),
            );
        }
        Self {
            places: Some(places),
            ..joined
        }
    }

    /// The cells of both, `other`'s behind this mask's, in the order in which they are held.
    fn joined(&self, other: &Self) -> Self {
        assert_eq!(self.batch, other.batch, "masks of one batch");
        let cells = (0..self.batch)
            .flat_map(|row| self.row(row).iter().chain(other.row(row)).copied())
            .collect();
        Self::new(self.batch, self.seq + other.seq, cells)
    }

    /// Each cell's place in row `row`.
    fn places(&self, row: usize) -> Vec<usize> {
        match &self.places {
            Some(places) => places[row * self.seq..(row + 1) * self.seq].to_vec(),
            None => (0..self.seq).collect(),
        }
    }

    /// Index of the last token of each row.
    ///
    /// # Panics
    /// If a row has none.
    #[must_use]
    pub fn last_tokens(&self) -> Vec<usize> {
        (0..self.batch)
            .map(|row| {
                self.row(row)
                    .iter()
                    .rposition(|cell| *cell)
                    .expect("every row of a batch has a token")
            })
            .collect()
    }

    /// Rotary positions of the last `seq` cells: a token's is the number of tokens before it in
    /// its row, so that padding on either side leaves a row as it is alone.
    pub(crate) fn positions(&self, seq: usize) -> Positions {
        let past = self.seq - seq;
        let rows: Vec<Vec<usize>> = (0..self.batch)
            .map(|row| {
                let (cells, places) = (self.row(row), self.places(row));
                let mut tokens_before = vec![0; self.seq + 1];
                for (cell, place) in cells.iter().zip(&places) {
                    tokens_before[place + 1] = usize::from(*cell);
                }
                for place in 0..self.seq {
                    tokens_before[place + 1] += tokens_before[place];
                }
                places[past..].iter().map(|p| tokens_before[*p]).collect()
            })
            .collect();
        let start = rows
            .first()
            .and_then(|row| row.first())
            .copied()
            .unwrap_or(0);
        // What stands at a padded cell does not matter, so right padding shares one row too.
        let shared = (0..self.batch).all(|row| {
            let cells = &self.row(row)[past..];
            (0..seq).all(|i| !cells[i] || rows[row][i] == start + i)
        });
        if shared {
            Positions::Shared { start }
        } else {
            Positions::PerRow(rows)
        }
    }

    /// The mask added to the scores of the last `seq` cells over all cells: causal, and blind to
    /// padding. `[batch or 1, 1, seq, self.seq]`; `None` where everything may be seen.
    pub(crate) fn additive<B: Backend>(
        &self,
        seq: usize,
        dtype: DType,
        device: &B::Device,
    ) -> Option<Tensor<B, 4>> {
        let padded = self.cells.contains(&false);
        if seq == 1 && !padded {
            return None;
        }
        let past = self.seq - seq;
        if self.places.is_some() {
            return Some(self.additive_by_place(seq, dtype, device));
        }
        let zeros = Tensor::<B, 4>::zeros([1, 1, seq, self.seq], (device, dtype));
        // `tril_mask` is true above the diagonal.
        let later = Tensor::<B, 2, Bool>::tril_mask([seq, self.seq], past as i64, device);
        let causal = zeros.mask_fill(later.unsqueeze(), HIDDEN_SCORE);
        if !padded {
            return Some(causal);
        }
        let hidden: Vec<f32> = self
            .cells
            .iter()
            .map(|cell| if *cell { 0.0 } else { HIDDEN_SCORE as f32 })
            .collect();
        let hidden = TensorData::new(hidden, [self.batch, 1, 1, self.seq]);
        let hidden = Tensor::<B, 4>::from_data(hidden.convert_dtype(dtype), (device, dtype));
        Some(causal + hidden)
    }

    /// [`additive`](Self::additive) where a cell's index is not its place: `[batch, 1, seq, self.seq]`.
    fn additive_by_place<B: Backend>(
        &self,
        seq: usize,
        dtype: DType,
        device: &B::Device,
    ) -> Tensor<B, 4> {
        let mut scores = Vec::with_capacity(self.batch * seq * self.seq);
        for row in 0..self.batch {
            let (cells, places) = (self.row(row), self.places(row));
            for query in &places[self.seq - seq..] {
                scores.extend(places.iter().zip(cells).map(|(key, is_token)| {
                    match *is_token && key <= query {
                        true => 0.0,
                        false => HIDDEN_SCORE as f32,
                    }
                }));
            }
        }
        let scores = TensorData::new(scores, [self.batch, 1, seq, self.seq]);
        Tensor::from_data(scores.convert_dtype(dtype), (device, dtype))
    }
}

/// Rotary positions of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Every row counts up from `start`.
    Shared {
        /// Position of the first cell.
        start: usize,
    },
    /// Rows differ.
    PerRow(Vec<Vec<usize>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&[u8]]) -> AttentionMask {
        let cells = rows
            .iter()
            .flat_map(|row| row.iter().map(|c| *c == 1))
            .collect();
        AttentionMask::new(rows.len(), rows[0].len(), cells)
    }

    #[test]
    fn right_padding_shares_positions_and_left_padding_does_not() {
        let right = mask(&[&[1, 1, 1], &[1, 0, 0]]);
        assert_eq!(right.positions(3), Positions::Shared { start: 0 });
        let left = mask(&[&[1, 1, 1], &[0, 0, 1]]);
        assert_eq!(
            left.positions(3),
            Positions::PerRow(vec![vec![0, 1, 2], vec![0, 0, 0]])
        );
    }

    #[test]
    fn positions_go_on_from_the_tokens_before_not_from_the_cells_before() {
        // Five cells, the last two new; the second row has one token less behind it.
        let mask = mask(&[&[1, 1, 1, 1, 1], &[1, 1, 0, 1, 1]]);
        assert_eq!(
            mask.positions(2),
            Positions::PerRow(vec![vec![3, 4], vec![2, 3]])
        );
    }

    #[test]
    fn cells_that_stand_among_others_are_counted_and_seen_from_there_on() {
        // Two prefix cells in front of the second token of the first row, and at the end of the second.
        let all = AttentionMask::full(2, 2)
            .among(&mask(&[&[1, 1, 1], &[0, 1, 1]]), &[vec![1, 1], vec![3, 3]]);
        assert_eq!(
            all.positions(3),
            Positions::PerRow(vec![vec![0, 3, 4], vec![0, 0, 1]])
        );
        let seen = |mask: &AttentionMask, seq| -> Vec<u8> {
            let scores = mask
                .additive::<burn_flex::Flex>(seq, DType::F32, &Default::default())
                .unwrap();
            scores
                .into_data()
                .iter::<f32>()
                .map(|s| u8::from(s == 0.0))
                .collect()
        };
        assert_eq!(
            seen(&all, 3),
            [
                [0, 0, 1, 0, 0],
                [1, 1, 1, 1, 0],
                [1, 1, 1, 1, 1],
                [0, 0, 0, 0, 0],
                [0, 0, 0, 1, 0],
                [0, 0, 0, 1, 1],
            ]
            .concat()
        );
        // What comes later sees everything, and counts on from the tokens before it.
        let later = all.then(&AttentionMask::full(2, 1));
        assert_eq!(
            later.positions(1),
            Positions::PerRow(vec![vec![5], vec![4]])
        );
        assert_eq!(
            seen(&later, 1),
            [[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]].concat()
        );
    }

    #[test]
    fn a_masked_hole_between_prompt_and_text_takes_no_position() {
        let mask = mask(&[&[1, 1, 0, 0, 1, 1]]);
        assert_eq!(
            mask.positions(6),
            Positions::PerRow(vec![vec![0, 1, 2, 2, 2, 3]])
        );
    }
}
