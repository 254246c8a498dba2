//! Data files to batches. This crate reads and checks rows, tokenises them with the model's own tokenizer,
//! labels the tokens that the model learns, and pads examples into batches.
//!
//! # What it is not
//! It knows nothing of models, adapters or losses. It does not shift labels, derive positions or add virtual
//! tokens; a [`Template`] only says where they stand. It does not stream from disk: the tokens of a
//! fine-tuning set fit in memory.
//!
//! # The one decision
//! The order of a run is a pure function of the seed and the epoch ([`BatchOrder`]), and all rows are
//! tokenised before the first step. To resume at step `k` is then arithmetic, and a checkpoint holds no state
//! of a loader. Burn's own loader advances a random generator with each pass and cannot start in the middle
//! of one. [`StepLoader`] and [`EvalLoader`] implement the same
//! [`DataLoader`](burn::data::dataloader::DataLoader) trait instead.
//!
//! # Example
//! ```
//! use burn::data::dataloader::DataLoader;
//! use burn_dataset::InMemDataset;
//! use burn_flex::Flex;
//! use burn_peft_data::{
//!     BatchOrder, Padding, StepLoader, TextTokenizer, TokenizeOptions, parse_rows, tokenize_rows,
//! };
//!
//! # fn main() -> Result<(), burn_peft_data::Error> {
//! // `TextTokenizer::load(folder)` reads these from the files of a model folder.
//! let tokenizer = TextTokenizer::from_bytes(
//!     br#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
//!          "model": {"type": "WordLevel", "unk_token": "?",
//!                    "vocab": {"?": 0, "<end>": 1, "two": 2, "and": 3, "is": 4, "four": 5}}}"#,
//!     br#"{"eos_token": "<end>"}"#,
//!     None,
//! )?;
//!
//! let rows = parse_rows("sums.jsonl", r#"{"prompt": "two and two is", "completion": "four"}"#)?;
//! let options = TokenizeOptions { max_length: Some(512), ..Default::default() };
//! let tokenized = tokenize_rows(&rows, &tokenizer, options, &mut |_done, _all| {})?;
//! assert_eq!(tokenized.examples[0].input_ids, [2, 3, 2, 4, 5, 1]);
//! assert_eq!(tokenized.examples[0].labels, [-100, -100, -100, -100, 5, 1]);
//!
//! let order = BatchOrder::new(0, 4, 1);
//! let epochs = 3;
//! let total_steps = epochs * order.steps_per_epoch(tokenized.examples.len());
//! let loader = StepLoader::<Flex>::new(
//!     InMemDataset::new(tokenized.examples),
//!     order,
//!     Padding::of(&tokenizer),
//!     total_steps,
//!     Default::default(),
//! )?;
//! assert_eq!(loader.num_items(), 3);
//! for micro_batches in loader.starting_at(2).iter() {
//!     assert_eq!(micro_batches[0].tokens(), 6);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod batch;
mod conversation;
mod error;
mod eval;
mod example;
mod given;
mod labels;
mod layout;
mod loader;
mod mix;
mod order;
mod panics;
mod row;
mod rows;
mod stream;
mod task;
mod template;
#[cfg(test)]
mod test_support;
mod tokenize;
mod tokenizer;

pub use batch::{Batch, Padding};
pub use conversation::{Conversation, Message};
pub use error::{Error, Result};
pub use eval::EvalLoader;
pub use example::{Example, IGNORE_INDEX, Parts, RowLabel};
pub use labels::{Labels, ProblemType};
pub use layout::{Prompt, instruction_prompt};
pub use loader::StepLoader;
pub use mix::Mix;
pub use order::BatchOrder;
pub use row::{Answer, Label, LabelValue, Question, Row, RowFormat};
pub use rows::{
    ColumnNames, RowReader, Rows, RowsOfFile, parse_rows, parse_rows_for, read_rows, read_rows_for,
};
pub use stream::StreamDecoder;
pub use task::Task;
pub use template::Template;
pub use tokenize::{
    Candidates, ExcessLength, FileOutcome, Supervise, Targets, TokenizeOptions, Tokenized,
    Verbalizer, tokenize_rows,
};
pub use tokenizer::{NamedToken, TextTokenizer, TokenEntry, TokenKind, TokenizerFacts};
