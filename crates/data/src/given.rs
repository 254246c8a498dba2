//! What a model is given of a row to classify: texts that can be cut, special tokens and virtual tokens.

use std::borrow::Cow;
use std::iter::repeat_n;
use std::ops::Range;

use tokenizers::Encoding;

use crate::tokenizer::TextTokenizer;

/// The parts of a row to classify, in order and not yet tokenised.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) parts: Vec<GivenPart<'a>>,
    /// The number of virtual tokens behind the words of the label.
    pub(crate) after: usize,
    /// Whether the parts place the virtual tokens. If not, they stand in front.
    pub(crate) is_placed: bool,
}

#[derive(Debug)]
pub(crate) enum GivenPart<'a> {
    /// A text that is tokenised as a whole, and the bytes of it that are fields of the row, which can be cut.
    Text {
        text: Cow<'a, str>,
        fields: Vec<Range<usize>>,
    },
    /// Special tokens.
    Ids(&'a [u32]),
    /// Special tokens in front of the first text, if this does not begin with them.
    Start(&'a [u32]),
    /// A number of virtual tokens.
    Virtual(usize),
}

/// A row to classify, tokenised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenIds {
    pub(crate) input_ids: Vec<u32>,
    pub(crate) placement: Option<Vec<usize>>,
    pub(crate) is_cut: bool,
    /// The number of ids of fields that are left.
    pub(crate) of_fields: usize,
}

impl<'a> Given<'a> {
    /// No parts yet.
    pub(crate) fn new(is_placed: bool) -> Self {
        Self {
            parts: Vec::new(),
            after: 0,
            is_placed,
        }
    }

    /// Puts a text at the end, as a part of the text in front of it, if there is one.
    pub(crate) fn push(&mut self, text: &'a str, is_field: bool) {
        if !matches!(self.parts.last(), Some(GivenPart::Text { .. })) {
            self.parts.push(GivenPart::Text {
                text: Cow::Borrowed(""),
                fields: Vec::new(),
            });
        }
        if let Some(GivenPart::Text { text: all, fields }) = self.parts.last_mut() {
            let start = all.len();
            match start {
                0 => *all = Cow::Borrowed(text),
                _ => all.to_mut().push_str(text),
            }
            fields.extend(is_field.then(|| start..all.len()));
        }
    }

    /// A text, or two, as the tokenizer encodes them by itself, for a head.
    pub(crate) fn encoded(
        text: &'a str,
        text_pair: Option<&'a str>,
        tokenizer: &'a TextTokenizer,
    ) -> Self {
        let specials = tokenizer.specials();
        let parts = match text_pair {
            None => {
                let [before, after] = &specials.single;
                vec![
                    GivenPart::Ids(before),
                    GivenPart::field(text),
                    GivenPart::Ids(after),
                ]
            }
            Some(text_pair) => {
                let [before, between, after] = &specials.pair;
                vec![
                    GivenPart::Ids(before),
                    GivenPart::field(text),
                    GivenPart::Ids(between),
                    GivenPart::field(text_pair),
                    GivenPart::Ids(after),
                ]
            }
        };
        Self {
            parts,
            after: 0,
            is_placed: false,
        }
    }

    /// A text, or two with a line break between them, that a language model is to go on from.
    pub(crate) fn prompt(
        text: &'a str,
        text_pair: Option<&'a str>,
        tokenizer: &'a TextTokenizer,
    ) -> Self {
        let text = match text_pair {
            None => GivenPart::field(text),
            Some(pair) => {
                let second = text.len() + 1;
                let all = format!("{text}\n{pair}");
                GivenPart::Text {
                    fields: vec![0..text.len(), second..all.len()],
                    text: Cow::Owned(all),
                }
            }
        };
        Self {
            parts: vec![GivenPart::Start(tokenizer.start_ids()), text],
            after: 0,
            is_placed: false,
        }
    }

