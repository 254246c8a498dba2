//! The parts of a rendered conversation that the assistant wrote.

use std::ops::Range;

use tokenizers::Encoding;

use crate::error::{Error, Result};
use crate::example::IGNORE_INDEX;
use crate::row::Message;
use crate::tokenizer::TextTokenizer;

/// Renders a conversation and finds the byte ranges of its assistant turns.
///
/// The template does not mark the turns. So the conversation is rendered twice for each assistant turn: up
/// to the turn, with the generation prompt, and through the turn. The turn is the text that only the second
/// has. Both texts must be prefixes of the whole conversation. A template that renders earlier turns
/// differently later on does not satisfy this.
pub(super) fn render_turns(
    tokenizer: &TextTokenizer,
    messages: &[Message],
) -> Result<(String, Vec<Range<usize>>)> {
    let text = tokenizer.render_chat(messages, false)?;
    let mut turns = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if message.role != "assistant" {
            continue;
        }
        let before = tokenizer.render_chat(&messages[..index], true)?;
        let through = tokenizer.render_chat(&messages[..=index], false)?;
        if !text.starts_with(&through) || !through.starts_with(&before) {
            return Err(Error::UnstableChatTemplate { message: index });
        }
        turns.push(before.len()..through.len());
    }
    Ok((text, turns))
}

/// Returns the labels `[seq]` of an encoded conversation: the ids of each turn through its end-of-turn token.
///
/// Most templates end a turn with a special token and a line break. The model stops at the special token, so
/// the line break is not supervised. Without a special token the whole turn is supervised. A token that
/// begins before a turn is not supervised, because a part of it belongs to the prompt.
pub(super) fn turn_labels(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{CONFIG, tokenizer, tokenizer_json};

    fn supervised_text(tokenizer: &TextTokenizer, messages: &[Message]) -> Result<String> {
        let (text, turns) = render_turns(tokenizer, messages)?;
        let encoding = tokenizer.encode_batch(vec![&text])?.remove(0);
        let labels = turn_labels(tokenizer, &text, &turns, &encoding);
        let ids: Vec<u32> = labels
            .iter()
            .filter_map(|&label| u32::try_from(label).ok())
            .collect();
        tokenizer.decode(&ids, false)
    }

    fn with_template(template: &str) -> TextTokenizer {
        TextTokenizer::from_bytes(
            tokenizer_json().as_bytes(),
            CONFIG.as_bytes(),
            Some(template),
        )
        .expect("a tokenizer")
    }

    #[test]
    fn only_assistant_turns_and_their_end_tokens_are_supervised() {
        let messages = [
            Message::new("user", "hello"),
            Message::new("assistant", "早 hi"),
            Message::new("user", "bye"),
            Message::new("assistant", "so long"),
        ];
        let text = supervised_text(&tokenizer(), &messages).expect("a good chat");
        assert_eq!(text, "早 hi<|im_end|>so long<|im_end|>");
    }

    #[test]
    fn a_turn_without_a_special_token_counts_whole() {
        let tokenizer = with_template(
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}\
             {% if add_generation_prompt %}assistant: {% endif %}",
        );
        let messages = [Message::new("user", "hi"), Message::new("assistant", "yes")];
        assert_eq!(
            supervised_text(&tokenizer, &messages).expect("a good chat"),
            "yes\n\n"
        );
    }

    #[test]
    fn a_token_that_begins_in_the_prompt_is_not_supervised() {
        // "he" is one token, of which the prompt holds the first letter.
        let tokenizer = with_template(
            "{% for m in messages %}{{ 'h' if m.role == 'assistant' }}{{ m.content }}<|im_end|>{% endfor %}\
             {% if add_generation_prompt %}h{% endif %}",
        );
        let messages = [Message::new("user", "a"), Message::new("assistant", "ey")];
        let text = supervised_text(&tokenizer, &messages).expect("a good chat");
        assert_eq!(text, "y<|im_end|>");
    }

    #[test]
    fn a_template_that_rewrites_earlier_turns_is_refused() {
        let tokenizer = with_template(
            "{% for m in messages %}[{{ m.role if loop.last else 'past' }}]{{ m.content }}{% endfor %}\
             {% if add_generation_prompt %}[assistant]{% endif %}",
        );
        let messages = [Message::new("assistant", "a"), Message::new("user", "b")];
        let error = supervised_text(&tokenizer, &messages).expect_err("the first turn changes");
        assert!(
            matches!(error, Error::UnstableChatTemplate { message: 0 }),
            "{error}"
        );
    }
}
