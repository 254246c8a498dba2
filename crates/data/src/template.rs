//! Where virtual tokens stand among the parts of a row.
//!
//! `{prompt:3} {input} {prompt:3} {completion}`: three virtual tokens, a field of the row, three more
//! virtual tokens, and the field that is learned.
//!
//! | in a template | is |
//! |---|---|
//! | `{prompt:N}` | N virtual tokens, 1 to 65535 |
//! | `{name}` | a field of the row |
//! | `{{`, `}}` | a brace |
//! | anything else | text as it stands |
//!
//! Spaces that touch a `{prompt:N}` are layout and dropped; line breaks and tabs are text.
//!
//! | rows | given fields | learned field |
//! |---|---|---|
//! | [`PromptCompletion`](RowFormat::PromptCompletion) | `prompt`, also called `input` | `completion` |
//! | [`Instruction`](RowFormat::Instruction) | `instruction`, `input` | `output`, also called `completion` |
//! | [`Text`](RowFormat::Text) | | `text` |
//!
//! The learned field stands exactly once, the eos follows it, and after it come virtual tokens only.
//! Given fields may stand any number of times. Text that is not parted by virtual tokens is tokenised
//! as one, except that the learned field is tokenised apart, as it is without a template.

mod parse;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::{Layout, Piece, Prompt};
use crate::rows::{Row, RowFormat};
use crate::tokenizer::TextTokenizer;

/// The order of a row's fields, of text around them, and of virtual tokens. In TOML or JSON it is its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    /// What comes before the learned field.
    given: Vec<Part>,
    learned: Field,
    /// Virtual tokens behind the learned field and its eos.
    after: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
    Virtual(usize),
}

/// A field that some rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Prompt,
    Input,
    Instruction,
    Completion,
    Output,
    Text,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none: a brace is left open, a field has no row format, the learned field is missing,
    /// repeated, or followed by more than virtual tokens. The message has the template and the column.
    pub fn parse(source: &str) -> Result<Self> {
        parse::parse(source)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The number of virtual tokens, wherever they stand.
    pub fn num_virtual_tokens(&self) -> usize {
        let given = self.given.iter().map(|part| match part {
            Part::Virtual(count) => *count,
            Part::Text(_) | Part::Field(_) => 0,
        });
        given.sum::<usize>() + self.after
    }

    /// What a model is given to write the learned field of `row`: all that comes before it.
    ///
    /// # Errors
    /// The template has a field that the row does not have.
    pub fn prompt_ids(&self, row: &Row, tokenizer: &TextTokenizer) -> Result<Prompt> {
        self.prompt(&self.layout(row)?.given, tokenizer)
    }

    /// The same where there is no row but one text, which stands in the place of the given field. Where
    /// the template has none, the text is the beginning of the learned one.
    ///
    /// # Errors
    /// The template has more than one given field (`prompt` and `input` are one beside a
    /// `completion`, two beside an `instruction`).
    pub fn prompt_ids_of_text(&self, text: &str, tokenizer: &TextTokenizer) -> Result<Prompt> {
        let fields = || {
            self.given.iter().filter_map(|part| match part {
                Part::Field(field) => Some(*field),
                Part::Text(_) | Part::Virtual(_) => None,
            })
        };
        let has_instruction = fields().any(|field| field == Field::Instruction);
        if let Some(field) = fields().find(|&field| has_instruction && field != Field::Instruction)
        {
            return Err(Error::TemplateNeeds {
                template: self.source.clone(),
                field: field.name(),
            });
        }
        let pieces = self.pieces(|_| Some(text));
        let mut pieces = pieces.expect("the text is the value of every field");
        if fields().next().is_none() {
            // Apart from what stands before it, as the learned text always is.
            pieces.push(Piece::Text(Cow::Borrowed(text)));
        }
        self.prompt(&pieces, tokenizer)
    }

    fn prompt(&self, pieces: &[Piece<'_>], tokenizer: &TextTokenizer) -> Result<Prompt> {
        let mut prompt = Prompt::placed(pieces, tokenizer)?;
        prompt.placement = prompt.placement.filter(|_| self.is_placed());
        Ok(prompt)
    }

    /// The parts of a row in the template's order.
    pub(crate) fn layout<'a>(&'a self, row: &'a Row) -> Result<Layout<'a>> {
        let misfit = |field: Field| Error::TemplateField {
            template: self.source.clone(),
            field: field.name(),
            format: row.format(),
            fields: Field::names_in(row.format()),
        };
        let given = self.pieces(|field| field.of(row)).map_err(misfit)?;
        let learned = self.learned.of(row).ok_or_else(|| misfit(self.learned))?;
        Ok(Layout {
            given,
            learned,
            after: self.after,
            is_placed: self.is_placed(),
        })
    }

    fn is_placed(&self) -> bool {
        self.num_virtual_tokens() > 0
    }

    /// The parts before the learned field, their values filled in and what touches joined; or the
    /// field that has no value.
    fn pieces<'a>(
        &'a self,
        value: impl Fn(Field) -> Option<&'a str>,
    ) -> Result<Vec<Piece<'a>>, Field> {
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        for part in &self.given {
            let text = match part {
                Part::Virtual(count) => {
                    pieces.push(Piece::Virtual(*count));
                    continue;
                }
                Part::Text(text) => text,
                Part::Field(field) => value(*field).ok_or(*field)?,
            };
            match pieces.last_mut() {
                Some(Piece::Text(before)) => before.to_mut().push_str(text),
                _ => pieces.push(Piece::Text(Cow::Borrowed(text))),
            }
        }
        Ok(pieces)
    }
}

