//! Virtual tokens as tokens of a plain checkpoint.

use std::path::Path;

use burn_peft_data::{Template, TextTokenizer};
use burn_peft_decoder::{Checkpoint, Copied, NewTokens, SideFiles};
use burn_peft_format::AdapterFolder;

use crate::{
    Error, UnlikelyRow,
    tokenizer::{InFront, TokenizerFiles},
    virtual_token,
};

mod readme;

/// How virtual tokens become tokens of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct PromptCheckpointOptions {
    /// Keeps the virtual tokens in F32 where the checkpoint's type does not hold them; the whole table is F32 then.
    pub exact: bool,
    /// Lets the tokenizer's post-processor put the virtual tokens in front of every text.
    pub post_processor: bool,
}

impl PromptCheckpointOptions {
    /// Whether they can be followed for this adapter. `path` is its folder, for messages.
    ///
    /// # Errors
    /// A post-processor for virtual tokens that stand elsewhere than in front, or a template that is none.
    pub fn check(self, adapter: &AdapterFolder, path: &Path) -> Result<(), Error> {
        let template = parse_template(adapter, path)?;
        match self.post_processor && template.is_some_and(|template| !template.is_in_front()) {
            false => Ok(()),
            true => Err(Error::CannotExport {
                path: path.to_owned(),
                reason: format!(
                    "a post-processor puts virtual tokens in front of a text, and these stand elsewhere: {:?}",
                    adapter.config.template.as_deref().unwrap_or_default()
                ),
            }),
        }
    }
}

/// The template that the adapter was trained with.
fn parse_template(adapter: &AdapterFolder, path: &Path) -> Result<Option<Template>, Error> {
    let template = adapter.config.template.as_deref().map(Template::parse);
    template.transpose().map_err(|error| Error::CannotExport {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// A checkpoint that was written.
#[derive(Debug, Clone)]
pub struct PromptCheckpoint {
    /// The id of the first virtual token; the others follow.
    pub first_id: usize,
    /// Number of virtual tokens.
    pub tokens: usize,
    /// Rows by which the vocabulary grew: 0 where unused ones sufficed.
    pub rows_added: usize,
    /// Whether a row begins with one of them. A BOS that the tokenizer adds belongs behind it then.
    pub come_first: bool,
    /// Whether the chat template puts the tokens in front of a conversation.
    pub in_chat_template: bool,
    /// What else the copy has.
    pub copied: Copied,
}

/// Writes `base` again to the folder `output`, with the virtual tokens of `adapter` (Prompt Tuning or P-Tuning) as tokens of
/// its vocabulary, [`virtual_token`]s. A text behind their names gives the logits of base and adapter.
///
/// The tokens take rows of the table that the tokenizer does not use, and new ones where these do not suffice. The output
/// head is stored apart, with its rows as they were: were it tied, the model would write the virtual tokens, whose rows
/// are long. Their own rows are `unlikely`. The chat template writes the names in front of a conversation, if the adapter
/// was not trained with a template. `path` is the adapter's folder, for messages.
///
/// # Errors
/// An adapter without such tokens, a tokenizer without `tokenizer.json`, a post-processor that is asked for and cannot be
/// written, an output that is not a new or empty folder, and what reading and writing can meet.
#[expect(clippy::too_many_arguments, reason = "two folders, an output, and how")]
pub fn save_prompt_checkpoint(
    base: &Checkpoint,
    folder: &Path,
    adapter: &AdapterFolder,
    unlikely: &UnlikelyRow,
    options: PromptCheckpointOptions,
    output: &Path,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PromptCheckpoint, Error> {
    let table = adapter.prompt_table(path)?;
    let embeddings = table.values().to_vec();
    let tokens = table.shape()[0];
    let tokenizer = TokenizerFiles::read(folder)?;
    tokenizer.refuse_virtual_tokens()?;
    let rows = base.config().vocab_size;
    // Tokenizers number added tokens without holes, whatever their files say.
    let first_id = tokenizer.next_id();
    if first_id > rows {
        return Err(Error::CannotExport {
            path: folder.to_owned(),
            reason: format!(
                "its tokenizer has {first_id} tokens and its embedding table {rows} rows; ids behind the table cannot be \
                 told from new ones"
            ),
        });
    }
    options.check(adapter, path)?;
    let template = parse_template(adapter, path)?;
    let come_first = template.as_ref().is_none_or(Template::begins_with_virtual);
    let in_chat_template = template.is_none() && tokenizer.has_chat_template()?;
    let new = NewTokens {
        first_id,
        head: unlikely.row.repeat(tokens),
        embeddings,
        exact: options.exact,
    };
    let in_front = InFront {
        of_conversations: in_chat_template,
        of_texts: options.post_processor,
    };
    let mut side_files = SideFiles {
        files: tokenizer.with_tokens(first_id, tokens, in_front)?,
        ..SideFiles::default()
    };
    let written: String = (0..tokens).map(virtual_token).collect();
    let readme = readme::Readme {
        tokens,
        names: &written,
        template: adapter.config.template.as_deref(),
        start: &match come_first {
            true => text_in_front(folder)?,
            false => String::new(),
        },
        in_front,
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
        come_first,
        in_chat_template,
        copied,
    })
}

/// What the tokenizer of a folder puts in front of every text: nothing, or the name of its BOS.
fn text_in_front(folder: &Path) -> Result<String, Error> {
    let tokenizer = TextTokenizer::load(folder)?;
    let [before, _] = tokenizer.ids_around_text();
    Ok(before.iter().map(|id| tokenizer.piece(*id)).collect())
}
