//! A chunk of rows to examples. The tokenizer encodes the texts of a chunk in parallel.

use std::borrow::Cow;

use tokenizers::Encoding;

use super::source::{Numbered, Outcome, Source};
use super::supervise::{Supervise, Uncut, every_label};
use super::turns::{Chat, find_turns};
use super::usage::Usage;
use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, Parts};
use crate::layout::Layout;
use crate::row::Row;
use crate::tokenizer::on_deep_stack;

/// The most roles that an error names, and the most characters of each.
const SHOWN_ROLES: usize = 8;
const SHOWN_CHARACTERS: usize = 40;

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
    fn new(row: &'a Row, source: &Source<'a>, usage: &mut Usage) -> Result<Self> {
        let Source {
            tokenizer,
            template,
            supervise,
            ..
        } = *source;
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
                find_turns(tokenizer, conversation, rendered, supervise).map(Self::Chat)
            }
            Row::Tokenized { input_ids, labels } => Ok(Self::Ids { input_ids, labels }),
            Row::Text(text) => answer(Layout::plain(Cow::Borrowed(""), text)),
            Row::PromptCompletion { .. } | Row::Instruction { .. } => {
                unreachable!("these rows have a prompt and an answer")
            }
            _ => unreachable!("rows of other tasks were refused"),
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
    fn assemble(&self, encodings: &[Encoding], source: &Source<'_>, line: usize) -> Uncut {
        let tokenizer = source.tokenizer;
        let mut first_answer = 0;
        let (input_ids, labels, placement) = match self {
            Self::Answer { layout, eos } => {
                let texts: Vec<&[u32]> = encodings.iter().map(Encoding::get_ids).collect();
                let (ids, mut labels, placement) = layout.assemble(&texts, *eos, tokenizer);
                if source.supervise == Supervise::All {
                    first_answer = labels.partition_point(|&label| label == IGNORE_INDEX);
                    labels = every_label(&ids, tokenizer);
                }
                (ids, labels, placement)
            }
            Self::Chat(chat) => {
                first_answer = chat.first_answer(&encodings[0]);
                let labels = chat.labels(tokenizer, &encodings[0]);
                (encodings[0].get_ids().to_vec(), labels, None)
            }
            Self::Ids { input_ids, labels } => (input_ids.to_vec(), labels.to_vec(), None),
        };
        let example = Example {
            input_ids,
            labels,
            row_label: None,
            placement,
            parts: Parts::Whole,
            // Its caller counts the rows.
            row: 0,
            line,
        };
        Uncut {
            example,
            first_answer,
        }
    }
}

/// Makes the examples of `rows`, in order.
pub(super) fn tokenize_chunk(
    source: &Source<'_>,
    rows: &[Numbered],
    usage: &mut Usage,
) -> Result<Vec<Outcome>> {
    // Every rendering needs a deep stack. A thread for all of them costs less than one for each.
    let draft_all = || {
        let mut drafts = Vec::with_capacity(rows.len());
        for (line, row) in rows {
            if let Row::Tokenized { input_ids, labels } = row {
                source.check_given(*line, input_ids)?;
                check_labels(source, *line, labels)?;
            }
            let draft = Draft::new(row, source, usage);
            drafts.push(draft.map_err(|error| source.at(*line, error))?);
        }
        Ok::<_, Error>(drafts)
    };
    let drafts = on_deep_stack(draft_all).map_err(|source| Error::Memory { source })??;
    let lines = rows.iter().map(|(line, _)| *line);
    let texts: Vec<_> = lines.zip(drafts.iter().map(Draft::texts)).collect();
    let encodings = source.encode(&texts)?;
    let outcome = |(((line, row), draft), encodings): ((&Numbered, &Draft<'_>), Vec<Encoding>)| {
        let uncut = draft.assemble(&encodings, source, *line);
        source.check(*line, &uncut.example.input_ids)?;
        if !uncut.example.has_target() {
            return Err(Error::NothingSupervised {
                path: source.path.to_owned(),
                line: *line,
                reason: why_nothing(row).map_or_else(String::new, |why| format!(" ({why})")),
            });
        }
        Ok(uncut.cut(source.limit))
    };
    let drafts = rows.iter().zip(&drafts);
    drafts.zip(encodings).map(outcome).collect()
}

/// Checks that the labels of a tokenised row are in the vocabulary. The reader has counted them.
fn check_labels(source: &Source<'_>, line: usize, labels: &[i64]) -> Result<()> {
    let vocab = source.tokenizer.vocab_size();
    let in_range = |label: i64| {
        label == IGNORE_INDEX || usize::try_from(label).is_ok_and(|label| label < vocab)
    };
    match labels.iter().position(|&label| !in_range(label)) {
        None => Ok(()),
        Some(index) => Err(source.bad(
            line,
            format!(
                "labels[{index}] is {}; a label is {IGNORE_INDEX} or an id below {vocab}",
                labels[index]
            ),
        )),
    }
}

/// Why nothing of a row is learned, if the row shows it.
fn why_nothing(row: &Row) -> Option<String> {
    let Row::Messages(conversation) = row else {
        return None;
    };
    let messages = &conversation.messages;
    let is_answer = |message: &&Message| message.role() == "assistant";
    let mut answers = messages.iter().filter(is_answer).peekable();
    if answers.peek().is_none() {
        let mut roles: Vec<String> = Vec::new();
        for role in messages
            .iter()
            .map(|message| format!("{:?}", message.role()))
        {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        let shown = roles.iter().take(SHOWN_ROLES).cloned();
        let shown: Vec<String> = shown.map(shorten).collect();
        return Some(format!(
            "no turn of the assistant; the roles are {}",
            shown.join(", ")
        ));
    }
    let flags: Option<Vec<&str>> = answers.map(|answer| answer.masked_by).collect();
    let flag = *flags?.first()?;
    Some(format!(
        "`{flag}` says of every turn of the assistant that it is not learned"
    ))
}

/// The first characters of a text.
fn shorten(text: String) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
