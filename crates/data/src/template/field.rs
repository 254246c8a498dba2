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

impl Part {
    /// The field, if the part is one.
    pub(super) fn field(&self) -> Option<Field> {
        match self {
            Self::Field(field) => Some(*field),
            Self::Text(_) | Self::Virtual(_) => None,
        }
    }
}

/// A field of a row. Each row format has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Prompt,
    Input,
    Instruction,
    TextPair,
    Completion,
    Output,
    Text,
    Label,
}

impl Field {
    pub(super) const ALL: [Self; 8] = [
        Self::Prompt,
        Self::Input,
        Self::Instruction,
        Self::TextPair,
        Self::Completion,
        Self::Output,
        Self::Text,
        Self::Label,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Input => "input",
            Self::Instruction => "instruction",
            Self::Completion => "completion",
            Self::Output => "output",
            Self::Text => "text",
            Self::TextPair => "text_pair",
            Self::Label => "label",
        }
    }

    pub(super) fn is_learned(self) -> bool {
        matches!(
            self,
            Self::Completion | Self::Output | Self::Text | Self::Label
        )
    }

    /// Returns the value of the field, or `None` if rows of this format do not have it. The label of a row to classify
    /// has no text of its own: its words depend on the classes.
    pub(super) fn of(self, row: &Row) -> Option<&str> {
        match (self, row) {
            (Self::Prompt | Self::Input, Row::PromptCompletion { prompt, .. }) => Some(prompt),
            (Self::Completion, Row::PromptCompletion { completion, .. }) => Some(completion),
            (Self::Instruction, Row::Instruction { instruction, .. }) => Some(instruction),
            (Self::Input, Row::Instruction { input, .. }) => {
                Some(input.as_deref().unwrap_or_default())
            }
            (Self::Output | Self::Completion, Row::Instruction { output, .. }) => Some(output),
            (Self::Text, Row::Text(text) | Row::Classification { text, .. }) => Some(text),
            (Self::TextPair, Row::Classification { text_pair, .. }) => {
                Some(text_pair.as_deref().unwrap_or_default())
            }
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
            RowFormat::Classification => "have `{text}`, `{text_pair}` and, as words, `{label}`",
            RowFormat::Messages | RowFormat::Tokenized => {
                "take no template; write prompt/completion rows"
            }
            RowFormat::ClassificationIds
            | RowFormat::Tagging
            | RowFormat::TaggingIds
            | RowFormat::Questions => "take no template",
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
