//! Templates: the order of a row's fields, text and virtual tokens.

mod field;
mod parse;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::given::{Given, GivenPart};
use crate::layout::{Layout, Piece, Prompt};
use crate::row::Row;
use crate::tokenizer::TextTokenizer;
use field::{Field, Part};
use parse::Parts;

/// The order of a row's fields, of the text around them, and of virtual tokens. Configuration files store
/// it as a string.
///
/// In `{prompt:3} {input} {prompt:3} {completion}`, three virtual tokens come first, then a field of the
/// row, three more virtual tokens, and the learned field.
///
/// | in a template | meaning |
/// |---|---|
/// | `{prompt:N}` | N virtual tokens, 1 to 65535 |
/// | `{name}` | a field of the row |
/// | `{{`, `}}` | a brace |
/// | anything else | text |
///
/// Spaces that touch a `{prompt:N}` are dropped. Line breaks and tabs are text.
///
/// | rows | given fields | learned field |
/// |---|---|---|
/// | [`PromptCompletion`](crate::RowFormat::PromptCompletion) | `prompt`, also called `input` | `completion` |
/// | [`Instruction`](crate::RowFormat::Instruction) | `instruction`, `input` | `output`, also called `completion` |
/// | [`Text`](crate::RowFormat::Text) | | `text` |
/// | [`Classification`](crate::RowFormat::Classification) | `text`, `text_pair` | `label`, as words; nothing for a head |
///
/// A template names exactly one learned field, or none if it is for a head. The eos follows it, and only virtual tokens may follow the
/// eos. Given fields may be left out or repeated. Given text between two groups of virtual tokens is
/// tokenised as a whole. The learned field is always tokenised separately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    parts: Parts,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error::Template`], with the column: a brace is not closed, a name is not a field, or the learned
    /// field is missing, repeated, or followed by anything but virtual tokens.
    pub fn parse(source: &str) -> Result<Self> {
        Ok(Self {
            source: source.to_owned(),
            parts: parse::parse(source)?,
        })
    }

    /// The number of virtual tokens in the whole template.
    pub fn num_virtual_tokens(&self) -> usize {
        let given = self.parts.given.iter().map(|part| match part {
            Part::Virtual(count) => *count,
            Part::Text(_) | Part::Field(_) => 0,
        });
        given.sum::<usize>() + self.parts.after
    }

    /// Whether every virtual token stands in front of everything else.
    pub fn is_in_front(&self) -> bool {
        let is_virtual = |part: &Part| matches!(part, Part::Virtual(_));
        let others = self.parts.given.iter().skip_while(|part| is_virtual(part));
        self.parts.after == 0 && !others.into_iter().any(is_virtual)
    }

    /// Whether a row begins with a virtual token. A BOS that the tokenizer adds is behind it then.
    pub fn begins_with_virtual(&self) -> bool {
        let first = self.parts.given.first();
        first.is_some_and(|part| matches!(part, Part::Virtual(count) if *count > 0))
    }

    /// Returns the prompt from which the model writes the learned field of `row`: everything before that field.
    ///
    /// # Errors
    /// The template has a field that the row does not have, or a text cannot be tokenised.
    pub fn prompt_ids(&self, row: &Row, tokenizer: &TextTokenizer) -> Result<Prompt> {
        self.prompt(&self.layout(row)?.given, tokenizer)
    }

    /// Returns the prompt for a single text in place of a row. The text fills the given field. If the
    /// template has no given field, the text is the beginning of the learned one.
    ///
    /// # Errors
    /// The template has `{instruction}` and another given field, or a text cannot be tokenised. `{prompt}`
    /// and `{input}` without `{instruction}` are the same field.
    pub fn prompt_ids_of_text(&self, text: &str, tokenizer: &TextTokenizer) -> Result<Prompt> {
        let fields = || {
            self.parts.given.iter().filter_map(|part| match part {
                Part::Field(field) => Some(*field),
                Part::Text(_) | Part::Virtual(_) => None,
            })
        };
        // `{prompt}` and `{input}` are the same field; these two are not the same as any other.
        let own = [Field::Instruction, Field::Text];
        let own = own
            .into_iter()
            .find(|own| fields().any(|field| field == *own));
        let other = own.and_then(|own| fields().find(|field| *field != own));
        if let (Some(own), Some(other)) = (own, other) {
            return Err(Error::TemplateNeeds {
                template: self.source.clone(),
                filled: own.name(),
                field: other.name(),
            });
        }
        let pieces = self.pieces(|_| Some(text));
        let mut pieces = pieces.expect("the text is the value of every field");
        if fields().next().is_none() {
            // A piece of its own, because learned text is tokenised separately.
            pieces.push(Piece::Text(Cow::Borrowed(text)));
        }
        self.prompt(&pieces, tokenizer)
    }

    fn prompt(&self, pieces: &[Piece<'_>], tokenizer: &TextTokenizer) -> Result<Prompt> {
        let mut prompt = Prompt::placed(pieces, tokenizer)?;
        prompt.placement = prompt.placement.filter(|_| self.is_placed());
        Ok(prompt)
    }

    /// Puts the fields of a row in the order of the template.
    pub(crate) fn layout<'a>(&'a self, row: &'a Row) -> Result<Layout<'a>> {
        let misfit = |field: Field| Error::TemplateField {
            template: self.source.clone(),
            field: field.name(),
            format: row.format(),
            fields: Field::names_in(row.format()),
        };
        let Parts { learned, after, .. } = self.parts;
        let given = self.pieces(|field| field.of(row)).map_err(misfit)?;
        let learned = learned.ok_or_else(|| self.unused_for(
            "has no learned field with nothing but virtual tokens behind it; a head can use it, which learns the \
             label of a text",
        ))?;
        Ok(Layout {
            given,
            learned: learned.of(row).ok_or_else(|| misfit(learned))?,
            after,
            is_placed: self.is_placed(),
        })
    }

    /// The order of the parts of a row to classify. With `label`, what stands in front of the label's words, and the
    /// number of virtual tokens behind them; without it, everything.
    pub(crate) fn given_of<'a>(&'a self, row: &'a Row, label: bool) -> Result<Given<'a>> {
        let Parts {
            given,
            learned,
            after,
        } = &self.parts;
        let misfit = |field: Field| Error::TemplateField {
            template: self.source.clone(),
            field: field.name(),
            format: row.format(),
            fields: Field::names_in(row.format()),
        };
        let last = match (learned, label) {
            (Some(Field::Label), true) => None,
            (_, true) => {
                let reason = "has no `{label}`, where the words of the label stand";
                return Err(self.unused_for(reason));
            }
            (Some(Field::Label), false) => {
                let reason = "has `{label}`, which a head learns without words; leave it out";
                return Err(self.unused_for(reason));
            }
            (learned, false) => *learned,
        };
        let mut all = Given::new(self.is_placed());
        let field = |all: &mut Given<'a>, field: Field| {
            all.push(field.of(row).ok_or_else(|| misfit(field))?, true);
            Ok::<_, Error>(())
        };
        for part in given {
            match part {
                Part::Virtual(count) => all.parts.push(GivenPart::Virtual(*count)),
                Part::Text(text) => all.push(text, false),
                Part::Field(name) => field(&mut all, *name)?,
            }
        }
        if let Some(last) = last {
            field(&mut all, last)?;
        }
        let is_text = |part: &Part| part.field() == Some(Field::Text);
        if last != Some(Field::Text) && !given.iter().any(is_text) {
            return Err(self.unused_for("has no `{text}`, the text whose label is learned"));
        }
        match label {
            true => all.after = *after,
            false => all.parts.push(GivenPart::Virtual(*after)),
        }
        Ok(all)
    }

    /// The error of a template that does not serve what is learned.
    pub(crate) fn unused_for(&self, reason: &'static str) -> Error {
        Error::TemplateUse {
            template: self.source.clone(),
            reason,
        }
    }

    /// Whether the template places the virtual tokens. If not, they stand in front.
    fn is_placed(&self) -> bool {
        self.num_virtual_tokens() > 0
    }

    /// Returns the parts before the learned field with the fields' values filled in and adjacent texts
    /// joined. The error is the first field without a value.
    fn pieces<'a>(
        &'a self,
        value: impl Fn(Field) -> Option<&'a str>,
    ) -> Result<Vec<Piece<'a>>, Field> {
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        for part in &self.parts.given {
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

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
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
    use crate::rows::parse_rows;
    use crate::test_support::tokenizer;

    fn template(source: &str) -> Template {
        Template::parse(source).expect("a good template")
    }

    fn row(text: &str) -> Row {
        let rows = parse_rows("train.jsonl", text).expect("a good row");
        rows.rows()[0].1.clone()
    }

    fn ids(text: &str) -> Vec<u32> {
        tokenizer().encode(text).expect("byte-level")
    }

    const ROW: &str = r#"{"prompt":"abc","completion":"de"}"#;

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
        assert_eq!(
            (again.to_string(), &again),
            (source.to_owned(), &template(source))
        );
        let error = serde_json::from_str::<Template>(r#""{prompt:3}""#);
        let message = error.expect_err("nothing is learned").to_string();
        assert!(message.contains("column 11"), "{message}");
    }
}
