//! The classes of a task, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a label of a text is; the names are those of transformers' `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProblemType {
    /// One class of several.
    #[default]
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// Any number of classes at once.
    #[serde(rename = "multi_label_classification")]
    MultiLabel,
    /// Numbers.
    #[serde(rename = "regression")]
    Regression,
}

impl ProblemType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::SingleLabel, Self::MultiLabel, Self::Regression];

    /// The name in transformers.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
            Self::Regression => "regression",
        }
    }
}

impl fmt::Display for ProblemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The classes that a head tells apart, in the order of its outputs. Of a regression, the numbers that it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// What a label is.
    pub problem_type: ProblemType,
    /// The names, each of them once.
    pub names: Vec<String>,
}

impl Labels {
    /// Classes that have numbers only: `LABEL_0`, `LABEL_1` and so on, as in transformers.
    pub fn numbered(count: usize, problem_type: ProblemType) -> Self {
        Self {
            problem_type,
            names: (0..count).map(|class| format!("LABEL_{class}")).collect(),
        }
    }

    /// The class of a name.
    pub fn class(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
