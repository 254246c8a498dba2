//! The fields that a template can name, and the parts of a template.

use crate::row::{Row, RowFormat};

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Field(Field),
    /// A number of virtual tokens.
    Virtual(usize),
}

/// A field of a row. Each row format has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Prompt,
    Input,
    Instruction,
    Completion,
    Output,
    Text,
}

impl Field {
    pub(super) const ALL: [Self; 6] = [
        Self::Prompt,
        Self::Input,
        Self::Instruction,
        Self::Completion,
        Self::Output,
        Self::Text,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Input => "input",
            Self::Instruction => "instruction",
            Self::Completion => "completion",
            Self::Output => "output",
            Self::Text => "text",
        }
    }

    pub(super) fn is_learned(self) -> bool {
        matches!(self, Self::Completion | Self::Output | Self::Text)
    }

    /// Returns the value of the field, or `None` if rows of this format do not have it.
    pub(super) fn of(self, row: &Row) -> Option<&str> {
        match (self, row) {
            (Self::Prompt | Self::Input, Row::PromptCompletion { prompt, .. }) => Some(prompt),
            (Self::Completion, Row::PromptCompletion { completion, .. }) => Some(completion),
            (Self::Instruction, Row::Instruction { instruction, .. }) => Some(instruction),
            (Self::Input, Row::Instruction { input, .. }) => {
                Some(input.as_deref().unwrap_or_default())
            }
            (Self::Output | Self::Completion, Row::Instruction { output, .. }) => Some(output),
            (Self::Text, Row::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns a phrase for error messages that names the fields of a format.
    pub(super) fn names_in(format: RowFormat) -> &'static str {
        match format {
            RowFormat::PromptCompletion => "have `{prompt}` (or `{input}`) and `{completion}`",
            RowFormat::Instruction => {
                "have `{instruction}`, `{input}` and `{output}` (or `{completion}`)"
            }
            RowFormat::Text => "have `{text}`",
            RowFormat::Messages | RowFormat::Tokenized => {
                "take no template; write prompt/completion rows"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::parse_rows;

    /// [`Field::names_in`] tells users what [`Field::of`] does.
    #[test]
    fn the_fields_that_messages_name_are_those_that_rows_have() {
        for text in [
            r#"{"prompt":"abc","completion":"de"}"#,
            r#"{"instruction":"add","input":"12","output":"3"}"#,
            r#"{"text":"a"}"#,
        ] {
            let rows = parse_rows("train.jsonl", text).expect("a good row");
            let row = &rows.rows()[0].1;
            let named = Field::names_in(row.format());
            for field in Field::ALL {
                let is_named = named.contains(&format!("`{{{}}}`", field.name()));
                assert_eq!(field.of(row).is_some(), is_named, "{field:?} of {text}");
            }
        }
    }
}