impl Field {
    const ALL: [Self; 6] = [
        Self::Prompt,
        Self::Input,
        Self::Instruction,
        Self::Completion,
        Self::Output,
        Self::Text,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Input => "input",
            Self::Instruction => "instruction",
            Self::Completion => "completion",
            Self::Output => "output",
            Self::Text => "text",
        }
    }

    fn is_learned(self) -> bool {
        matches!(self, Self::Completion | Self::Output | Self::Text)
    }

    /// The value of the field; `None` where rows of this format do not have it.
    fn of(self, row: &Row) -> Option<&str> {
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

    /// For messages: the fields that rows of a format have.
    fn names_in(format: RowFormat) -> &'static str {
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

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(source: &str) -> Result<Self> {
        Self::parse(source)
    }
}

impl TryFrom<String> for Template {
    type Error = Error;

    fn try_from(source: String) -> Result<Self> {
        Self::parse(&source)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::{Example, IGNORE_INDEX, TokenizeOptions, tokenize_rows};
    use crate::rows::parse_rows;
    use crate::test_support::{EOS, tokenizer};

    fn template(source: &str) -> Template {
        Template::parse(source).expect("a good template")
    }

    fn tokenize(source: &str, row: &str) -> Result<Example> {
        let template = template(source);
        let options = TokenizeOptions {
            template: Some(&template),
            ..TokenizeOptions::default()
        };
        let rows = parse_rows("train.jsonl", row).expect("a good row");
        let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {})?;
        Ok(tokenized.examples[0].clone())
    }

    fn row(text: &str) -> Row {
        let rows = parse_rows("train.jsonl", text).expect("a good row");
        rows.rows()[0].1.clone()
    }

    fn ids(text: &str) -> Vec<u32> {
        tokenizer().encode(text).expect("byte-level")
    }

    /// The labels of a row of which `learned` ids are learned, the eos among them.
    fn labels(input_ids: &[u32], learned: usize) -> Vec<i64> {
        let given = input_ids.len() - learned;
        let label = |(index, &id): (usize, &u32)| match index < given {
            true => IGNORE_INDEX,
            false => i64::from(id),
        };
        input_ids.iter().enumerate().map(label).collect()
    }

