//! `{% generation %}`: the marks around what the assistant wrote.
//!
//! transformers adds this tag to Jinja for templates that say themselves what is learned
//! (`return_assistant_tokens_mask`). The engine here cannot be given a tag, so the tags are replaced by others that
//! write a character at the edges of the marked text. The characters are taken out again after rendering.

use std::ops::Range;

/// Two characters that Unicode sets aside for use within a program.
const BEGIN: char = '\u{fdd0}';
const END: char = '\u{fdd1}';
pub(super) const MARKS: [char; 2] = [BEGIN, END];

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// The text.
    pub(crate) text: String,
    /// The byte ranges that the template marks as the assistant's. `None` if it is a template that marks nothing.
    pub(crate) marks: Option<Vec<Range<usize>>>,
}

/// Replaces the `generation` tags of a template. Returns whether there were any.
///
/// A tag becomes a block tag, the character, and a block tag. Then the white space in front of the tag is treated
/// as the first says, and that behind it as the second says, and both are blocks as `generation` is.
pub(super) fn replace_tags(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut found = false;
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{#")).min() {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        if let Some(tag) = GenerationTag::parse(tag) {
            found = true;
            tag.write(&mut out);
            rest = tag.rest;
        } else {
            // A comment may speak of the tags.
            let comment = tag.starts_with("{#").then(|| tag.find("#}")).flatten();
            let (kept, behind) = tag.split_at(comment.map_or(2, |end| end + 2));
            out.push_str(kept);
            rest = behind;
        }
    }
    out.push_str(rest);
    (out, found)
}

/// A `generation` or `endgeneration` tag.
struct GenerationTag<'a> {
    is_begin: bool,
    /// `-`, `+` or nothing, in front of and behind the name.
    left: &'a str,
    right: &'a str,
    /// The source behind the tag.
    rest: &'a str,
}

impl<'a> GenerationTag<'a> {
    fn parse(source: &'a str) -> Option<Self> {
        let inner = source.strip_prefix("{%")?;
        let (left, inner) = control(inner);
        let inner = inner.trim_start();
        let (is_begin, inner) = match inner.strip_prefix("endgeneration") {
            Some(inner) => (false, inner),
            None => (true, inner.strip_prefix("generation")?),
        };
        let (right, inner) = control(inner.trim_start());
        Some(Self {
            is_begin,
            left,
            right,
            rest: inner.strip_prefix("%}")?,
        })
    }

    fn write(&self, out: &mut String) {
        let Self { left, right, .. } = self;
        *out += &match self.is_begin {
            true => format!("{{%{left} if true %}}{{{{ '{BEGIN}' }}}}{{% if true {right}%}}"),
            false => format!("{{%{left} endif %}}{{{{ '{END}' }}}}{{% endif {right}%}}"),
        };
    }
}

/// The sign of white-space control at the beginning of a text, and what follows.
fn control(text: &str) -> (&str, &str) {
    text.split_at(usize::from(text.starts_with(['-', '+'])))
}

/// Takes the marks out of a rendered text. `None` if they do not come in pairs.
pub(super) fn take_marks(rendered: &str) -> Option<Rendered> {
    let mut text = String::with_capacity(rendered.len());
    let mut marks = Vec::new();
    let mut begin = None;
    for character in rendered.chars() {
        match character {
            BEGIN if begin.is_none() => begin = Some(text.len()),
            END => {
                let range = begin.take()?..text.len();
                if !range.is_empty() {
                    marks.push(range);
                }
            }
            BEGIN => return None,
            other => text.push(other),
        }
    }
    let marks = Some(marks);
    begin.is_none().then_some(Rendered { text, marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_are_replaced_and_keep_their_control_of_white_space() {
        let (source, found) = replace_tags(
            "a {%- generation -%} b {% endgeneration+%} {% if generation %}c{% endif %}",
        );
        assert!(found);
        assert_eq!(
            source,
            "a {%- if true %}{{ '\u{fdd0}' }}{% if true -%} b \
             {% endif %}{{ '\u{fdd1}' }}{% endif +%} {% if generation %}c{% endif %}"
        );
        for plain in [
            "{% for m in messages %}{{ generation }}{% endfor %}{%",
            "{#- with {% generation %} and {% endgeneration %} -#} {#",
        ] {
            assert_eq!(replace_tags(plain), (plain.to_owned(), false));
        }
    }

    #[test]
    fn marks_are_byte_ranges_of_the_text_without_them() {
        let rendered = take_marks("é\u{fdd0}早\u{fdd1}b\u{fdd0}c\u{fdd1}\u{fdd0}\u{fdd1}");
        let rendered = rendered.expect("pairs");
        assert_eq!(rendered.text, "é早bc");
        assert_eq!(rendered.marks, Some(vec![2..5, 6..7]));
        for unpaired in ["\u{fdd0}", "\u{fdd1}", "\u{fdd0}\u{fdd0}\u{fdd1}"] {
            assert_eq!(take_marks(unpaired), None);
        }
    }
}
