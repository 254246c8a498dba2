//! Rows to examples.

mod answers;
mod classes;
mod draft;
mod source;
mod spans;
mod supervise;
mod tags;
#[cfg(test)]
mod tests;
mod turns;
mod usage;
mod verbalizer;

use crate::error::{Error, Result};
use crate::example::Example;
use crate::labels::Labels;
use crate::row::Row;
use crate::rows::Rows;
use crate::task::Task;
use crate::template::Template;
use crate::tokenizer::TextTokenizer;
use source::Source;
pub(crate) use spans::TurnFrame;
pub use supervise::{ExcessLength, Supervise};
use usage::Usage;
pub use verbalizer::{Candidates, Verbalizer};

/// The number of rows that are tokenised in parallel between two reports of progress.
const CHUNK: usize = 256;

/// How rows become examples.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizeOptions<'a> {
    /// The largest number of tokens in a row. Virtual tokens do not count. Default: no limit.
    pub max_length: Option<usize>,
    /// The order of a row's fields. Default: [the order for its format](tokenize_rows), with virtual
    /// tokens, if any, in front.
    pub template: Option<&'a Template>,
    /// What is learned of a row. Default: its text.
    pub targets: Targets<'a>,
    /// Which tokens of a text are learned. Default: the assistant's turns, or the completion.
    pub supervise: Supervise,
    /// What becomes of a row that is longer than `max_length`. Default: it is cut. A context with a question becomes
    /// windows and is never too long.
    pub excess_length: ExcessLength,
}

/// What is learned of a row.
#[derive(Debug, Clone, Copy, Default)]
pub enum Targets<'a> {
    /// Text, of the rows of [`Task::CausalLm`](crate::Task::CausalLm).
    #[default]
    Text,
    /// The label of a text, of the rows of [`Task::SeqCls`](crate::Task::SeqCls), by a head.
    Class(&'a Labels),
    /// The label of a text as words that the language model writes behind it: for each class, in order, its text.
    Verbalizer(&'a Labels, &'a [String]),
    /// The tags of words, of the rows of [`Task::TokenCls`](crate::Task::TokenCls).
    Tags {
        /// The classes.
        labels: &'a Labels,
        /// Whether every token of a word has its label, and not the first one alone (transformers'
        /// `label_all_tokens`).
        label_all_tokens: bool,
    },
    /// The answers to questions, of the rows of [`Task::Qa`](crate::Task::Qa).
    Answers {
        /// The tokens that two windows of a long context share (transformers' `doc_stride`).
        doc_stride: usize,
        /// Whether there may be no answer (transformers' `version_2_with_negative`). A row then ends with the eos, which
        /// stands for "no answer".
        no_answer: bool,
        /// Whether windows are kept in which nothing is learned, as an evaluation and a prediction need: those without
        /// the answer where there is no `no_answer`. Their label is [`RowLabel::Unknown`](crate::RowLabel::Unknown).
        every_window: bool,
    },
}

impl Targets<'_> {
    /// The task whose rows have these targets.
    pub fn task(self) -> Task {
        match self {
            Self::Text => Task::CausalLm,
            Self::Class(_) | Self::Verbalizer(..) => Task::SeqCls,
            Self::Tags { .. } => Task::TokenCls,
            Self::Answers { .. } => Task::Qa,
        }
    }
}

/// The examples of a file, or of several one after the other, and how many rows `max_length` changed or removed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokenized {
    /// The examples, in file order.
    pub examples: Vec<Example>,
    /// The number of examples that were cut to `max_length`.
    pub truncated: usize,
    /// The number of rows that were left out, because the cut would have removed every learned token or because
    /// [`ExcessLength::Drop`] says so.
    pub dropped: usize,
    /// What became of each file, in the order of [`Rows::files`].
    pub files: Vec<FileOutcome>,
    /// What the rows have that does not reach the model, a sentence for each: keys that no format has, and what the
    /// chat template does not write. It begins with the name of the file.
    pub notes: Vec<String>,
}

/// What became of the rows of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOutcome {
    /// The number of its examples.
    pub examples: usize,
    /// See [`Tokenized::truncated`].
    pub truncated: usize,
    /// See [`Tokenized::dropped`].
    pub dropped: usize,
}

