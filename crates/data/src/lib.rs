//! From files to batches: rows are read and checked, tokenised with a model's own tokenizer, labelled
//! where the model is to learn, and padded into batches.
//!
//! # What it is not
//! It knows nothing of models, adapters or losses: it does not shift labels, derive positions, or add
//! virtual tokens, though a [`Template`] has it say where they stand. It does not stream from disk
//! either; a fine-tuning set of tokens fits in memory.
//!
//! # The one decision
//! The order of a run is a pure function of the seed and the epoch ([`BatchOrder`]), and everything is
//! tokenised before the first step. Resuming at step `k` is then arithmetic: no state of a loader is
//! saved, and none can be lost. Burn's own loader advances a generator with each pass, so that it
//! cannot be entered in the middle; [`StepLoader`] and [`EvalLoader`] implement the same
//! [`DataLoader`](burn::data::dataloader::DataLoader) trait instead.
//!
//! # Example
//! ```
//! use burn::data::dataloader::DataLoader;
//! use burn_dataset::InMemDataset;
//! use burn_flex::Flex;
//! use burn_peft_data::{
//!     BatchOrder, RunLength, Padding, StepLoader, TextTokenizer, TokenizeOptions, parse_rows,
//!     tokenize_rows,
//! };
//!
//! # fn main() -> Result<(), burn_peft_data::Error> {
//! // A model folder has these as files: `TextTokenizer::load(folder)`.
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
//! let loader = StepLoader::<Flex>::new(
//!     InMemDataset::new(tokenized.examples),
//!     BatchOrder::new(0, 4, 1),
//!     Padding::of(&tokenizer),
//!     RunLength::Epochs(3.0),
//!     Default::default(),
//! )?;
//! assert_eq!(loader.total_steps(), 3);
//! for micro_batches in loader.starting_at(2).iter() {
//!     assert_eq!(micro_batches[0].supervised_tokens(), 2);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod batch;
pub mod chat;
mod config;
mod draft;
mod error;
pub mod eval;
pub mod example;
mod jinja;
mod layout;
pub mod loader;
pub mod order;
mod parse;
pub mod rows;
pub mod stream;
pub mod template;
#[cfg(test)]
mod test_support;
pub mod tokenizer;
mod turns;

pub use batch::{Batch, Padding, PaddingSide, collate};
pub use chat::Message;
pub use error::{Error, Result};
pub use eval::EvalLoader;
pub use example::{
    Example, IGNORE_INDEX, TokenizeOptions, Tokenized, instruction_prompt, tokenize_rows,
};
pub use layout::Prompt;
pub use loader::{RunLength, StepLoader};
pub use order::BatchOrder;
pub use rows::{Row, RowFormat, Rows, parse_rows, read_rows};
pub use stream::StreamDecoder;
pub use template::Template;
pub use tokenizer::TextTokenizer;
