//! The errors of this crate.

use std::path::PathBuf;

use crate::row::RowFormat;
use crate::task::Task;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. The message says where the fault is and what to do. The
/// [`source`](std::error::Error::source) is the cause, which the message does not repeat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// A model folder has no `tokenizer.json`.
    #[error(
        "{}: no such file; a model folder needs the `tokenizer.json` of a fast tokenizer \
         (transformers' `AutoTokenizer.from_pretrained(..).save_pretrained(..)` writes one)",
        path.display()
    )]
    MissingTokenizer {
        /// The path of the missing file.
        path: PathBuf,
    },

    /// A data file is not what can be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What it is, and what to do.
        reason: String,
    },

    /// A data file is not there, and its path looks like the id of a data set on the Hub.
    #[error(
        "{name}: no such file. Data are local files; if this is a data set of the Hugging Face Hub, fetch it with \
         `hf download {name} --repo-type dataset --local-dir DIR` and give one of its files (jsonl, json, csv or parquet)"
    )]
    HubData {
        /// The path.
        name: String,
    },

    /// A `tokenizer.json` is malformed, or this build cannot read it.
    #[error("{}: not a tokenizer this build can read", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The error of the tokenizers library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A `tokenizer_config.json` or `special_tokens_map.json` is malformed.
    #[error("{}: not a tokenizer configuration", path.display())]
    TokenizerConfig {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
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
        /// `eos_token`.
        key: &'static str,
        /// The text of the token.
        token: String,
    },

    /// The rows need an end-of-sequence token, and the tokenizer has none.
    #[error(
        "the tokenizer has no `eos_token`, which ends every example of this format; \
         set it in the model's tokenizer_config.json"
    )]
    NoEos,

    /// "No answer" needs an end-of-sequence token, and the tokenizer has none.
    #[error(
        "the tokenizer has no `eos_token`, which stands for \"no answer\"; set it in the model's tokenizer_config.json"
    )]
    NoEosForNoAnswer,

    /// The rows are conversations, and the model has no chat template.
    #[error(
        "the model has no chat template (chat_template.jinja, or `chat_template` in \
         tokenizer_config.json); use an instruct model, or prompt/completion rows"
    )]
    NoChatTemplate,

    /// The chat template does not compile, or it rejects the conversation.
    #[error("the model's chat template failed")]
    ChatTemplate {
        /// The error of the template engine.
        source: minijinja::Error,
    },

    /// The chat template writes a turn of the assistant in a way in which it cannot be found.
    #[error(
        "the chat template does not write messages[{message}] between the same texts as any other turn of \
         the assistant, so it is unknown what to learn; write this row as prompt/completion"
    )]
    UnstableChatTemplate {
        /// Index of the assistant message, from 0.
        message: usize,
    },

    /// The chat template leaves out a turn, or a part of one that is to be learned.
    #[error(
        "the model's chat template does not render {what}; use another model or template, or \
         write this row without it"
    )]
    NotRendered {
        /// What is left out.
        what: String,
    },

    /// A text has a token for which the model has no embedding.
    #[error(
        "the token {token:?} has the id {id}, and the model's embedding table has {rows} rows; \
         leave the token out, or use the tokenizer that belongs to the model"
    )]
    OutsideTable {
        /// The text of the token.
        token: String,
        /// Its id.
        id: u32,
        /// The number of ids that the model has.
        rows: usize,
    },

    /// Padding would make a batch wider than the model's longest sequence.
    #[error(
        "data.pad_to_multiple_of = {multiple_of} pads the longest row, of {longest} tokens, to \
         {width}, and the model has room for {room}; give a smaller multiple, or a smaller data.max_length"
    )]
    PaddedTooWide {
        /// The option.
        multiple_of: usize,
        /// The number of tokens of the longest row.
        longest: usize,
        /// What it is padded to.
        width: usize,
        /// The most tokens that a row of the model can have.
        room: usize,
    },

    /// There is no memory for a thread.
    #[error("there is no memory to render the chat template")]
    Memory {
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// A text could not be tokenised.
    #[error("the text cannot be tokenised")]
    Encode {
        /// The error of the tokenizers library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Ids could not be decoded.
    #[error("the ids cannot be decoded")]
    Decode {
        /// The error of the tokenizers library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A data file has no rows.
    #[error("{path}: no rows; write one JSON object a line, or a list of them")]
    NoRows {
        /// The file, or the name given to the text.
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
        /// The message of the parser.
        reason: String,
    },

    /// No known format has the keys of the first row.
    #[error(
        "{path}:{line}: no known format has the keys {keys}; the formats are {formats}; where columns have other \
         names, run.toml says which they are: data.columns = {{ prompt = \"COLUMN\", completion = \"COLUMN\" }}"
    )]
    UnknownFormat {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The keys found.
        keys: String,
        /// The known formats.
        formats: String,
    },

    /// The rows are for another task.
    #[error(
        "{path}:{line}: this row ({format}) is for the task {found}, and the task is {task}; give rows for \
         {task}, or choose the task {found}"
    )]
    OtherTask {
        /// The file.
        path: String,
        /// The line of the first row, from 1.
        line: usize,
        /// The keys of the row.
        format: String,
        /// The task of such rows.
        found: Task,
        /// The task that was asked for.
        task: Task,
    },

    /// The classes cannot be told from the rows.
    #[error("{path}: {reason}")]
    NoClasses {
        /// The file.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },

    /// A row does not have the format of the file.
    #[error("{path}:{line}: {reason}")]
    BadRow {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The fault, and what was expected.
        reason: String,
    },

    /// A well-formed row could not be tokenised.
    #[error("{path}:{line}: this row cannot be tokenised")]
    Row {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The cause.
        source: Box<Error>,
    },

    /// The words of the classes cannot tell these apart.
    #[error("label words: {reason}")]
    Verbalizer {
        /// Why not.
        reason: String,
    },

    /// A template is malformed.
    #[error("template {template:?}, column {column}: {reason}")]
    Template {
        /// The template.
        template: String,
        /// The column, from 1, in characters.
        column: usize,
        /// The fault at this column, and what was expected.
        reason: String,
    },

    /// A template names a field that the rows do not have.
    #[error("template {template:?} has `{{{field}}}`, but {format} rows {fields}")]
    TemplateField {
        /// The template.
        template: String,
        /// The field.
        field: &'static str,
        /// The format of the rows.
        format: RowFormat,
        /// A phrase that names the fields of that format.
        fields: &'static str,
    },

    /// A template does not serve what is learned.
    #[error("template {template:?} {reason}")]
    TemplateUse {
        /// The template.
        template: String,
        /// Why not, and what to do.
        reason: &'static str,
    },

    /// A template has a field for which there is no text.
    #[error(
        "template {template:?}: there is one text, which fills `{{{filled}}}`, and nothing \
         for `{{{field}}}`; give a row with all its fields"
    )]
    TemplateNeeds {
        /// The template.
        template: String,
        /// The field that has the text.
        filled: &'static str,
        /// The field without a value.
        field: &'static str,
    },

    /// A row has nothing to learn.
    #[error(
        "{path}:{line}: no supervised token after the first, so there is nothing to learn{reason}; \
         give the row an answer, or remove it"
    )]
    NothingSupervised {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The cause, in brackets, or nothing if it is not known.
        reason: String,
    },

    /// No row has an answer in a window, and there is no token for "no answer".
    #[error(
        "{path}: no window of a context has an answer, so there is nothing to learn; give rows with answers, or \
         learn that there is none, too"
    )]
    NoAnswers {
        /// The file.
        path: String,
    },

    /// The cut to `max_length` leaves no example.
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

    /// Every row is longer than `max_length`, and such rows are left out.
    #[error(
        "{path}: every row has more than max_length = {max_length} tokens, and such rows are left out; raise max_length"
    )]
    AllTooLong {
        /// The file.
        path: String,
        /// The limit, in tokens.
        max_length: usize,
    },

    /// A size is zero and must be at least one.
    #[error("`{name}` is 0; it must be at least 1")]
    Zero {
        /// The option.
        name: &'static str,
    },
}
