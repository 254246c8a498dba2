//! The parts of a rendered conversation that are learned.

#[cfg(test)]
mod tests;

use std::ops::Range;

use tokenizers::Encoding;

use super::spans::Turns;
use super::supervise::{Supervise, every_label};
use crate::conversation::{Conversation, Message, PROMPT};
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
    /// Everything but the turns that a flag takes out.
    All {
        without: Vec<Range<usize>>,
        /// Where the first answer begins, if it was found.
        first_answer: usize,
    },
}

/// Finds in a rendered conversation what is learned: of the assistant, what the template marks, or else its turns.
/// Turns that a flag takes out are not learned.
pub(super) fn find_turns(
    tokenizer: &TextTokenizer,
    conversation: &Conversation,
    rendered: Rendered,
    supervise: Supervise,
) -> Result<Chat> {
    let Rendered { text, marks } = rendered;
    let spans = Turns::new(tokenizer, conversation, &text);
    let messages = conversation.messages.iter().enumerate();
    let answers = messages.filter(|(_, message)| message.role() == "assistant");
    let (mut learned, mut given): (Vec<_>, Vec<_>) =
        answers.partition(|(_, message)| message.is_learned());
    if supervise == Supervise::All {
        given.retain(|(_, message)| message.masked_by != Some(PROMPT));
    }
    if supervise == Supervise::Last {
        let earlier = learned.len().saturating_sub(1);
        given.extend(learned.drain(..earlier));
    }
    let ranges = |turns: &[(usize, &Message)]| {
        let ranges = turns.iter().map(|(index, _)| spans.range(*index));
        ranges.collect::<Result<Vec<_>>>()
    };
    let learned = match (supervise, marks) {
        (Supervise::All, marks) => Learned::All {
            without: ranges(&given)?,
            first_answer: match (marks, learned.first()) {
                (Some(marks), _) => marks.first().map_or(0, |mark| mark.start),
                (None, Some((first, _))) => spans.range(*first).map_or(0, |range| range.start),
                (None, None) => 0,
            },
        },
        (_, Some(marks)) if given.is_empty() => Learned::Marked(marks),
        (_, Some(marks)) => Learned::Marked(without(marks, &ranges(&given)?, &ranges(&learned)?)),
        (_, None) => Learned::Turns(ranges(&learned)?),
    };
    Ok(Chat { text, learned })
}

/// Takes the turns that are `given` out of what the template marks. A mark that has nothing of a `learned` turn goes as a
/// whole: some templates mark what stands in front of a turn, too, as SmolLM3's does.
fn without(
    marks: Vec<Range<usize>>,
    given: &[Range<usize>],
    learned: &[Range<usize>],
) -> Vec<Range<usize>> {
    let has_any_of = |mark: &Range<usize>, turns: &[Range<usize>]| {
        let overlaps = |turn: &Range<usize>| mark.start < turn.end && turn.start < mark.end;
        turns.iter().any(overlaps)
    };
    let mut ranges = marks;
    ranges.retain(|mark| !has_any_of(mark, given) || has_any_of(mark, learned));
    for hole in given {
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
            Learned::All { without, .. } => {
                let mut labels = every_label(encoding.get_ids(), tokenizer);
                let given = turn_labels(tokenizer, &self.text, without, encoding);
                for (label, given) in labels.iter_mut().zip(given) {
                    if given != IGNORE_INDEX {
                        *label = IGNORE_INDEX;
                    }
                }
                labels
            }
        }
    }

    /// The token in front of which a cut leaves a part of a prompt alone, where prompts are learned, too.
    pub(super) fn first_answer(&self, encoding: &Encoding) -> usize {
        match self.learned {
            Learned::All { first_answer, .. } => {
                let offsets = encoding.get_offsets();
                offsets.partition_point(|&(start, _)| start < first_answer)
            }
            _ => 0,
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
