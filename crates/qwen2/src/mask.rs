//! Which cells of a padded batch hold tokens.

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
}

impl AttentionMask {
    /// A mask from row-major `[batch, seq]` cells, true where there is a token.
    ///
    /// # Panics
    /// If `cells` is not `batch · seq` long.
    #[must_use]
    pub fn new(batch: usize, seq: usize, cells: Vec<bool>) -> Self {
        assert_eq!(cells.len(), batch * seq, "a mask has batch · seq cells");
        Self { batch, seq, cells }
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
        assert_eq!(self.batch, other.batch, "masks of one batch");
        let cells = (0..self.batch)
            .flat_map(|row| self.row(row).iter().chain(other.row(row)).copied())
            .collect();
        Self::new(self.batch, self.seq + other.seq, cells)
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
                let (before, now) = self.row(row).split_at(past);
                let mut next = before.iter().filter(|cell| **cell).count();
                now.iter()
                    .map(|cell| {
                        let position = next;
                        next += usize::from(*cell);
                        position
                    })
                    .collect()
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
    fn a_masked_hole_between_prompt_and_text_takes_no_position() {
        let mask = mask(&[&[1, 1, 0, 0, 1, 1]]);
        assert_eq!(
            mask.positions(6),
            Positions::PerRow(vec![vec![0, 1, 2, 2, 2, 3]])
        );
    }
}