    const ROW: &str = r#"{"prompt":"abc","completion":"de"}"#;
    const INSTRUCTION: &str = r#"{"instruction":"add","input":"12","output":"3"}"#;

    #[test]
    fn virtual_tokens_stand_before_between_and_behind_the_fields() {
        let source = "{prompt:3} {input} {prompt:2} {completion} {prompt:1}";
        let example = tokenize(source, ROW).expect("it fits");
        let expected = [ids("abc"), ids("de"), vec![EOS]].concat();
        assert_eq!(example.labels, labels(&expected, 3));
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.placement, Some(vec![0, 0, 0, 3, 3, 6]));
        assert_eq!(template(source).num_virtual_tokens(), 6);
    }

    #[test]
    fn virtual_tokens_in_front_of_a_bare_row_leave_ids_and_labels_as_they_are() {
        let example = tokenize("{prompt:5}{prompt}{completion}", ROW).expect("it fits");
        let rows = parse_rows("train.jsonl", ROW).expect("a good row");
        let options = TokenizeOptions::default();
        let plain = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
        let plain = &plain.expect("good rows").examples[0];
        assert_eq!(example.input_ids, plain.input_ids);
        assert_eq!(example.labels, plain.labels);
        assert_eq!(example.placement, Some(vec![0; 5]));
        assert_eq!(plain.placement, None);
    }

    #[test]
    fn a_template_without_virtual_tokens_leaves_them_in_front() {
        let example = tokenize("{prompt}{completion}", ROW).expect("it fits");
        assert_eq!(example.placement, None);
        assert_eq!(template("{prompt}{completion}").num_virtual_tokens(), 0);
    }

    #[test]
    fn given_text_is_one_text_between_virtual_tokens_and_the_learned_one_is_apart() {
        // "he" is one token where its letters touch, and two where something parts them.
        let he = r#"{"prompt":"e","completion":"e"}"#;
        let joined = tokenize("h{prompt}h{completion}", he).expect("it fits");
        let expected = [ids("heh"), ids("e"), vec![EOS]].concat();
        assert_eq!(joined.input_ids, expected);
        let parted = tokenize("h{prompt:1}{prompt}h{completion}", he).expect("it fits");
        let expected = [ids("h"), ids("e"), ids("h"), ids("e"), vec![EOS]].concat();
        assert_eq!(parted.input_ids, expected);
        assert_eq!(parted.placement, Some(vec![1]));
        assert_ne!(joined.input_ids.len(), parted.input_ids.len());
    }

    #[test]
    fn spaces_beside_virtual_tokens_are_layout_and_all_else_is_text() {
        for (source, given) in [
            ("a  {prompt:1}  b{completion}", "ab"),
            ("  {prompt:1} {completion}", ""),
            ("{prompt:1} {prompt:1}b {completion}", "b "),
            (" {prompt:1}\n {prompt} {completion}", "\n abc "),
            ("a\t{prompt:1}\u{a0}b{completion}", "a\t\u{a0}b"),
            ("{{{prompt:1}}}{{prompt:1}} {completion}", "{}{prompt:1} "),
        ] {
            let example = tokenize(source, ROW).expect("it fits");
            let given = [ids(given), ids("de"), vec![EOS]].concat();
            assert_eq!(example.input_ids, given, "{source:?}");
        }
    }

    /// The last rows of the table in `docs/data.md`.
    #[test]
    fn the_documented_examples_are_laid_out_as_documented() {
        let row = r#"{"prompt":"name: Aromi","completion":" A café."}"#;
        for (source, given, placement) in [
            (
                "{prompt:2} {input} {prompt:1} {completion}",
                "name: Aromi",
                Some(vec![0, 0, 11]),
            ),
            ("{prompt} ->{completion}", "name: Aromi ->", None),
            (
                "Table: {prompt:2} {prompt}\n{prompt:1} {completion} {prompt:1}",
                "Table:name: Aromi\n",
                // A byte is a token, and é has two.
                Some(vec![6, 6, 18, 28]),
            ),
        ] {
            let example = tokenize(source, row).expect("it fits");
            let expected = [ids(given), ids(" A café."), vec![EOS]].concat();
            assert_eq!(example.labels, labels(&expected, 10), "{source:?}");
            assert_eq!(example.input_ids, expected, "{source:?}");
            assert_eq!(example.placement, placement, "{source:?}");
        }
    }

    #[test]
    fn given_fields_may_be_repeated_or_left_out() {
        let source = "{prompt}{prompt:1}{input}{completion}";
        let twice = tokenize(source, ROW).expect("it fits");
        assert_eq!(twice.input_ids[..6], ids("abcabc"));
        assert_eq!(twice.placement, Some(vec![3]));
        let without = tokenize("{prompt:2}{completion}", ROW).expect("it fits");
        assert_eq!(without.input_ids, [ids("de"), vec![EOS]].concat());
    }

    #[test]
    fn instruction_rows_have_their_fields_and_no_layout_of_their_own() {
        for (source, row, given) in [
            ("{instruction}: {input}\n{output}", INSTRUCTION, "add: 12\n"),
            ("{instruction}{completion}", INSTRUCTION, "add"),
            (
                "{instruction}[{input}]{output}",
                r#"{"instruction":"add","output":"3"}"#,
                "add[]",
            ),
        ] {
            let example = tokenize(source, row).expect("it fits");
            let expected = [ids(given), ids("3"), vec![EOS]].concat();
            assert_eq!(example.labels, labels(&expected, 2), "{source:?}");
            assert_eq!(example.input_ids, expected, "{source:?}");
        }
    }

    #[test]
    fn text_rows_are_learned_whole_behind_what_the_template_says() {
        let example = tokenize("say {prompt:2}{text}", r#"{"text":"abc"}"#).expect("it fits");
        let expected = [ids("say"), ids("abc"), vec![EOS]].concat();
        assert_eq!(example.labels, labels(&expected, 4));
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.placement, Some(vec![3, 3]));
    }

    #[test]
    fn a_field_that_the_rows_do_not_have_is_named_with_those_they_have() {
        let messages = r#"{"messages":[{"role":"user","content":"a"}]}"#;
        let tokenized = r#"{"input_ids":[1,2],"labels":[1,2]}"#;
        for (source, row, expected) in [
            (
                "{instruction}{completion}",
                ROW,
                r#"has `{instruction}`, but {"prompt","completion"} rows have `{prompt}` (or `{input}`) and `{completion}`"#,
            ),
            ("{prompt}{output}", ROW, "has `{output}`"),
            ("{prompt}{text}", ROW, "has `{text}`"),
            (
                "{prompt}{output}",
                INSTRUCTION,
                "rows have `{instruction}`, `{input}` and `{output}` (or `{completion}`)",
            ),
            (
                "{prompt:1}{completion}",
                r#"{"text":"a"}"#,
                r#"{"text"} rows have `{text}`"#,
            ),
            ("{prompt}{completion}", messages, "rows take no template"),
            (
                "{text}",
                tokenized,
                r#"{"input_ids","labels"} rows take no template; write prompt/completion rows"#,
            ),
        ] {
            let error = tokenize(source, row).expect_err("it does not fit");
            let Error::Row { path, line, source } = error else {
                panic!("{error}")
            };
            assert_eq!((path.as_str(), line), ("train.jsonl", 1));
            let message = source.to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    /// What [`Field::names_in`] tells users is what [`Field::of`] does.
    #[test]
    fn the_fields_that_messages_name_are_those_that_rows_have() {
        for text in [ROW, INSTRUCTION, r#"{"text":"a"}"#] {
            let row = row(text);
            let named = Field::names_in(row.format());
            for field in Field::ALL {
                let is_named = named.contains(&format!("`{{{}}}`", field.name()));
                assert_eq!(field.of(&row).is_some(), is_named, "{field:?} of {text}");
            }
        }
    }

    #[test]
    fn a_prompt_is_all_that_stands_before_the_learned_field() {
        let source = "{prompt:1}x{prompt:2}{prompt}{prompt:1}{completion}{prompt:4}";
        let prompt = template(source).prompt_ids(&row(ROW), &tokenizer());
        let prompt = prompt.expect("it fits");
        assert_eq!(prompt.input_ids, ids("xabc"));
        assert_eq!(prompt.placement, Some(vec![0, 1, 1, 4]));
        let example = tokenize(source, ROW).expect("it fits");
        assert_eq!(example.input_ids[..4], prompt.input_ids);
        assert_eq!(example.placement.expect("placed")[..4], [0, 1, 1, 4]);
    }

    #[test]
    fn a_prompt_of_a_template_without_virtual_tokens_has_them_in_front() {
        let template = template("Q: {prompt} A:{completion}");
        let prompt = template.prompt_ids(&row(ROW), &tokenizer());
        assert_eq!(prompt.expect("it fits"), Prompt::from(ids("Q: abc A:")));
        let prompt = template.prompt_ids_of_text("abc", &tokenizer());
        assert_eq!(prompt.expect("one field"), Prompt::from(ids("Q: abc A:")));
    }

    #[test]
    fn one_text_fills_the_given_field_whatever_it_is_called() {
        let row = row(ROW);
        for field in ["prompt", "input", "instruction"] {
            let source = format!("{{prompt:2}}<{{{field}}}{{prompt:1}}>{{completion}}{{prompt:1}}");
            let prompt = template(&source).prompt_ids_of_text("abc", &tokenizer());
            let prompt = prompt.expect("one field");
            assert_eq!(prompt.input_ids, ids("<abc>"), "{source}");
            assert_eq!(prompt.placement, Some(vec![0, 0, 4]), "{source}");
            if field != "instruction" {
                let of_row = template(&source).prompt_ids(&row, &tokenizer());
                assert_eq!(of_row.expect("it fits"), prompt);
            }
        }
    }

    #[test]
    fn without_a_given_field_the_text_begins_the_learned_one() {
        for learned in ["text", "completion"] {
            let source = format!("h{{prompt:2}}{{{learned}}}");
            let prompt = template(&source).prompt_ids_of_text("ey", &tokenizer());
            let prompt = prompt.expect("no field");
            assert_eq!(prompt.input_ids, [ids("h"), ids("ey")].concat());
            assert_eq!(prompt.placement, Some(vec![1, 1]));
        }
        // A learned text is tokenised apart, so "he" is two tokens here too.
        let prompt = template("h{text}").prompt_ids_of_text("ey", &tokenizer());
        let expected = [ids("h"), ids("ey")].concat();
        assert_eq!(prompt.expect("no field"), Prompt::from(expected));
    }

    #[test]
    fn one_text_cannot_fill_two_fields() {
        let template = template("{instruction}{prompt:1}{input}{output}");
        let error = template.prompt_ids_of_text("add", &tokenizer());
        let message = error.expect_err("two fields").to_string();
        assert!(message.contains("nothing for `{input}`"), "{message}");
        assert!(message.contains("{instruction}{prompt:1}"), "{message}");
    }

    #[test]
    fn a_template_is_its_text_in_configurations() {
        let source = "{prompt:3} {input}\n{completion}";
        let json = serde_json::to_string(&template(source)).expect("a string");
        assert_eq!(json, r#""{prompt:3} {input}\n{completion}""#);
        let again: Template = serde_json::from_str(&json).expect("a good template");
        assert_eq!((again.as_str(), &again), (source, &template(source)));
        let error = serde_json::from_str::<Template>(r#""{prompt:3}""#);
        let message = error.expect_err("nothing is learned").to_string();
        assert!(message.contains("column 11"), "{message}");
    }
}
