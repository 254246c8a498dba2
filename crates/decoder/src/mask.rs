//! Which cells of a padded batch hold tokens, and in which order they stand.

use burn_peft_ops::{NO_TOKEN, Visibility};

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

    /// The first `seq` cells of every row.
    ///
    /// # Panics
    /// If there are not as many, or if one of them stands among cells that are not kept.
    pub(crate) fn first(&self, seq: usize) -> Self {
        let cut = |row: usize| row * self.seq..row * self.seq + seq;
        let cells = (0..self.batch).flat_map(|row| self.cells[cut(row)].iter().copied());
        let places = self.places.as_ref().map(|places| {
            let rows = (0..self.batch).flat_map(|row| places[cut(row)].iter().copied());
            let places: Vec<usize> = rows.collect();
            assert!(
                places.iter().all(|place| *place < seq),
                "a prefix stands among cells that are kept"
            );
            places
        });
        Self {
            places,
            ..Self::new(self.batch, seq, cells.collect())
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

    /// What the last `seq` cells may see of all cells: tokens, up to their own place.
    pub(crate) fn visibility(&self, seq: usize) -> Visibility {
        let place = |place: usize| i32::try_from(place).expect("a sequence of 32 bits");
        let rows: Vec<(Vec<i32>, Vec<i32>)> = (0..self.batch)
            .map(|row| {
                let places = self.places(row);
                let queries = places[self.seq - seq..].iter().map(|p| place(*p));
                let keys = places
                    .iter()
                    .zip(self.row(row))
                    .map(|(p, is_token)| if *is_token { place(*p) } else { NO_TOKEN });
                (queries.collect(), keys.collect())
            })
            .collect();
        let alike = rows.iter().all(|row| *row == rows[0]);
        let count = if alike { 1 } else { self.batch };
        let (queries, keys): (Vec<_>, Vec<_>) = rows.into_iter().take(count).unzip();
        Visibility::new(count, queries.concat(), keys.concat())
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

impl Positions {
    /// Those of each of `batch` rows of `seq` cells.
    pub(crate) fn rows(self, batch: usize, seq: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Shared { start } => vec![(start..start + seq).collect(); batch],
            Self::PerRow(rows) => rows,
        }
    }
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
            let visibility = mask.visibility(seq);
            let pairs = (0..2).flat_map(|row| (0..seq).map(move |query| (row, query)));
            pairs
                .flat_map(|(row, query)| (0..mask.seq()).map(move |key| (row, query, key)))
                .map(|(row, query, key)| u8::from(visibility.sees(row, query, key)))
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
    fn the_first_cells_keep_their_places_and_what_follows_counts_on_from_them() {
        let all =
            AttentionMask::full(2, 1).among(&mask(&[&[1, 1, 1], &[0, 1, 1]]), &[vec![1], vec![2]]);
        let later = |mask: &AttentionMask| mask.then(&AttentionMask::full(2, 1)).positions(1);
        let expected = Positions::PerRow(vec![vec![3], vec![2]]);
        assert_eq!(later(&all.first(3)), expected);
        let longer = all.then(&AttentionMask::full(2, 5));
        assert_eq!(longer.first(4), all);
        assert_eq!(all.first(4), all);
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
