//! `[task]`: what is learned of the rows.

use std::collections::BTreeMap;

use burn_peft::options;
use burn_peft_data::{ProblemType, Task};
use serde::{Deserialize, Serialize};

options! {
    /// `[task]`: what is learned of the rows, and the head that learns it.
    pub struct TaskConfig {
        /// The task: text to write, the class of a text, the class of every word, or the answer to a question in a text.
        pub r#type: Option<Task> = None,
            shown as "what the rows are made for",
            kind "`\"causal-lm\"`, `\"seq-cls\"`, `\"token-cls\"` or `\"qa\"`";
        /// The classes, in the order of the head's outputs.
        pub labels: Option<Vec<String>> = None,
            shown as "those of the training rows, sorted",
            source "transformers' `run_glue` and `run_ner`";
        /// What the label of a text is.
        pub problem_type: Option<ProblemType> = None,
            shown as "what the labels of the training rows are",
            kind "`\"single_label_classification\"`, `\"multi_label_classification\"` or `\"regression\"`",
            source "transformers";
        /// Whether the head stays as it starts.
        pub freeze_head: bool = false,
            source "this project. PEFT trains it";
        /// Dropout of the states that the head reads.
        pub classifier_dropout: f64 = 0.0,
            source "this project. transformers has 0.1 for token classification, and none elsewhere";
        /// Whether every token of a word has the word's tag, and not the first one alone.
        pub label_all_tokens: bool = false,
            source "transformers' `run_ner`";
        /// Tokens that two windows of a long context share.
        pub doc_stride: usize = 128,
            source "transformers' `run_qa`";
        /// The most tokens of an answer.
        pub max_answer_length: usize = 30,
            source "transformers' `run_qa`";
        /// Whether a question may have no answer.
        pub version_2_with_negative: Option<bool> = None,
            shown as "whether one of the training rows has none",
            source "transformers' `run_qa`, where it is `false`";
        /// There is no answer where that scores higher than the best answer by more than this.
        pub null_score_diff_threshold: f64 = 0.0,
            source "transformers' `run_qa`";
        /// Whether the scores of words are taken relative to those without a text.
        pub calibrate: bool = false,
            source "Zhao et al. 2021";
        /// Classification by the language-model head: `true`, or the words that stand for each class, as in
        /// `{ pos = "good", neg = "bad" }`. `true` takes the names of the classes.
        pub verbalizer: Verbalizer = Verbalizer::Off,
            kind "`true`, `false` or a table",
            source "Schick and Schütze 2021; Liu et al. 2021";
    }
}

/// Whether, and with which words, the language-model head tells classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BoolOrWords", into = "BoolOrWords")]
pub enum Verbalizer {
    /// It does not: a head of its own does.
    #[default]
    Off,
    /// The words are the names of the classes.
    Names,
    /// The words of each class, by its name.
    Words(BTreeMap<String, String>),
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected true, false or a table with the words of each class"
)]
enum BoolOrWords {
    Bool(bool),
    Words(BTreeMap<String, String>),
}

impl From<BoolOrWords> for Verbalizer {
    fn from(written: BoolOrWords) -> Self {
        match written {
            BoolOrWords::Bool(false) => Self::Off,
            BoolOrWords::Bool(true) => Self::Names,
            BoolOrWords::Words(words) => Self::Words(words),
        }
    }
}

impl From<Verbalizer> for BoolOrWords {
    fn from(verbalizer: Verbalizer) -> Self {
        match verbalizer {
            Verbalizer::Off => Self::Bool(false),
            Verbalizer::Names => Self::Bool(true),
            Verbalizer::Words(words) => Self::Words(words),
        }
    }
}
