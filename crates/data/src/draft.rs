//! Rows to ids and labels, a chunk at a time, so that the tokenizer can work in parallel.

use std::borrow::Cow;
use std::ops::Range;

use tokenizers::Encoding;

use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, instruction_prompt};
use crate::rows::Row;
use crate::tokenizer::TextTokenizer;
use crate::turns::{render_turns, turn_labels};

/// A row whose text is known and whose ids are not.
enum Draft<'a> {
    /// A given part and a learned part, tokenised apart so that no token straddles the two, and the eos.
    Answer {
        prompt: Cow<'a, str>,
        answer: &'a str,
        eos: u32,
    },
    Chat {
        text: String,
        turns: Vec<Range<usize>>,
    },
    Ids {
        input_ids: &'a [u32],
        labels: &'a [i64],
    },
}

impl<'a> Draft<'a> {
    fn new(row: &'a Row, tokenizer: &TextTokenizer) -> Result<Self> {
        let eos = || tokenizer.eos_id().ok_or(Error::NoEos);
        Ok(match row {
            Row::PromptCompletion { prompt, completion } => Self::Answer {
                prompt: Cow::Borrowed(prompt),
                answer: completion,
                eos: eos()?,
            },
            Row::Instruction {
                instruction,
                input,
                output,
            } => Self::Answer {
                prompt: Cow::Owned(instruction_prompt(instruction, input.as_deref())),
                answer: output,
                eos: eos()?,
            },
            Row::Text(text) => Self::Answer {
                prompt: Cow::Borrowed(""),
                answer: text,
                eos: eos()?,
            },
            Row::Messages(messages) => {
                let (text, turns) = render_turns(tokenizer, messages)?;
                Self::Chat { text, turns }
            }
            Row::Tokenized { input_ids, labels } => Self::Ids { input_ids, labels },
        })
    }

    fn texts(&self) -> Vec<&str> {
        match self {
            Self::Answer { prompt, answer, .. } => vec![prompt, answer],
            Self::Chat { text, .. } => vec![text],
            Self::Ids { .. } => Vec::new(),
        }
    }

    /// Ids and labels, given the encodings of [`texts`](Self::texts) in their order.
    fn assemble(&self, encodings: &[Encoding], tokenizer: &TextTokenizer) -> (Vec<u32>, Vec<i64>) {
        match self {
            Self::Answer { eos, .. } => {
                let (prompt, answer) = (encodings[0].get_ids(), encodings[1].get_ids());
                let input_ids: Vec<u32> =
                    prompt.iter().chain(answer).chain([eos]).copied().collect();
                let mut labels: Vec<i64> = input_ids.iter().map(|&id| i64::from(id)).collect();
                labels[..prompt.len()].fill(IGNORE_INDEX);
                (input_ids, labels)
            }
            Self::Chat { text, turns } => {
                let labels = turn_labels(tokenizer, text, turns, &encodings[0]);
                (encodings[0].get_ids().to_vec(), labels)
            }
            Self::Ids { input_ids, labels } => (input_ids.to_vec(), labels.to_vec()),
        }
    }
}

/// Examples of `rows`, in their order.
pub(crate) fn tokenize_chunk(
    path: &str,
    rows: &[(usize, Row)],
    tokenizer: &TextTokenizer,
) -> Result<Vec<Example>> {
    let at = |line: usize, error: Error| match error {
        // Not this row's fault: it would be the same on every line.
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
            Draft::new(row, tokenizer).map_err(|error| at(*line, error))?,
        ));
    }
    let texts: Vec<&str> = drafts.iter().flat_map(|(_, draft)| draft.texts()).collect();
    let encodings = tokenizer.encode_batch(texts).map_err(|error| {
        // The batch does not say which text it was: look for it, now that time does not matter.
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
        let (input_ids, labels) = draft.assemble(own, tokenizer);
        Example {
            input_ids,
            labels,
            line,
        }
    };
    Ok(drafts.into_iter().map(example).collect())
}

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
    if input_ids.len() != labels.len() {
        return bad(format!(
            "{} input_ids and {} labels; a row needs one label for each id",
            input_ids.len(),
            labels.len()
        ));
    }
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
