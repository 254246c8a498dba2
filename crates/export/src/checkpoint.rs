//! Virtual tokens as tokens of a plain checkpoint.

use std::path::Path;

use burn_peft_data::Template;
use burn_peft_decoder::{Checkpoint, Copied, NewTokens, SideFiles};
use burn_peft_format::AdapterFolder;

use crate::{Error, UnlikelyRow, tokenizer::TokenizerFiles, virtual_token};

mod readme;

/// A checkpoint that was written.
#[derive(Debug, Clone)]
pub struct PromptCheckpoint {
    /// The id of the first virtual token; the others follow.
    pub first_id: usize,
    /// Number of virtual tokens.
    pub tokens: usize,
    /// Rows by which the vocabulary grew: 0 where unused ones sufficed.
    pub rows_added: usize,
    /// Whether the chat template puts the tokens in front of a conversation.
    pub in_chat_template: bool,
    /// What else the copy has.
    pub copied: Copied,
}

/// Writes `base` again to the folder `output`, with the virtual tokens of `adapter` (Prompt Tuning or P-Tuning) as tokens of
/// its vocabulary, [`virtual_token`]s. A text behind their names gives the logits of base and adapter.
///
/// The tokens take rows of the table that the tokenizer does not use, if there are enough, else new ones. The output
/// head is stored apart, with its rows as they were: were it tied, the model would write the virtual tokens, whose rows
/// are long. Their own rows are `unlikely`. The chat template writes the names in front of a conversation, if the adapter
/// was not trained with a template.
///
/// `exact` keeps the virtual tokens in F32 where the checkpoint's type does not hold them; the whole table is F32 then.
/// `path` is the adapter's folder, for messages.
///
/// # Errors
/// An adapter without such tokens, a tokenizer without `tokenizer.json`, an output that is not a new or empty folder, and
/// what reading and writing can meet.
#[expect(clippy::too_many_arguments, reason = "two folders, an output, and how")]
pub fn save_prompt_checkpoint(
    base: &Checkpoint,
    folder: &Path,
    adapter: &AdapterFolder,
    unlikely: &UnlikelyRow,
    exact: bool,
    output: &Path,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PromptCheckpoint, Error> {
    let table = adapter.prompt_table(path)?;
    let embeddings = table.values().to_vec();
    let tokens = table.shape()[0];
    let tokenizer = TokenizerFiles::read(folder)?;
    let rows = base.config().vocab_size;
    let next = tokenizer.next_id();
    let first_id = if next + tokens <= rows {
        next
    } else {
        rows.max(next)
    };
    if first_id > rows {
        return Err(Error::CannotExport {
            path: folder.to_owned(),
            reason: format!(
                "its tokenizer has {next} tokens and its embedding table {rows} rows; ids behind the table cannot be \
                 told from new ones"
            ),
        });
    }
    let template = adapter.config.template.as_deref().map(Template::parse);
    let template = template.transpose().map_err(|error| Error::CannotExport {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let in_chat_template = template.is_none() && tokenizer.has_chat_template()?;
    let new = NewTokens {
        first_id,
        head: unlikely.row.repeat(tokens),
        embeddings,
        exact,
    };
    let mut side_files = SideFiles {
        files: tokenizer.with_tokens(first_id, tokens, in_chat_template)?,
        ..SideFiles::default()
    };
    let written: String = (0..tokens).map(virtual_token).collect();
    let readme = readme::Readme {
        tokens,
        names: &written,
        template: adapter.config.template.as_deref(),
        in_chat_template,
        unlikely,
    };
    side_files
        .files
        .insert("README.md".to_owned(), readme.to_string().into_bytes());
    let copied = base.save_with_tokens(&new, side_files, output, progress)?;
    Ok(PromptCheckpoint {
        first_id,
        tokens,
        rows_added: (first_id + tokens).saturating_sub(rows),
        in_chat_template,
        copied,
    })
}
