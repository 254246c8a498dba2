//! The parser of templates, with the error messages for malformed ones.

use super::field::{Field, Part};
use crate::error::{Error, Result};

/// The largest number of virtual tokens in one place. It guards against typing errors and is far above any use.
const MOST: usize = 65535;

/// A part of a template and its column, from 1, in characters.
type Placed<T> = (usize, T);

/// The parts of a template in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The parts before the learned field; all parts, if there is none.
    pub(super) given: Vec<Part>,
    /// The field that the model learns to write. `None` in a template that is for a head alone, which learns the label
    /// of what it is given.
    pub(super) learned: Option<Field>,
    /// The number of virtual tokens behind the learned field and its eos.
    pub(super) after: usize,
}

/// Parses a template.
pub(super) fn parse(source: &str) -> Result<Parts> {
    let at = |column: usize, reason: String| Error::Template {
        template: source.to_owned(),
        column,
        reason,
    };
    let mut parts = Scanner::new(source)
        .parts()
        .map_err(|(column, reason)| at(column, reason))?;
    drop_spaces_beside_virtual_tokens(&mut parts);

    let has = |wanted: &dyn Fn(Field) -> bool| {
        let mut fields = parts.iter().filter_map(|(_, part)| part.field());
        fields.any(wanted)
    };
    // What is learned of a text for a language model is given where there is a label, and where a head learns one.
    let has_label = has(&|field| field == Field::Label);
    let has_answer = has(&|field| matches!(field, Field::Completion | Field::Output));
    let is_for_head = !has_label && !has_answer && is_for_head(&parts);
    let is_learned = |part: &Part| match part.field() {
        Some(Field::Text) => !has_label && !is_for_head,
        Some(field) => field.is_learned(),
        None => false,
    };
    if is_for_head {
        return Ok(Parts {
            given: parts.into_iter().map(|(_, part)| part).collect(),
            learned: None,
            after: 0,
        });
    }
    let Some(index) = parts.iter().position(|(_, part)| is_learned(part)) else {
        return Err(at(
            source.chars().count() + 1,
            format!(
                "one of {} must stand in it: what is learned",
                names(Field::is_learned)
            ),
        ));
    };
    let mut after = 0;
    for (column, part) in parts.split_off(index + 1) {
        after += match part {
            Part::Virtual(count) => count,
            part if is_learned(&part) => {
                return Err(at(column, "the learned field stands twice".into()));
            }
            Part::Text(_) | Part::Field(_) => {
                let reason = "only virtual tokens can stand behind the learned field and its eos";
                return Err(at(column, reason.into()));
            }
        };
    }
    let learned = parts.pop().and_then(|(_, part)| part.field());
    Ok(Parts {
        given: parts.into_iter().map(|(_, part)| part).collect(),
        learned,
        after,
    })
}

/// Whether parts without a label or an answer can only be for a head: there is a second text, or text behind the text.
fn is_for_head(parts: &[Placed<Part>]) -> bool {
    let fields = || parts.iter().filter_map(|(_, part)| part.field());
    let behind = parts.iter().rev();
    let mut behind = behind.take_while(|(_, part)| part.field() != Some(Field::Text));
    fields().any(|field| field == Field::TextPair)
        || fields().any(|field| field == Field::Text)
            && (fields().count() > 1 || behind.any(|(_, part)| !matches!(part, Part::Virtual(_))))
}

/// Removes the spaces that touch virtual tokens, and then empty texts.
fn drop_spaces_beside_virtual_tokens(parts: &mut Vec<Placed<Part>>) {
    let is_virtual: Vec<bool> = parts
        .iter()
        .map(|(_, part)| matches!(part, Part::Virtual(_)))
        .collect();
    for (index, (column, part)) in parts.iter_mut().enumerate() {
        let Part::Text(text) = part else { continue };
        if index > 0 && is_virtual[index - 1] {
            let kept = text.trim_start_matches(' ');
            *column += text.len() - kept.len();
            *text = kept.to_owned();
        }
        if is_virtual.get(index + 1) == Some(&true) {
            text.truncate(text.trim_end_matches(' ').len());
        }
    }
    parts.retain(|(_, part)| !matches!(part, Part::Text(text) if text.is_empty()));
}

/// Splits a template into its parts.
struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    /// The column of the next character.
    column: usize,
}

