//! The parts of a rendered conversation that are learned.

#[cfg(test)]
mod tests;

use std::ops::Range;

use tokenizers::Encoding;

use super::spans::Turns;
use crate::conversation::Conversation;
use crate::error::Result;
use crate::example::IGNORE_INDEX;
use crate::tokenizer::{Rendered, TextTokenizer};

/// A rendered conversation and the byte ranges of it that are learned.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) text: String,
    learned: Learned,
}

#[derive(Debug)]
enum Learned {
    /// What the template marks with `{% generation %}`.
    Marked(Vec<Range<usize>>),
    /// The assistant's turns, in a template that marks nothing.
    Turns(Vec<Range<usize>>),
}

/// Finds in a rendered conversation what the assistant wrote: what the template marks, or else the assistant's turns.
/// Turns that a flag takes out are not learned.
pub(super) fn find_turns(
    tokenizer: &TextTokenizer,
    conversation: &Conversation,
    rendered: Rendered,
) -> Result<Chat> {
    let Rendered { text, marks } = rendered;
    let spans = Turns::new(tokenizer, conversation, &text);
    let turns = |is_learned: bool| {
        let turns = conversation.messages.iter().enumerate();
        let turns = turns.filter(move |(_, message)| {
            message.role() == "assistant" && message.is_learned() == is_learned
        });
        let ranges = turns.map(|(index, _)| spans.range(index));
        ranges.collect::<Result<Vec<_>>>()
    };
    let learned = match marks {
        Some(marks) => Learned::Marked(without(marks, &turns(false)?)),
        None => Learned::Turns(turns(true)?),
    };
    Ok(Chat { text, learned })
}

/// Takes the ranges of `holes` out of `ranges`.
fn without(mut ranges: Vec<Range<usize>>, holes: &[Range<usize>]) -> Vec<Range<usize>> {
    for hole in holes {
        let rest = |range: Range<usize>| {
            let before = range.start..range.end.min(hole.start);
            let behind = range.start.max(hole.end)..range.end;
            [before, behind].into_iter().filter(|rest| !rest.is_empty())
        };
        ranges = ranges.into_iter().flat_map(rest).collect();
    }
    ranges
}

impl Chat {
    /// Returns the labels `[seq]` of the text, encoded.
    pub(super) fn labels(&self, tokenizer: &TextTokenizer, encoding: &Encoding) -> Vec<i64> {
        match &self.learned {
            Learned::Marked(marks) => mark_labels(marks, encoding),
            Learned::Turns(turns) => turn_labels(tokenizer, &self.text, turns, encoding),
        }
    }
}

/// Returns the labels of marked text, as transformers' `return_assistant_tokens_mask` does: each token of which a
/// part is marked.
fn mark_labels(marks: &[Range<usize>], encoding: &Encoding) -> Vec<i64> {
    let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
    let mut labels = vec![IGNORE_INDEX; ids.len()];
    for mark in marks {
        let first = offsets.partition_point(|&(_, end)| end <= mark.start);
        let end = offsets.partition_point(|&(start, _)| start < mark.end);
        for position in first..end {
            labels[position] = i64::from(ids[position]);
        }
    }
    labels
}

/// Returns the labels `[seq]` of an encoded conversation: the ids of each turn through its end-of-turn token.
///
/// Most templates end a turn with a special token and a line break. The model stops at the special token, so
/// the line break is not supervised. Without a special token the whole turn is supervised. A token that
/// begins before a turn is not supervised, because a part of it belongs to the prompt.
fn turn_labels(
    tokenizer: &TextTokenizer,
    text: &str,
    turns: &[Range<usize>],
    encoding: &Encoding,
) -> Vec<i64> {
    let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
    let mut labels = vec![IGNORE_INDEX; ids.len()];
    for turn in turns {
        let first = offsets.partition_point(|&(start, _)| start < turn.start);
        let end = first + offsets[first..].partition_point(|&(start, _)| start < turn.end);
        let end_of_turn = (first..end)
            .rev()
            .find(|&position| tokenizer.is_special(ids[position]));
        let is_last = |position: &usize| {
            let rest = text.get(offsets[*position].1..turn.end);
            rest.is_some_and(|rest| rest.trim().is_empty())
        };
        let end = end_of_turn
            .filter(is_last)
            .map_or(end, |position| position + 1);
        for position in first..end {
            labels[position] = i64::from(ids[position]);
        }
    }
    labels
}
