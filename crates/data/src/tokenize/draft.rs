//! A chunk of rows to examples. The tokenizer encodes the texts of a chunk in parallel.

use std::borrow::Cow;
use std::ops::Range;

use tokenizers::Encoding;

use super::turns::{render_turns, turn_labels};
use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX};
use crate::layout::{Layout, instruction_prompt};
use crate::row::Row;
use crate::template::Template;
use crate::tokenizer::TextTokenizer;

/// A row that is ready to be tokenised.
enum Draft<'a> {
    /// Given text and a learned text that ends with the eos.
    Answer { layout: Layout<'a>, eos: u32 },
    /// A rendered conversation and the byte ranges of its assistant turns.
    Chat {
        text: String,
        turns: Vec<Range<usize>>,
    },
    /// Ids and labels of the file, which need no tokenizer.
    Ids {
        input_ids: &'a [u32],
        labels: &'a [i64],
    },
}

impl<'a> Draft<'a> {
    fn new(
        row: &'a Row,
        tokenizer: &TextTokenizer,
        template: Option<&'a Template>,
    ) -> Result<Self> {
        let answer = |layout| {
            let eos = tokenizer.eos_id().ok_or(Error::NoEos)?;
            Ok(Self::Answer { layout, eos })
        };
        match (template, row) {
            (Some(template), _) => answer(template.layout(row)?),
            (None, Row::PromptCompletion { prompt, completion }) => {
                answer(Layout::plain(Cow::Borrowed(prompt), completion))
            }
            (
                None,
                Row::Instruction {
                    instruction,
                    input,
                    output,
                },
            ) => {
                let prompt = instruction_prompt(instruction, input.as_deref());
                answer(Layout::plain(Cow::Owned(prompt), output))
            }
            (None, Row::Text(text)) => answer(Layout::plain(Cow::Borrowed(""), text)),
            (None, Row::Messages(messages)) => {
                let (text, turns) = render_turns(tokenizer, messages)?;
                Ok(Self::Chat { text, turns })
            }
            (None, Row::Tokenized { input_ids, labels }) => Ok(Self::Ids { input_ids, labels }),
        }
    }

    /// The texts to encode.
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::Answer { layout, .. } => layout.texts(),
            Self::Chat { text, .. } => vec![text],
            Self::Ids { .. } => Vec::new(),
        }
    }

    /// Makes the example from the encodings of [`texts`](Self::texts), in the same order.
    fn assemble(&self, encodings: &[Encoding], tokenizer: &TextTokenizer, line: usize) -> Example {
        let (input_ids, labels, placement) = match self {
            Self::Answer { layout, eos } => {
                let ids: Vec<&[u32]> = encodings.iter().map(Encoding::get_ids).collect();
                layout.assemble(&ids, *eos, tokenizer)
            }
            Self::Chat { text, turns } => {
                let labels = turn_labels(tokenizer, text, turns, &encodings[0]);
                (encodings[0].get_ids().to_vec(), labels, None)
            }
            Self::Ids { input_ids, labels } => (input_ids.to_vec(), labels.to_vec(), None),
        };
        Example {
            input_ids,
            labels,
            placement,
            line,
        }
    }
}

/// Makes the examples of `rows`, in order. `path` is the name of the file in errors.
pub(super) fn tokenize_chunk(
    path: &str,
    rows: &[(usize, Row)],
    tokenizer: &TextTokenizer,
    template: Option<&Template>,
) -> Result<Vec<Example>> {
    let at = |line: usize, error: Error| match error {
        // These concern the model, not this row.
        Error::NoEos | Error::NoChatTemplate => error,
        error => Error::Row {
            path: path.to_owned(),
            line,
            source: Box::new(error),
        },
    };
    let mut drafts = Vec::with_capacity(rows.len());
    for (line, row) in rows {
        check_ids(path, *line, row, tokenizer.vocab_size())?;
        drafts.push((
            *line,
            Draft::new(row, tokenizer, template).map_err(|error| at(*line, error))?,
        ));
    }
    let texts: Vec<&str> = drafts.iter().flat_map(|(_, draft)| draft.texts()).collect();
    let encodings = tokenizer.encode_batch(texts).map_err(|error| {
        // The error does not name the text that failed, so encode them again one at a time.
        let line = drafts.iter().find(|(_, draft)| {
            draft
                .texts()
                .iter()
                .any(|text| tokenizer.encode(text).is_err())
        });
        at(line.map_or(rows[0].0, |(line, _)| *line), error)
    })?;
    let mut encodings = encodings.as_slice();
    let example = |(line, draft): (usize, Draft<'_>)| {
        let (own, rest) = encodings.split_at(draft.texts().len());
        encodings = rest;
        draft.assemble(own, tokenizer, line)
    };
    Ok(drafts.into_iter().map(example).collect())
}

/// Checks that the ids and labels of a tokenised row are in the vocabulary. The reader has compared their
/// lengths.
fn check_ids(path: &str, line: usize, row: &Row, vocab: usize) -> Result<()> {
    let Row::Tokenized { input_ids, labels } = row else {
        return Ok(());
    };
    let bad = |reason: String| {
        Err(Error::BadRow {
            path: path.to_owned(),
            line,
            reason,
        })
    };
    if let Some(index) = input_ids.iter().position(|&id| id as usize >= vocab) {
        return bad(format!(
            "input_ids[{index}] is {}, and the vocabulary has {vocab} ids",
            input_ids[index]
        ));
    }
    let in_range = |label: i64| {
        label == IGNORE_INDEX || usize::try_from(label).is_ok_and(|label| label < vocab)
    };
    match labels.iter().position(|&label| !in_range(label)) {
        Some(index) => bad(format!(
            "labels[{index}] is {}; a label is {IGNORE_INDEX} or an id below {vocab}",
            labels[index]
        )),
        None => Ok(()),
    }
}
