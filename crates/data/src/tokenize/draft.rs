//! A chunk of rows to examples. The tokenizer encodes the texts of a chunk in parallel.

use std::borrow::Cow;

use tokenizers::Encoding;

use super::turns::{Chat, find_turns};
use super::usage::Usage;
use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, Parts};
use crate::layout::Layout;
use crate::row::Row;
use crate::template::Template;
use crate::tokenizer::{TextTokenizer, on_deep_stack};

/// A row that is ready to be tokenised.
enum Draft<'a> {
    /// Given text and a learned text that ends with the eos.
    Answer { layout: Layout<'a>, eos: u32 },
    /// A rendered conversation.
    Chat(Chat),
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
        usage: &mut Usage,
    ) -> Result<Self> {
        let answer = |layout| {
            let eos = tokenizer.eos_id().ok_or(Error::NoEos)?;
            tokenizer.check_ids(&[eos])?;
            Ok(Self::Answer { layout, eos })
        };
        if let Some(template) = template {
            usage.placed(row);
            return answer(template.layout(row)?);
        }
        if let Some((prompt, learned)) = row.prompt_and_answer() {
            return answer(Layout::plain(prompt, learned));
        }
        match row {
            Row::Messages(conversation) => {
                let (messages, variables) = (&conversation.messages, &conversation.variables);
                let rendered = tokenizer.render(messages, variables, false)?;
                usage.rendered(tokenizer, conversation, &rendered.text)?;
                find_turns(tokenizer, conversation, rendered).map(Self::Chat)
            }
            Row::Tokenized { input_ids, labels } => Ok(Self::Ids { input_ids, labels }),
            Row::Text(text) => answer(Layout::plain(Cow::Borrowed(""), text)),
            Row::PromptCompletion { .. } | Row::Instruction { .. } => {
                unreachable!("these rows have a prompt and an answer")
            }
        }
    }

    /// The texts to encode.
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::Answer { layout, .. } => layout.texts(),
            Self::Chat(chat) => vec![&chat.text],
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
            Self::Chat(chat) => {
                let labels = chat.labels(tokenizer, &encodings[0]);
                (encodings[0].get_ids().to_vec(), labels, None)
            }
            Self::Ids { input_ids, labels } => (input_ids.to_vec(), labels.to_vec(), None),
        };
        Example {
            input_ids,
            labels,
            row_label: None,
            placement,
            parts: Parts::Whole,
            // Its caller counts the rows.
            row: 0,
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
    usage: &mut Usage,
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
    // Every rendering needs a deep stack. A thread for all of them costs less than one for each.
    let draft_all = || {
        let mut drafts = Vec::with_capacity(rows.len());
        for (line, row) in rows {
            check_ids(path, *line, row, tokenizer.vocab_size())?;
            let draft = Draft::new(row, tokenizer, template, usage);
            drafts.push((*line, draft.map_err(|error| at(*line, error))?));
        }
        Ok::<_, Error>(drafts)
    };
    let drafts = on_deep_stack(draft_all).map_err(|source| Error::Memory { source })??;
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
        let example = draft.assemble(own, tokenizer, line);
        let checked = tokenizer.check_ids(&example.input_ids);
        checked.map_err(|error| at(line, error))?;
        Ok(example)
    };
    drafts.into_iter().map(example).collect()
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
