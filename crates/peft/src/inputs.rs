//! A batch as a model takes it.

use burn::tensor::{Int, Tensor, backend::Backend};
use burn_peft_decoder::AttentionMask;

/// A padded batch of token ids.
#[derive(Debug, Clone)]
pub struct Inputs<B: Backend> {
    /// `[batch, seq]`; what stands in padded cells does not matter.
    pub input_ids: Tensor<B, 2, Int>,
    /// `[batch, seq]`.
    pub attention_mask: AttentionMask,
    /// Where virtual tokens stand among the cells, if the adapter has any.
    pub placement: Placement,
}

/// Where virtual tokens stand in the rows of a batch. A batch holds real tokens only; an adapter's are
/// put among them by [`PeftModel::prepare`](crate::PeftModel::prepare).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// In front of every row: PEFT's place.
    #[default]
    Front,
    /// Per row, for each virtual token in order, the cell (`0..=seq`) it stands in front of; ascending,
    /// and of one length in all rows. Fewer than the adapter has are its first ones.
    Cells(Vec<Vec<usize>>),
}

impl Placement {
    /// Collects the placements of rows; `None` means in front.
    ///
    /// # Panics
    /// If only some of them say.
    #[must_use]
    pub fn from_rows(rows: Vec<Option<Vec<usize>>>) -> Self {
        if rows.iter().all(Option::is_none) {
            return Self::Front;
        }
        let said =
            |row: Option<Vec<usize>>| row.expect("all rows of a batch have a placement or none");
        Self::Cells(rows.into_iter().map(said).collect())
    }
}