/// Tokenises and labels every row, in file order. `progress` receives the rows done and the rows in all.
///
/// | row | ids | supervised |
/// |---|---|---|
/// | prompt/completion | `tokenize(prompt) + tokenize(completion) + [eos]` | the completion and the eos |
/// | instruction | as prompt/completion, with [`instruction_prompt`](crate::instruction_prompt) as the prompt | the output and the eos |
/// | text | `tokenize(text) + [eos]` | everything |
/// | messages | the chat template's text, tokenised as a whole | what the template marks with `{% generation %}`, or else the assistant's turns, each through its end-of-turn token; no turn whose flag says so |
/// | input_ids/labels | unchanged | as the labels say |
/// | classification, [`Targets::Class`] | the tokenizer's own encoding of the text, or of the pair | nothing: [`Example::row_label`] |
/// | classification, [`Targets::Verbalizer`] | `tokenize(text) + tokenize(words)` | the words |
/// | tagging | `tokenize(" " + word)` for each word, without the space where a text has none | the class of each word at its first token |
/// | question | the tokenizer's own encoding of question and context, a window an example | nothing: [`Example::row_label`] |
///
/// A [`Template`] puts the fields of the first three formats in another order, with virtual tokens
/// between them. Instruction rows do not use the model's chat template, so that they mean the same on
/// every model. Write `messages` rows to use it.
///
/// The table is that of [`Supervise::Assistant`].
///
/// A row longer than `max_length` keeps its first `max_length` tokens and loses the end of its completion
/// with the eos, as in transformers and TRL (`truncation_mode = "keep_start"`). A row that loses its whole
/// completion is dropped, as in TRL, so that no part of a prompt stands alone. Of the other tasks, texts to classify are
/// cut until the row fits, words at the end, and contexts into windows. [`ExcessLength`] has other choices.
///
/// # Errors
/// The rows are not those of the targets' [task](Targets::task). With file and line: a label is none of the classes, the
/// cut leaves no token of a text to classify or of words to tag, a question leaves no room for its context, a row has nothing to learn before it is cut, its ids are outside the vocabulary or the model's
/// table, the chat template does not accept its conversation or leaves out a turn, or it lacks a field of the template. Without a line: the
/// tokenizer has no eos, the model has no chat template, or the cut leaves no row of a file.
pub fn tokenize_rows(
    rows: &Rows,
    tokenizer: &TextTokenizer,
    options: TokenizeOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Tokenized> {
    let wanted = options.targets.task();
    if rows.task() != wanted {
        return Err(Error::OtherTask {
            path: rows.path().to_owned(),
            line: rows.rows()[0].0,
            format: rows.format().to_string(),
            found: rows.task(),
            task: wanted,
        });
    }
    let all = rows.rows().len();
    let mut tokenized = Tokenized {
        notes: rows.notes().to_vec(),
        ..Tokenized::default()
    };
    let mut first = 0;
    for file in rows.files() {
        let source = Source {
            path: file.path,
            tokenizer,
            template: options.template,
            limit: options.max_length.unwrap_or(usize::MAX),
            supervise: options.supervise,
        };
        let mut progress = |done| progress(first + done, all);
        let (examples, outcome) = tokenize_file(
            &source,
            file.rows,
            options,
            &mut tokenized.notes,
            &mut progress,
        )?;
        tokenized.truncated += outcome.truncated;
        tokenized.dropped += outcome.dropped;
        tokenized.files.push(outcome);
        let row = |example: Example| Example {
            row: first + example.row,
            ..example
        };
        tokenized.examples.extend(examples.into_iter().map(row));
        first += file.rows.len();
    }
    Ok(tokenized)
}

/// Tokenises the rows of a file. `progress` receives the rows done.
fn tokenize_file(
    source: &Source<'_>,
    rows: &[(usize, Row)],
    options: TokenizeOptions<'_>,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Example>, FileOutcome)> {
    let mut usage = Usage::default();
    let mut unlearned = answers::Unlearned::default();
    let mut examples = Vec::with_capacity(rows.len());
    let (mut found, mut done) = (FileOutcome::default(), 0);
    for chunk in rows.chunks(CHUNK) {
        let outcomes = match options.targets {
            Targets::Text => draft::tokenize_chunk(source, chunk, &mut usage)?,
            Targets::Class(labels) => classes::tokenize_chunk(source, chunk, labels)?,
            Targets::Tags {
                labels,
                label_all_tokens,
            } => tags::Tags::new(labels, label_all_tokens).tokenize_chunk(source, chunk)?,
            Targets::Answers {
                doc_stride,
                no_answer,
                every_window,
            } => answers::Windows::new(source, doc_stride, no_answer, every_window)?
                .tokenize_chunk(source, chunk, &mut unlearned)?,
            Targets::Verbalizer(labels, words) => {
                let words = Verbalizer::new(labels, words, source.tokenizer)?;
                words.tokenize_chunk(source, chunk, labels)?
            }
        };
        for (index, mut outcome) in outcomes.into_iter().enumerate() {
            let excess = options.excess_length;
            excess.apply(source, chunk[index].0, &mut outcome)?;
            let is_left = !outcome.examples.is_empty();
            found.dropped += usize::from(!is_left);
            found.truncated += usize::from(is_left && outcome.too_long.is_some());
            let own = outcome.examples.into_iter();
            examples.extend(own.map(|example| Example {
                row: done + index,
                ..example
            }));
        }
        done += chunk.len();
        progress(done);
    }
    notes.extend(usage.notes(source.path));
    notes.extend(unlearned.notes(source.path));
    found.examples = examples.len();
    let path = || source.path.to_owned();
    let max_length = source.limit;
    match (examples.is_empty(), options.targets, options.excess_length) {
        (false, ..) => Ok((examples, found)),
        (true, Targets::Answers { .. }, _) => Err(Error::NoAnswers { path: path() }),
        (true, _, ExcessLength::Drop) => Err(Error::AllTooLong {
            path: path(),
            max_length,
        }),
        (true, ..) => Err(Error::AllDropped {
            path: path(),
            max_length,
        }),
    }
}
