//! A copy of a checkpoint's folder with more tokens.

use std::path::Path;

use super::{
    super::{Checkpoint, WeightsFile},
    Changed, Copied, SideFiles, Stored,
};
use crate::{
    Error,
    weights::{EMBED_TOKENS, LM_HEAD},
};

/// Tokens that a copy has and the original has not.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTokens {
    /// The id of the first; the others follow. At most the number of rows that the embedding table has.
    pub first_id: usize,
    /// Their rows of the embedding table, `[tokens, d_model]`.
    pub embeddings: Vec<f32>,
    /// Their rows of the output head, `[tokens, d_model]`.
    pub head: Vec<f32>,
    /// Whether the embedding table becomes F32 where the checkpoint's type does not hold the new rows. If not, they are
    /// rounded.
    pub exact: bool,
}

impl Checkpoint {
    /// Writes the whole folder again as `output`, with more tokens. The embedding table and the head are two tensors
    /// then, also where they were one, and all their old rows are as they were. `config.json` says so, and how many rows
    /// there are; what else is in `side_files` is written too. For the rest, see
    /// [`save_with_biases`](Self::save_with_biases).
    ///
    /// # Errors
    /// `output` exists and is not an empty folder, and whatever reading and writing can meet.
    ///
    /// # Panics
    /// If the rows are not as wide as the model, or a gap is left behind the last row.
    pub fn save_with_tokens(
        &self,
        tokens: &NewTokens,
        side_files: SideFiles,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, Error> {
        let (rows, width) = (self.config.vocab_size, self.config.hidden_size);
        assert_eq!(
            tokens.embeddings.len(),
            tokens.head.len(),
            "two rows a token"
        );
        assert_eq!(
            tokens.embeddings.len() % width,
            0,
            "rows of the model's width"
        );
        assert!(tokens.first_id <= rows, "a table without a gap");
        let end = tokens.first_id + tokens.embeddings.len() / width;
        let mut side_files = side_files;
        side_files
            .config
            .insert("tie_word_embeddings".into(), false.into());
        side_files
            .config
            .insert("vocab_size".into(), rows.max(end).into());
        let has_head = self
            .files
            .iter()
            .any(|file| file.name_of(LM_HEAD).is_some());
        let changed = |file: &WeightsFile| file.with_tokens(tokens, width, has_head);
        self.save_changed(&changed, &side_files, output, progress)
    }
}

impl WeightsFile {
    /// The tables of this file with the new rows.
    fn with_tokens(
        &self,
        tokens: &NewTokens,
        width: usize,
        has_head: bool,
    ) -> Result<Changed, Error> {
        let mut changed = Changed::new();
        let at = (tokens.first_id, width);
        if let Some(name) = self.name_of(EMBED_TOKENS) {
            let info = self.metadata.info(&name).expect("it has this name");
            let table = self.tensor(info)?;
            if !has_head {
                let mut head = Stored::with_rows(&table, info.dtype, at, &tokens.head, false);
                head.growth = head.bytes.len() as u64;
                changed.insert(LM_HEAD.to_owned(), head);
            }
            let rows = &tokens.embeddings;
            let table = Stored::with_rows(&table, info.dtype, at, rows, tokens.exact);
            changed.insert(name, table);
        }
        if let Some(name) = self.name_of(LM_HEAD) {
            let info = self.metadata.info(&name).expect("it has this name");
            let head = self.tensor(info)?;
            let head = Stored::with_rows(&head, info.dtype, at, &tokens.head, false);
            changed.insert(name, head);
        }
        Ok(changed)
    }
}
