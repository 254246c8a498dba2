//! One answer, from the events of its row.

use std::collections::VecDeque;

use burn_peft_data::{StreamDecoder, TextTokenizer};
use burn_peft_decoder::FinishReason;

use super::stop::{Found, StopFinder};
use crate::engine::{Event, TokenLogprob};

/// Puts an answer together.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// `None` behind the end.
    decoder: Option<StreamDecoder<'a>>,
    stops: StopFinder,
    stop_ids: &'a [u32],
    /// Where the answer begins with its prompt: the prompt's text, and its ids where they are scored.
    echo: Option<(&'a str, Option<&'a [u32]>)>,
    /// Bytes of the text that were decoded, and of those that were handed out.
    decoded: usize,
    sent: usize,
    /// Tokens that were not handed out, and where in the text they begin.
    waiting: VecDeque<(usize, Scored)>,
    /// New tokens, a last one that ends the text included.
    pub(crate) tokens: usize,
    /// Tokens of the prompt that were held.
    pub(crate) cached_tokens: usize,
    /// Why it ended, once it did.
    pub(crate) finish: Option<FinishReason>,
}

/// A token and its log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    pub(crate) id: u32,
    /// Its own; the first token of a prompt has none.
    pub(crate) logprob: Option<f32>,
    /// Those of the likeliest.
    pub(crate) likeliest: Vec<TokenLogprob>,
}

/// What is new of an answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) scored: Vec<Scored>,
}

/// Why there will be no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The time was up.
    TimedOut,
    /// The engine stopped, or the adapter was removed.
    Gone,
}

impl<'a> Answer<'a> {
    /// `stop_ids` end the text and are no part of it.
    pub(crate) fn new(
        tokenizer: &'a TextTokenizer,
        stops: Vec<String>,
        stop_ids: &'a [u32],
        echo: Option<(&'a str, Option<&'a [u32]>)>,
    ) -> Self {
        Self {
            decoder: Some(StreamDecoder::new(tokenizer)),
            stops: StopFinder::new(stops),
            stop_ids,
            echo,
            decoded: 0,
            sent: 0,
            waiting: VecDeque::new(),
            tokens: 0,
            cached_tokens: 0,
            finish: None,
        }
    }

    /// Takes what happened to the row; nothing more once it ended.
    pub(crate) fn take(&mut self, event: Event) -> Result<Part, Failure> {
        match event {
            Event::Started { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                Ok(match self.echo {
                    Some((text, None)) => Part {
                        text: text.to_owned(),
                        ..Part::default()
                    },
                    _ => Part::default(),
                })
            }
            Event::Prompt(scores) => Ok(self.prompt(scores)),
            Event::Token { id, logprobs } => {
                self.tokens += 1;
                if self.stop_ids.contains(&id) {
                    return Ok(Part::default());
                }
                if let Some(logprobs) = logprobs {
                    self.waiting
                        .push_back((self.decoded, Scored::of(id, logprobs)));
                }
                let decoder = self.decoder.as_mut();
                let text = decoder.and_then(|decoder| decoder.push(id));
                let text = text.unwrap_or_default();
                Ok(self.text(&text))
            }
            Event::Done(reason) => {
                let decoder = self.decoder.take();
                let rest = decoder.and_then(StreamDecoder::finish).unwrap_or_default();
                let mut part = self.text(&rest);
                if self.finish.is_none() {
                    let held = self.stops.finish();
                    self.sent += held.len();
                    part.text += &held;
                    self.finish = Some(reason);
                    part.scored
                        .extend(self.waiting.drain(..).map(|(_, scored)| scored));
                }
                Ok(part)
            }
            // Nobody asks for a head's answer here.
            Event::Head(_) => Ok(Part::default()),
            Event::TimedOut => Err(Failure::TimedOut),
            Event::Gone => Err(Failure::Gone),
        }
    }

    fn text(&mut self, text: &str) -> Part {
        self.decoded += text.len();
        let (text, is_stopped) = match self.stops.push(text) {
            Found::Text(text) => (text, false),
            Found::Stopped(text) => (text, true),
        };
        self.sent += text.len();
        // A token goes with the text that it begins in.
        let mut scored = Vec::new();
        while let Some((start, token)) = self.waiting.front() {
            if *start >= self.sent {
                break;
            }
            scored.push(token.clone());
            self.waiting.pop_front();
        }
        if is_stopped {
            self.waiting.clear();
            self.finish = Some(FinishReason::Stop);
        }
        Part { text, scored }
    }