    /// The texts to tokenise, in order.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.parts.iter().filter_map(GivenPart::text).collect()
    }

    /// Puts the ids of [`texts`](Self::texts) in order, with fields cut so that no more than `room` ids are left if
    /// that is possible. The longest field is cut first, from its end.
    pub(crate) fn assemble(&self, encodings: &[Encoding], room: usize) -> GivenIds {
        let starts_with = |ids: &[u32]| {
            let first = encodings.first();
            first.is_some_and(|first| first.get_ids().starts_with(ids))
        };
        let mut cuts = Cuts::default();
        let mut texts = encodings.iter();
        for part in &self.parts {
            match part {
                GivenPart::Start(ids) if starts_with(ids) => {}
                GivenPart::Ids(ids) | GivenPart::Start(ids) => cuts.fixed += ids.len(),
                GivenPart::Virtual(_) => {}
                GivenPart::Text { text, fields } => {
                    let encoding = texts.next().expect("every text has its encoding");
                    cuts.add(text, fields, encoding);
                }
            }
        }
        let kept = cuts.kept(room);
        let of_fields = kept.iter().sum();
        let mut kept = kept.into_iter();
        let is_cut = cuts.fixed + cuts.lengths.iter().sum::<usize>() > room;
        let (mut input_ids, mut placement) = (Vec::new(), Vec::new());
        let (mut texts, mut ranges) = (encodings.iter(), cuts.ranges.iter());
        for part in &self.parts {
            match part {
                GivenPart::Start(ids) if starts_with(ids) => {}
                GivenPart::Ids(ids) | GivenPart::Start(ids) => input_ids.extend(*ids),
                GivenPart::Virtual(count) => placement.extend(repeat_n(input_ids.len(), *count)),
                GivenPart::Text { .. } => {
                    let (Some(encoding), Some(ranges)) = (texts.next(), ranges.next()) else {
                        unreachable!("every text has its encoding")
                    };
                    let ids = encoding.get_ids();
                    let mut next = 0;
                    for range in ranges {
                        let kept = kept.next().expect("every range has a length");
                        input_ids.extend(&ids[next..range.start + kept]);
                        next = range.end;
                    }
                    input_ids.extend(&ids[next..]);
                }
            }
        }
        GivenIds {
            input_ids,
            placement: self.is_placed.then_some(placement),
            is_cut,
            of_fields,
        }
    }
}

impl<'a> Given<'a> {
    /// Puts `start` in front of the first text, behind virtual tokens in front of that, as in PEFT.
    pub(crate) fn starting_with(mut self, start: &'a [u32]) -> Self {
        let is_text = |part: &GivenPart<'_>| matches!(part, GivenPart::Text { .. });
        let first = self.parts.iter().position(is_text);
        self.parts
            .insert(first.unwrap_or(self.parts.len()), GivenPart::Start(start));
        self
    }
}

impl<'a> GivenPart<'a> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text, .. } => Some(text),
            Self::Ids(_) | Self::Start(_) | Self::Virtual(_) => None,
        }
    }

    /// A text that is a field.
    fn field(text: &'a str) -> Self {
        let all = 0..text.len();
        Self::Text {
            text: Cow::Borrowed(text),
            fields: vec![all],
        }
    }
}

/// The tokens of the fields, which can be cut.
#[derive(Default)]
struct Cuts {
    /// The number of other tokens.
    fixed: usize,
    /// For each text, the tokens that are of its fields.
    ranges: Vec<Vec<Range<usize>>>,
    /// The lengths of all ranges.
    lengths: Vec<usize>,
}

impl Cuts {
    fn add(&mut self, text: &str, fields: &[Range<usize>], encoding: &Encoding) {
        let offsets = encoding.get_offsets();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(fields.len());
        for field in fields {
            // A token of which a part stands outside of the field is not of the field.
            let is_inside = |(start, end): &(usize, usize)| {
                start < end && field.start <= *start && *end <= field.end
            };
            let before = ranges.last().map_or(0, |range| range.end);
            ranges.push(match offsets.iter().position(is_inside) {
                _ if *field == (0..text.len()) => 0..offsets.len(),
                Some(first) => {
                    let last = offsets.iter().rposition(is_inside).unwrap_or(first);
                    first.max(before)..(last + 1).max(before)
                }
                None => before..before,
            });
        }
        let cuttable = ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
        self.fixed += offsets.len() - cuttable;
        self.lengths
            .extend(ranges.iter().map(ExactSizeIterator::len));
        self.ranges.push(ranges);
    }

    /// How many tokens of each range are kept: as transformers' `longest_first`, the longest are cut to one length,
    /// and what is left over goes to the longer ones, of equals to the later.
    fn kept(&self, room: usize) -> Vec<usize> {
        let room = room.saturating_sub(self.fixed);
        let mut kept = self.lengths.clone();
        if kept.iter().sum::<usize>() <= room {
            return kept;
        }
        let mut by_length: Vec<usize> = (0..kept.len()).collect();
        by_length.sort_by_key(|&index| (self.lengths[index], index));
        let mut left = room;
        for (done, &index) in by_length.iter().enumerate() {
            kept[index] = self.lengths[index].min(left / (by_length.len() - done));
            left -= kept[index];
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lengths: &[usize], room: usize) -> Vec<usize> {
        let cuts = Cuts {
            lengths: lengths.to_vec(),
            ..Cuts::default()
        };
        cuts.kept(room)
    }

    /// What transformers' tokenizers give for two texts.
    #[test]
    fn the_longest_text_is_cut_first() {
        for (lengths, room, expected) in [
            ([3, 4], 7, [3, 4]),
            ([3, 9], 7, [3, 4]),
            ([9, 3], 7, [4, 3]),
            ([9, 9], 7, [3, 4]),
            ([9, 8], 7, [4, 3]),
            ([8, 9], 6, [3, 3]),
            ([1, 9], 0, [0, 0]),
            ([9, 0], 4, [4, 0]),
        ] {
            assert_eq!(kept(&lengths, room), expected, "{lengths:?} in {room}");
        }
        assert_eq!(kept(&[9, 1, 8], 8), [4, 1, 3]);
    }
}
