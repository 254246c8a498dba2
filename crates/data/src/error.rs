//! What can go wrong between a file and a batch.

use std::path::PathBuf;

use crate::rows::RowFormat;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate. The message says where and what to do; the cause, where there is one,
/// is the [`source`](std::error::Error::source) and is not repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A model folder has no `tokenizer.json`.
    #[error(
        "{}: no such file; a model folder needs the `tokenizer.json` of a fast tokenizer \
         (transformers' `AutoTokenizer.from_pretrained(..).save_pretrained(..)` writes one)",
        path.display()
    )]
    MissingTokenizer {
        /// Where it was looked for.
        path: PathBuf,
    },

    /// A `tokenizer.json` is not one.
    #[error("{}: not a tokenizer this build can read", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A `tokenizer_config.json` cannot be understood.
    #[error("{}: not a tokenizer configuration", path.display())]
    TokenizerConfig {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },

    /// A special token of `tokenizer_config.json` is not in the vocabulary.
    #[error(
        "{}: `{key}` is {token:?}, which is not in the vocabulary of tokenizer.json; \
         name a token that is",
        path.display()
    )]
    UnknownSpecialToken {
        /// The configuration file.
        path: PathBuf,
        /// `eos_token` or `pad_token`.
        key: &'static str,
        /// The token named there.
        token: String,
    },

    /// Rows need an end-of-sequence token and the tokenizer names none.
    #[error(
        "the tokenizer has no `eos_token`, which ends every example of this format; \
         set it in the model's tokenizer_config.json"
    )]
    NoEos,

    /// A conversation was to be rendered and the model has no chat template.
    #[error(
        "the model has no chat template (chat_template.jinja, or `chat_template` in \
         tokenizer_config.json); use an instruct model, or prompt/completion rows"
    )]
    NoChatTemplate,

    /// The chat template does not compile, or refused the conversation.
    #[error("the model's chat template failed")]
    ChatTemplate {
        /// What the template engine said.
        source: minijinja::Error,
    },

    /// The chat template changes earlier turns when later ones follow, so that what an assistant
    /// turn is cannot be told.
    #[error(
        "the chat template renders message {message} differently when the rest of the conversation \
         follows, so its supervised span is unknown; write this row as prompt/completion"
    )]
    UnstableChatTemplate {
        /// Index of the assistant message, from 0.
        message: usize,
    },

    /// Text could not be tokenised.
    #[error("the text cannot be tokenised")]
    Encode {
        /// What the tokenizers library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Ids could not be turned back into text.
    #[error("the ids cannot be decoded")]
    Decode {
        /// What the tokenizers library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A data file has no rows.
    #[error("{path}: no rows; write one JSON object a line")]
    NoRows {
        /// The file, or the name of the text.
        path: String,
    },

    /// A line is not UTF-8.
    #[error("{path}:{line}: not UTF-8; save the file as UTF-8")]
    NotUtf8 {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },

    /// A line is not JSON.
    #[error("{path}:{line}: not JSON: {reason} (column {column}); write one JSON object a line")]
    NotJson {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in bytes.
        column: usize,
        /// What the parser said.
        reason: String,
    },

    /// The keys of the first row belong to no known format.
    #[error("{path}:{line}: no known format has the keys {keys}; the formats are {formats}")]
    UnknownFormat {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The keys found.
        keys: String,
        /// The formats there are.
        formats: String,
    },

    /// The rows are of a classification format.
    #[error(
        "{path}:{line}: {format} is a classification format, which is not supported yet; \
         write the label as the completion of {{\"prompt\",\"completion\"}} rows"
    )]
    Classification {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The format's keys.
        format: &'static str,
    },

    /// A row does not fit the file's format.
    #[error("{path}:{line}: {reason}")]
    BadRow {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// A well-formed row could not be turned into an example.
    #[error("{path}:{line}: this row cannot be tokenised")]
    Row {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: Box<Error>,
    },

    /// A template is none.
    #[error("template {template:?}, column {column}: {reason}")]
    Template {
        /// The template.
        template: String,
        /// The column, from 1, in characters.
        column: usize,
        /// What is wrong there, and what was expected.
        reason: String,
    },

    /// A template has a field that the rows do not have.
    #[error("template {template:?} has `{{{field}}}`, but {format} rows {fields}")]
    TemplateField {
        /// The template.
        template: String,
        /// The field.
        field: &'static str,
        /// What the rows look like.
        format: RowFormat,
        /// The fields they have, in words.
        fields: &'static str,
    },

    /// A template has more fields than there are texts to fill them.
    #[error(
        "template {template:?}: there is one text, which fills `{{instruction}}`, and nothing \
         for `{{{field}}}`; give a row with all its fields"
    )]
    TemplateNeeds {
        /// The template.
        template: String,
        /// The field without a value.
        field: &'static str,
    },

    /// A row teaches nothing.
    #[error(
        "{path}:{line}: no supervised token after the first, so there is nothing to learn; \
         give the row an answer, or remove it"
    )]
    NothingSupervised {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },

    /// Truncation left no example.
    #[error(
        "{path}: cutting to max_length = {max_length} removes the supervised part of every row; \
         raise max_length"
    )]
    AllDropped {
        /// The file.
        path: String,
        /// The limit, in tokens.
        max_length: usize,
    },

    /// A size that must be at least one is zero.
    #[error("`{name}` is 0; it must be at least 1")]
    Zero {
        /// The option.
        name: &'static str,
    },
}
