//! What a model is adapted to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a model is adapted to. The rows of a file show it: [`RowFormat::task`](crate::RowFormat::task).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// To write text.
    #[default]
    CausalLm,
    /// To tell the class of a text.
    SeqCls,
    /// To tell the class of every word of a text.
    TokenCls,
    /// To find the answer to a question in a text.
    Qa,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 4] = [Self::CausalLm, Self::SeqCls, Self::TokenCls, Self::Qa];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::SeqCls => "seq-cls",
            Self::TokenCls => "token-cls",
            Self::Qa => "qa",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
