//! A row as a line of pieces: given text, virtual tokens, the learned text.

use std::borrow::Cow;

use crate::error::Result;
use crate::example::IGNORE_INDEX;
use crate::tokenizer::TextTokenizer;

/// What a model is given to continue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// Token ids `[seq]`.
    pub input_ids: Vec<u32>,
    /// For each virtual token the index of the id that it stands in front of, `0..=seq`, ascending.
    /// `None`: all in front. Those behind the learned text are not among them.
    pub placement: Option<Vec<usize>>,
}

impl From<Vec<u32>> for Prompt {
    /// With the virtual tokens, if any, in front.
    fn from(input_ids: Vec<u32>) -> Self {
        Self {
            input_ids,
            placement: None,
        }
    }
}

impl Prompt {
    /// Tokenises pieces that say where the virtual tokens stand.
    pub(crate) fn placed(pieces: &[Piece<'_>], tokenizer: &TextTokenizer) -> Result<Self> {
        let texts = pieces.iter().filter_map(Piece::text);
        let ids = texts
            .map(|text| tokenizer.encode(text))
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let (input_ids, placement) = in_line(pieces, &ids);
        Ok(Self {
            input_ids,
            placement: Some(placement),
        })
    }
}

/// One piece of what a model is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Tokenised as one text.
    Text(Cow<'a, str>),
    /// So many virtual tokens.
    Virtual(usize),
}

/// A row whose parts are in order and not yet tokenised.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout<'a> {
    /// What comes before the learned text.
    pub(crate) given: Vec<Piece<'a>>,
    /// Tokenised apart from what is given, so that no token straddles the two.
    pub(crate) learned: &'a str,
    /// Virtual tokens behind the eos.
    pub(crate) after: usize,
    /// Whether the layout says where the virtual tokens stand. If not, they stand in front.
    pub(crate) is_placed: bool,
}

impl<'a> Layout<'a> {
    /// A prompt and what is learned, where no template says more.
    pub(crate) fn plain(prompt: Cow<'a, str>, learned: &'a str) -> Self {
        Self {
            given: vec![Piece::Text(prompt)],
            learned,
            after: 0,
            is_placed: false,
        }
    }

    /// What is to be tokenised: the given texts, and last the learned one.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let given = self.given.iter().filter_map(Piece::text);
        given.chain([self.learned]).collect()
    }

    /// Ids with the eos, labels and placement, given the ids of [`texts`](Self::texts) in their order.
    pub(crate) fn assemble(
        &self,
        texts: &[&[u32]],
        eos: u32,
    ) -> (Vec<u32>, Vec<i64>, Option<Vec<usize>>) {
        let (learned, given) = texts.split_last().expect("the learned text is one of them");
        let (mut input_ids, mut placement) = in_line(&self.given, given);
        let mut labels = vec![IGNORE_INDEX; input_ids.len()];
        let learned = learned.iter().copied().chain([eos]);
        labels.extend(learned.clone().map(i64::from));
        input_ids.extend(learned);
        placement.extend(std::iter::repeat_n(input_ids.len(), self.after));
        (input_ids, labels, self.is_placed.then_some(placement))
    }
}

impl Piece<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Virtual(_) => None,
        }
    }
}

/// Ids and placement of `pieces`, given the ids of their texts.
fn in_line(pieces: &[Piece<'_>], texts: &[&[u32]]) -> (Vec<u32>, Vec<usize>) {
    let (mut input_ids, mut placement) = (Vec::new(), Vec::new());
    let mut texts = texts.iter();
    for piece in pieces {
        match piece {
            Piece::Text(_) => input_ids.extend(*texts.next().expect("every text has its ids")),
            Piece::Virtual(count) => {
                placement.extend(std::iter::repeat_n(input_ids.len(), *count));
            }
        }
    }
    (input_ids, placement)
}