    fn prompt(&self, scores: Vec<Vec<TokenLogprob>>) -> Part {
        let Some((text, ids)) = self.echo else {
            return Part::default();
        };
        let ids = ids.unwrap_or_default().iter();
        let scored = ids
            .zip(scores)
            .map(|(id, logprobs)| Scored::of(*id, logprobs));
        Part {
            text: text.to_owned(),
            scored: scored.collect(),
        }
    }
}

impl Scored {
    /// From what the engine says: the token's own first.
    fn of(id: u32, logprobs: Vec<TokenLogprob>) -> Self {
        let mut logprobs = logprobs.into_iter();
        Self {
            id,
            logprob: logprobs.next().map(|own| own.logprob),
            likeliest: logprobs.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> TextTokenizer {
        TextTokenizer::from_bytes(
            br#"{"version": "1.0", "added_tokens": [], "decoder": {"type": "Fuse"},
                 "model": {"type": "BPE", "merges": [],
                           "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "<": 4}}}"#,
            b"{}",
            None,
        )
        .expect("a tokenizer")
    }

    fn token(id: u32) -> Event {
        let logprobs = Some(vec![TokenLogprob { id, logprob: -1.0 }]);
        Event::Token { id, logprobs }
    }

    /// The parts of an answer: its text, and the ids that come with it.
    fn parts(answer: &mut Answer<'_>, ids: &[u32]) -> Vec<(String, Vec<u32>)> {
        let tokens = ids.iter().map(|id| token(*id));
        let events = tokens.chain([Event::Done(FinishReason::Length)]);
        let mut parts = Vec::new();
        for event in events {
            let part = answer.take(event).expect("an answer");
            let ids = part.scored.iter().map(|scored| scored.id).collect();
            parts.push((part.text, ids));
            if answer.finish.is_some() {
                break;
            }
        }
        parts
    }

    #[test]
    fn tokens_come_with_the_text_that_they_begin_in_and_none_comes_behind_a_stop() {
        let tokenizer = tokenizer();
        let stops = || vec!["bc".to_owned()];
        let mut stopped = Answer::new(&tokenizer, stops(), &[], None);
        let part = |text: &str, ids: &[u32]| (text.to_owned(), ids.to_vec());
        assert_eq!(
            parts(&mut stopped, &[0, 1, 0, 1, 2, 3]),
            [
                part("a", &[0]),
                part("", &[]),
                part("ba", &[1, 0]),
                part("", &[]),
                part("", &[])
            ]
        );
        assert_eq!(
            (stopped.tokens, stopped.finish),
            (5, Some(FinishReason::Stop))
        );
        let mut held = Answer::new(&tokenizer, stops(), &[], None);
        assert_eq!(
            parts(&mut held, &[0, 1]),
            [part("a", &[0]), part("", &[]), part("b", &[1])]
        );
        assert_eq!(held.finish, Some(FinishReason::Length));
    }

    #[test]
    fn a_stop_id_is_counted_and_no_part_of_the_text() {
        let tokenizer = tokenizer();
        let mut answer = Answer::new(&tokenizer, Vec::new(), &[3], None);
        let texts: String = parts(&mut answer, &[0, 3])
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        assert_eq!((texts.as_str(), answer.tokens), ("a", 2));
    }

    #[test]
    fn an_echo_is_the_prompt_in_front_with_its_scores() {
        let tokenizer = tokenizer();
        let ids = [0, 1];
        let mut answer = Answer::new(&tokenizer, Vec::new(), &[], Some(("ab", Some(&ids))));
        let none = answer
            .take(Event::Started { cached_tokens: 0 })
            .expect("a part");
        assert_eq!(none, Part::default());
        let scores = vec![
            vec![],
            vec![TokenLogprob {
                id: 1,
                logprob: -2.0,
            }],
        ];
        let part = answer.take(Event::Prompt(scores)).expect("a part");
        assert_eq!(part.text, "ab");
        let found: Vec<_> = part
            .scored
            .iter()
            .map(|scored| (scored.id, scored.logprob))
            .collect();
        assert_eq!(found, [(0, None), (1, Some(-2.0))]);
        let mut answer = Answer::new(&tokenizer, Vec::new(), &[], Some(("ab", None)));
        let part = answer
            .take(Event::Started { cached_tokens: 0 })
            .expect("a part");
        assert_eq!(part.text, "ab");
    }
}
