//! Values of `[data]`: files with weights, and rows that are held out of the training rows.

use std::{fmt, path::Path, path::PathBuf};

use burn_peft::{OptionType, options};
use burn_peft_data::{ExcessLength, RowReader, Rows};
use serde::{Deserialize, Serialize};

use super::RunConfig;
use crate::Error;

/// Files of rows, each with a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct DataFiles(pub Vec<DataFile>);

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Its path.
    pub path: PathBuf,
    /// How often an epoch has each of its rows, on average.
    #[serde(default = "once")]
    pub weight: f64,
}

fn once() -> f64 {
    1.0
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a path, or a list of paths and `{ path = \"…\", weight = 1.0 }`"
)]
enum Written {
    One(Item),
    Several(Vec<Item>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Item {
    Path(PathBuf),
    Weighted(DataFile),
}

impl From<Item> for DataFile {
    fn from(item: Item) -> Self {
        match item {
            Item::Path(path) => Self { path, weight: 1.0 },
            Item::Weighted(file) => file,
        }
    }
}

impl From<DataFile> for Item {
    fn from(file: DataFile) -> Self {
        match file.weight {
            1.0 => Self::Path(file.path),
            _ => Self::Weighted(file),
        }
    }
}

impl From<Written> for DataFiles {
    fn from(written: Written) -> Self {
        match written {
            Written::One(item) => Self(vec![item.into()]),
            Written::Several(items) => Self(items.into_iter().map(DataFile::from).collect()),
        }
    }
}

impl From<DataFiles> for Written {
    fn from(files: DataFiles) -> Self {
        let mut items: Vec<Item> = files.0.into_iter().map(Item::from).collect();
        match items.len() {
            1 => Self::One(items.remove(0)),
            _ => Self::Several(items),
        }
    }
}

impl From<&Path> for DataFiles {
    fn from(path: &Path) -> Self {
        Self(vec![DataFile {
            path: path.to_owned(),
            weight: 1.0,
        }])
    }
}

impl OptionType for DataFiles {
    fn kind() -> String {
        "path, or list of paths and `{ path, weight }`".into()
    }
}

impl DataFiles {
    /// Reads the rows of all files with `reader`.
    ///
    /// # Errors
    /// A file that cannot be read, and files for different tasks.
    pub fn read(&self, reader: &RowReader<'_>) -> Result<Rows, Error> {
        let read = |file: &DataFile| Ok((reader.read(&file.path)?, file.weight));
        let files = self.0.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        Ok(Rows::join(files)?)
    }
}

/// How many of the training rows are held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a ratio or a whole number of rows")]
pub enum ValidationSplit {
    /// So many.
    Rows(usize),
    /// This part of them, rounded up to whole rows.
    Ratio(f64),
}

impl OptionType for ValidationSplit {
    fn kind() -> String {
        "ratio, or whole number of rows".into()
    }
}

impl fmt::Display for ValidationSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => rows.fmt(f),
            // With a decimal point: 1.0 is a ratio.
            Self::Ratio(ratio) => fmt::Debug::fmt(ratio, f),
        }
    }
}

impl ValidationSplit {
    /// Whether it leaves rows on both sides of enough rows.
    pub(super) fn is_possible(self) -> bool {
        match self {
            Self::Rows(rows) => rows >= 1,
            Self::Ratio(ratio) => ratio > 0.0 && ratio < 1.0,
        }
    }

    /// The number of rows that are held out of `all`.
    fn rows_of(self, all: usize) -> usize {
        // A product may be a little above a whole number, which it should be.
        const ROUNDING: f64 = 1e-9;
        match self {
            Self::Rows(rows) => rows,
            Self::Ratio(ratio) => (ratio * all as f64 - ROUNDING).ceil() as usize,
        }
    }
}

impl RunConfig {
    /// Takes the rows that `data.validation_split` asks for out of the training rows, if it does. Returns the rows to
    /// train on and those.
    ///
    /// # Errors
    /// No row would be left to train on.
    pub fn hold_out(&self, train: Rows) -> Result<(Rows, Option<Rows>), Error> {
        let Some(split) = self.data.validation_split else {
            return Ok((train, None));
        };
        let all = train.rows().len();
        let count = split.rows_of(all);
        if !(1..all).contains(&count) {
            return Err(Error::BadValue {
                place: String::new(),
                key: "data.validation_split".into(),
                message: format!(
                    "it is {split}, and {} has {all} rows: none is left to train on",
                    train.path()
                ),
            });
        }
        let seed = self.train.data_seed.unwrap_or(self.train.seed);
        let (train, valid) = train.hold_out(count, seed);
        Ok((train, Some(valid)))
    }
}

options! {
    /// What becomes of a row that is longer than `max_length`.
    pub enum ExcessLengthStrategy {
        /// It is cut, and left out if that leaves nothing of an answer.
        Truncate = "truncate",
        /// It is left out.
        Drop = "drop",
        /// It is an error.
        Fail = "fail" | "raise",
    }
}

impl From<ExcessLengthStrategy> for ExcessLength {
    fn from(strategy: ExcessLengthStrategy) -> Self {
        match strategy {
            ExcessLengthStrategy::Truncate => Self::Truncate,
            ExcessLengthStrategy::Drop => Self::Drop,
            ExcessLengthStrategy::Fail => Self::Fail,
        }
    }
}

options! {
    /// What is learned of a text.
    pub enum Supervise {
        /// The turns of the assistant, the completion of a prompt, the output of an instruction.
        Assistant = "assistant",
        /// The last of them alone.
        Last = "last",
        /// Every token, the prompt and the turns of others included.
        All = "all",
    }
}