impl<'a> Scanner<'a> {
    fn new(source: &'a str) -> Self {
        Self {
            rest: source.chars().peekable(),
            column: 1,
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.column += 1;
        Some(next)
    }

    fn next_if(&mut self, wanted: char) -> bool {
        self.rest.peek() == Some(&wanted) && self.next().is_some()
    }

    fn parts(mut self) -> Result<Vec<Placed<Part>>, Placed<String>> {
        let mut parts = Vec::new();
        loop {
            let column = self.column;
            let part = match self.next() {
                None => return Ok(parts),
                Some('{') if !self.next_if('{') => self.braced(column)?,
                Some('}') if !self.next_if('}') => {
                    let reason = "this `}` closes nothing; write a brace as `}}`";
                    return Err((column, reason.into()));
                }
                Some(character) => match parts.last_mut() {
                    Some((_, Part::Text(text))) => {
                        text.push(character);
                        continue;
                    }
                    _ => Part::Text(character.into()),
                },
            };
            parts.push((column, part));
        }
    }

    /// Reads the rest of a placeholder whose opening brace stands at `column`.
    fn braced(&mut self, column: usize) -> Result<Part, Placed<String>> {
        let mut inside = String::new();
        loop {
            match self.next() {
                Some('}') => break,
                Some(character) => inside.push(character),
                None => {
                    let reason = "this `{` is not closed; write a brace as `{{`";
                    return Err((column, reason.into()));
                }
            }
        }
        placeholder(&inside).map_err(|reason| (column, reason))
    }
}

/// Reads the text between the braces of a placeholder, or says what is wrong with it.
fn placeholder(inside: &str) -> Result<Part, String> {
    let named = |name: &str| Field::ALL.into_iter().find(|field| field.name() == name);
    match inside.split_once(':') {
        Some(("prompt", count)) => match count.parse() {
            Ok(count) if (1..=MOST).contains(&count) => Ok(Part::Virtual(count)),
            _ => Err(format!(
                "`{{{inside}}}`: `{{prompt:N}}` needs a number of virtual tokens, 1 to {MOST}"
            )),
        },
        Some((name, _)) if named(name).is_some() => Err(format!(
            "`{{{inside}}}`: only `{{prompt:N}}` takes a number"
        )),
        _ => named(inside).map(Part::Field).ok_or_else(|| {
            format!(
                "`{{{inside}}}` is no field; the fields are {}, and `{{prompt:N}}` is N virtual \
                 tokens",
                names(|_| true)
            )
        }),
    }
}

/// Lists the names of the `wanted` fields for an error message.
fn names(wanted: impl Fn(Field) -> bool) -> String {
    let names = Field::ALL.into_iter().filter(|&field| wanted(field));
    let names: Vec<String> = names
        .map(|field| format!("`{{{}}}`", field.name()))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_template_is_refused_with_its_column() {
        for (source, column, reason) in [
            ("{prompt}{completion", 9, "this `{` is not closed"),
            ("a}b{completion}", 2, "this `}` closes nothing"),
            ("{completion}}", 13, "this `}` closes nothing"),
            ("é {}{completion}", 3, "`{}` is no field"),
            (
                "{question}{completion}",
                1,
                "`{question}` is no field; the fields are `{prompt}`, `{input}`, \
                 `{instruction}`, `{text_pair}`, `{completion}`, `{output}`, `{text}`, `{label}`",
            ),
            ("{ prompt }{completion}", 1, "`{ prompt }` is no field"),
            ("{a:3}{completion}", 1, "`{a:3}` is no field"),
            (
                "{prompt:0}{completion}",
                1,
                "`{prompt:0}`: `{prompt:N}` needs a number of virtual tokens, 1 to 65535",
            ),
            (
                "{prompt:}{completion}",
                1,
                "`{prompt:}`: `{prompt:N}` needs",
            ),
            ("{prompt:-1}{completion}", 1, "`{prompt:-1}`: "),
            ("{prompt:two}{completion}", 1, "`{prompt:two}`: "),
            ("{prompt:65536}{completion}", 1, "`{prompt:65536}`: "),
            (
                "{prompt:99999999999999999999}{completion}",
                1,
                "`{prompt:N}` needs a number",
            ),
            (
                "{input:3}{completion}",
                1,
                "only `{prompt:N}` takes a number",
            ),
            (
                "{prompt:3} {input}",
                19,
                "one of `{completion}`, `{output}`, `{text}`, `{label}` must stand in it",
            ),
            ("", 1, "must stand in it"),
            (
                "{completion}{completion}",
                13,
                "the learned field stands twice",
            ),
            (
                "{text} {prompt:1} {output}",
                19,
                "the learned field stands twice",
            ),
            (
                "{completion} {prompt}",
                13,
                "only virtual tokens can stand behind",
            ),
            ("{completion}\n", 13, "only virtual tokens can stand behind"),
            (
                "{completion}  {prompt:1}  .",
                27,
                "only virtual tokens can stand behind",
            ),
        ] {
            let error = parse(source).expect_err(source);
            let Error::Template {
                column: found,
                reason: message,
                ..
            } = &error
            else {
                panic!("{error}")
            };
            assert!(message.contains(reason), "{source:?}: {message}");
            assert_eq!(*found, column, "{source:?}: {message}");
            let line = error.to_string();
            let start = format!("template {source:?}, column {column}: ");
            assert!(line.starts_with(&start) && !line.contains('\n'), "{line}");
        }
    }
}
