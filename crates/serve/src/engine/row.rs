//! One row: what is asked for, and how far it is.

use std::{sync::Arc, time::Instant};

use burn::tensor::backend::Backend;
use burn_peft_decoder::{FinishReason, GenerationOptions, Sampler};
use tokio::sync::mpsc::UnboundedSender;

use super::adapters::{AdapterId, Front, Loaded};

/// A prompt as token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// The ids.
    pub input_ids: Vec<u32>,
    /// For each virtual token, the id that it stands in front of, ascending; `None` where all stand in front.
    pub placement: Option<Vec<usize>>,
}

/// A text to go on from.
#[derive(Debug)]
pub struct Request {
    /// The adapter.
    pub adapter: AdapterId,
    /// The text.
    pub prompt: Ids,
    /// How to go on.
    pub options: GenerationOptions,
    /// For how many of the likeliest tokens log-probabilities are asked for, beside the chosen one's; `None` where
    /// none is.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt. All of them are then computed, whatever is held of them.
    pub prompt_logprobs: Option<usize>,
    /// Whether the adapter's head reads the last id, and nothing goes on.
    pub head: bool,
    /// When it is given up.
    pub deadline: Option<Instant>,
    /// Where its tokens go. The row ends when the other side is dropped.
    pub events: UnboundedSender<Event>,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The row has a place in the batch.
    Started {
        /// Tokens of its prompt that were held already.
        cached_tokens: usize,
    },
    /// The log-probabilities of the prompt's ids, where they were asked for: each one's and those of the likeliest at
    /// its place, from what stands before it. The first id has none.
    Prompt(Vec<Vec<TokenLogprob>>),
    /// A new token.
    Token {
        /// The token.
        id: u32,
        /// Its log-probability and those of the likeliest, where they were asked for.
        logprobs: Option<Vec<TokenLogprob>>,
    },
    /// What the adapter's head says.
    Head(Vec<f32>),
    /// The row ended.
    Done(FinishReason),
    /// The time was up.
    TimedOut,
    /// The engine stopped, or the adapter was removed before the row began.
    Gone,
}

/// A token and its log-probability in nats, at temperature 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// A token of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// One of the vocabulary.
    Id(u32),
    /// One of the adapter's prompt.
    Virtual(usize),
}

/// A row that runs.
#[derive(Debug)]
pub(crate) struct Row<B: Backend> {
    pub(crate) id: AdapterId,
    pub(crate) adapter: Arc<Loaded<B>>,
    pub(crate) slot: usize,
    /// What was asked.
    pub(crate) prompt: Ids,
    /// What the slot holds in front of `tokens`: the adapter's prefix.
    pub(crate) prefix: Prefix,
    /// All tokens, the new ones included.
    pub(crate) tokens: Vec<Token>,
    /// How many of them are held in the slot.
    pub(crate) computed: usize,
    pub(crate) generated: usize,
    pub(crate) sampler: Sampler<'static>,
    pub(crate) limit: usize,
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompt_logprobs: Option<PromptLogprobs>,
    pub(crate) head: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) events: UnboundedSender<Event>,
}

/// Log-probabilities of a prompt, as far as they are known.
#[derive(Debug)]
pub(crate) struct PromptLogprobs {
    /// How many of the likeliest are asked for.
    pub(crate) count: usize,
    /// Those of the ids so far.
    pub(crate) known: Vec<Vec<TokenLogprob>>,
}

/// Keys and values in front of a row's tokens in its slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Prefix {
    /// The place in the row of each.
    pub(crate) places: Vec<usize>,
}

impl Prefix {
    /// The places of the tokens `tokens` of the row.
    pub(crate) fn places_of(&self, tokens: std::ops::Range<usize>) -> Vec<usize> {
        // A prefix cell that stands before a token moves it on by one.
        let mut places = Vec::with_capacity(tokens.len());
        let mut before = 0;
        for token in 0..tokens.end {
            while before < self.places.len() && self.places[before] <= token + before {
                before += 1;
            }
            if token >= tokens.start {
                places.push(token + before);
            }
        }
        places
    }
}

/// A request laid out for its adapter: the places of its prefix, and its tokens.
pub(crate) fn lay_out<B: Backend>(adapter: &Loaded<B>, prompt: &Ids) -> (Prefix, Vec<Token>) {
    let ids = prompt.input_ids.iter().copied().map(Token::Id);
    let in_front = vec![0; adapter.virtual_tokens()];
    let before = prompt.placement.as_ref().unwrap_or(&in_front);
    // The keys and values of a prompt are known where it stands in front, and something follows that predicts the
    // next token.
    let has_run = *before == in_front && !prompt.input_ids.is_empty();
    match &adapter.front {
        Front::Prompt { .. } if !has_run => {
            let mut tokens = Vec::with_capacity(before.len() + prompt.input_ids.len());
            let mut next = 0;
            for place in 0..=prompt.input_ids.len() {
                while before.get(next) == Some(&place) {
                    tokens.push(Token::Virtual(next));
                    next += 1;
                }
                tokens.extend(prompt.input_ids.get(place).copied().map(Token::Id));
            }
            (Prefix::default(), tokens)
        }
        Front::Nothing => (Prefix::default(), ids.collect()),
        Front::Prefix(_) | Front::Prompt { .. } => {
            let places = before.iter().enumerate();
            let places = places.map(|(index, before)| before + index).collect();
            (Prefix { places }, ids.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_take_the_places_that_a_prefix_among_them_leaves() {
        // Two cells in front of the second token, one in front of the fourth.
        let prefix = Prefix {
            places: vec![1, 2, 5],
        };
        assert_eq!(prefix.places_of(0..5), [0, 3, 4, 6, 7]);
        assert_eq!(prefix.places_of(2..4), [4, 6]);
        assert_eq!(Prefix::default().places_of(3..5), [3, 4]);
    }
}
