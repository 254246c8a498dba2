//! The order of a row's parts: given text, virtual tokens and the learned text.

use std::borrow::Cow;
use std::iter::repeat_n;

use crate::error::Result;
use crate::example::IGNORE_INDEX;
use crate::tokenizer::TextTokenizer;

/// A tokenised prompt, for the model to continue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// Token ids `[seq]`.
    pub input_ids: Vec<u32>,
    /// For each virtual token, the index of the id that follows it, in `0..=seq`, ascending. Virtual
    /// tokens behind the learned text are left out. `None`: all virtual tokens stand in front of the ids.
    pub placement: Option<Vec<usize>>,
}

impl From<Vec<u32>> for Prompt {
    /// Makes a prompt whose virtual tokens, if any, stand in front.
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
        let (input_ids, placement) = concatenate(pieces, &ids, tokenizer);
        // The texts are checked; the BOS is not.
        tokenizer.check_ids(&input_ids)?;
        Ok(Self {
            input_ids,
            placement: Some(placement),
        })
    }
}

/// Returns the prompt of an instruction row, as training uses it where no template says otherwise. Give
/// `generate` the same text.
///
/// The sections are those of Stanford Alpaca's prompt; the wording is this project's own.
pub fn instruction_prompt(instruction: &str, input: Option<&str>) -> String {
    instruction_text(None, &[], instruction, input)
}

/// The prompt of an instruction row with a `system` text, which replaces the first sentence, and with earlier
/// instructions and their answers, which are given and not learned.
pub(crate) fn instruction_text(
    system: Option<&str>,
    history: &[(String, String)],
    instruction: &str,
    input: Option<&str>,
) -> String {
    let input = input.filter(|input| !input.is_empty());
    let opening = match (system, input) {
        (Some(system), _) => system,
        (None, Some(_)) => "A task follows, with the input it is about. Answer it fully.",
        (None, None) => "A task follows. Answer it fully.",
    };
    let mut text = opening.to_owned();
    for (asked, answered) in history {
        text += &format!("\n\n### Instruction:\n{asked}\n\n### Response:\n{answered}");
    }
    text += &format!("\n\n### Instruction:\n{instruction}");
    if let Some(input) = input {
        text += &format!("\n\n### Input:\n{input}");
    }
    text + "\n\n### Response:\n"
}

/// One piece of the part of a row that the model is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A text that is tokenised as a whole.
    Text(Cow<'a, str>),
    /// A number of virtual tokens.
    Virtual(usize),
}

/// A row whose parts are in order and not yet tokenised.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout<'a> {
    /// The pieces before the learned text.
    pub(crate) given: Vec<Piece<'a>>,
    /// The learned text. It is tokenised separately, so that no token contains both given and learned text.
    pub(crate) learned: &'a str,
    /// The number of virtual tokens behind the eos.
    pub(crate) after: usize,
    /// Whether the layout places the virtual tokens. If not, they stand in front.
    pub(crate) is_placed: bool,
}

impl<'a> Layout<'a> {
    /// The layout of a prompt and a learned text without a template.
    pub(crate) fn plain(prompt: Cow<'a, str>, learned: &'a str) -> Self {
        Self {
            given: vec![Piece::Text(prompt)],
            learned,
            after: 0,
            is_placed: false,
        }
    }

    /// The texts to tokenise: the given ones in order, then the learned one.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let given = self.given.iter().filter_map(Piece::text);
        given.chain([self.learned]).collect()
    }

    /// Returns ids with the eos, labels and placement. `texts` are the ids of
    /// [`texts`](Self::texts), in the same order. A learned text that ends with the eos gets no second one, as in TRL.
    pub(crate) fn assemble(
        &self,
        texts: &[&[u32]],
        eos: u32,
        tokenizer: &TextTokenizer,
    ) -> (Vec<u32>, Vec<i64>, Option<Vec<usize>>) {
        let (learned, given) = texts
            .split_last()
            .expect("the learned text is one of the texts");
        let (mut input_ids, mut placement) = concatenate(&self.given, given, tokenizer);
        let mut labels = vec![IGNORE_INDEX; input_ids.len()];
        let end = (learned.last() != Some(&eos)).then_some(eos);
        let learned = learned.iter().copied().chain(end);
        labels.extend(learned.clone().map(i64::from));
        input_ids.extend(learned);
        placement.extend(repeat_n(input_ids.len(), self.after));
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

/// Returns the ids and the placement of `pieces`. `texts` are the ids of their texts, in order. A BOS that the
/// tokenizer adds goes in front of the first text, behind virtual tokens in front of that, as in PEFT.
fn concatenate(
    pieces: &[Piece<'_>],
    texts: &[&[u32]],
    tokenizer: &TextTokenizer,
) -> (Vec<u32>, Vec<usize>) {
    let (mut input_ids, mut placement) = (Vec::new(), Vec::new());
    let mut texts = texts.iter().enumerate();
    for piece in pieces {
        match piece {
            Piece::Text(_) => {
                let (index, ids) = texts.next().expect("every text has its ids");
                if index == 0 {
                    input_ids.extend(tokenizer.start_before(ids));
                }
                input_ids.extend(*ids);
            }
            Piece::Virtual(count) => placement.extend(repeat_n(input_ids.len(), *count)),
        }
    }
    (input_ids, placement)
}