impl From<Supervise> for burn_peft_data::Supervise {
    fn from(supervise: Supervise) -> Self {
        match supervise {
            Supervise::Assistant => Self::Assistant,
            Supervise::Last => Self::Last,
            Supervise::All => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_peft_data::parse_rows;

    use super::*;
    use crate::Override;

    fn parse(text: &str) -> Result<RunConfig, Error> {
        RunConfig::parse(text, "run.toml", &[])
    }

    fn message(text: &str) -> String {
        let message = parse(text).expect_err(text).to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    fn files(text: &str) -> Vec<(String, f64)> {
        let config = parse(text).unwrap();
        let again = RunConfig::parse(&config.to_toml().unwrap(), "again", &[]).unwrap();
        assert_eq!(again.data.train, config.data.train);
        let files = config.data.train.unwrap().0.into_iter();
        files
            .map(|file| (file.path.display().to_string(), file.weight))
            .collect()
    }

    #[test]
    fn the_training_rows_are_a_file_or_several_with_weights() {
        let a = |weight| ("a.jsonl".to_owned(), weight);
        let b = |weight| ("b.jsonl".to_owned(), weight);
        for (text, expected) in [
            ("train = \"a.jsonl\"", vec![a(1.0)]),
            ("train = [\"a.jsonl\", \"b.jsonl\"]", vec![a(1.0), b(1.0)]),
            (
                "train = [\"a.jsonl\", { path = \"b.jsonl\", weight = 0.5 }]",
                vec![a(1.0), b(0.5)],
            ),
            ("train = { path = \"a.jsonl\", weight = 2 }", vec![a(2.0)]),
            (
                "[[data.train]]\npath = \"a.jsonl\"\nweight = 2.5\n[[data.train]]\npath = \"b.jsonl\"",
                vec![a(2.5), b(1.0)],
            ),
        ] {
            assert_eq!(files(&format!("[data]\n{text}")), expected, "{text}");
        }
    }

    #[test]
    fn files_that_are_none_are_refused_with_their_line() {
        for (train, expected) in [
            ("3", "run.toml:2: data.train: expected a path, or a list"),
            ("[]", "run.toml:2: data.train is []"),
            (
                "[{ path = \"a\", wieght = 1 }]",
                "run.toml:2: data.train: expected a path, or a list",
            ),
            (
                "[{ path = \"a\", weight = 0 }]",
                "run.toml:2: data.train is a file with weight 0, expected a weight",
            ),
            ("[{ path = \"a\", weight = nan }]", "a file with weight NaN"),
            (
                "[{ path = \"a\", weight = 1e9 }]",
                "a file with weight 1000000000",
            ),
        ] {
            let found = message(&format!("[data]\ntrain = {train}"));
            assert!(
                found.starts_with(expected) || found.contains(expected),
                "{found}"
            );
        }
    }

    #[test]
    fn a_split_is_a_ratio_or_a_number_and_not_beside_validation_rows() {
        for (value, rows) in [("0.1", 3), ("0.07", 3), ("5", 5), ("0.999", 30)] {
            let config = parse(&format!("[data]\nvalidation_split = {value}")).unwrap();
            let split = config.data.validation_split.unwrap();
            assert_eq!(split.rows_of(30), rows, "{value}");
            let again = RunConfig::parse(&config.to_toml().unwrap(), "again", &[]).unwrap();
            assert_eq!(again.data.validation_split, Some(split));
        }
        for value in ["0", "1.0", "-1", "1.5", "nan", "\"a\""] {
            let found = message(&format!("[data]\nvalidation_split = {value}"));
            assert!(
                found.starts_with("run.toml:2: data.validation_split"),
                "{found}"
            );
        }
        let both = "[data]\nvalid = \"v.jsonl\"\nvalidation_split = 0.1";
        let found = message(both);
        assert!(
            found.starts_with("run.toml:3: data.validation_split"),
            "{found}"
        );
        assert!(found.contains("data.valid"), "{found}");
    }

    #[test]
    fn the_split_takes_rows_out_and_leaves_some() {
        let text = "{\"text\":\"a\"}\n".repeat(10);
        let rows = || parse_rows("a.jsonl", &text).unwrap();
        let with = |value: &str| {
            let set = Override::parse(&format!("data.validation_split={value}")).unwrap();
            RunConfig::load(None, &[set]).unwrap()
        };
        let (train, valid) = with("0.25").hold_out(rows()).unwrap();
        assert_eq!((train.rows().len(), valid.unwrap().rows().len()), (7, 3));
        let (train, valid) = RunConfig::default().hold_out(rows()).unwrap();
        assert_eq!((train, valid), (rows(), None));
        for value in ["10", "11", "0.99"] {
            let found = with(value).hold_out(rows()).unwrap_err().to_string();
            assert!(
                found.starts_with("data.validation_split: ")
                    && found.contains("a.jsonl has 10 rows"),
                "{found}"
            );
        }
    }

    #[test]
    fn both_spellings_of_an_error_for_long_rows_are_read() {
        for text in ["fail", "raise"] {
            let config = parse(&format!("[data]\nexcess_length_strategy = \"{text}\"")).unwrap();
            assert_eq!(
                config.data.excess_length_strategy,
                ExcessLengthStrategy::Fail
            );
        }
        let found = message("[data]\nsupervise = \"user\"");
        assert!(found.contains("`assistant`, `last`, `all`"), "{found}");
    }
}
