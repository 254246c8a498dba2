//! From logits to the tags of words.

use burn_peft_data::Labels;

/// The tag of words of which the model saw nothing.
const OUTSIDE: &str = "O";

/// The tags of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordTags {
    /// A tag for each word.
    pub tags: Vec<String>,
    /// How many words, at the end, were cut off. Their tag is `O`.
    pub cut: usize,
}

/// The tag of each of a row's `words`: the class of the greatest logit at its first token.
///
/// `logits` is `[seq, classes]`. `first_tokens` are those of [`Parts::Words`](burn_peft_data::Parts::Words); words beyond
/// them were cut off.
pub fn word_tags(
    logits: &[f32],
    first_tokens: &[usize],
    words: usize,
    labels: &Labels,
) -> WordTags {
    let classes = labels.len();
    let class_at = |token: &usize| argmax(&logits[token * classes..(token + 1) * classes]);
    let mut tags: Vec<String> = first_tokens
        .iter()
        .map(|token| labels.names[class_at(token)].clone())
        .collect();
    let cut = words.saturating_sub(tags.len());
    tags.resize(tags.len() + cut, OUTSIDE.to_owned());
    WordTags { tags, cut }
}

/// The index of the greatest logit, the first of equal ones.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_peft_data::ProblemType;

    #[test]
    fn a_word_has_the_tag_of_its_first_token_and_one_that_was_cut_off_has_none() {
        let labels = Labels {
            problem_type: ProblemType::SingleLabel,
            names: vec!["B-X".into(), "O".into()],
        };
        // Four tokens: the second and the last are further tokens of their words.
        let logits = [2.0, 1.0, 0.0, 9.0, 0.0, 0.5, 9.0, 0.0];
        let found = word_tags(&logits, &[0, 2], 4, &labels);
        assert_eq!(found.tags, ["B-X", "O", "O", "O"]);
        assert_eq!(found.cut, 2);
    }

    #[test]
    fn of_equal_logits_the_first_is_the_greatest() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    }
}
