//! What a tokenizer and the files beside it say, for a program that shows it.

use std::collections::HashMap;

use tokenizers::Tokenizer;

use super::TextTokenizer;
use super::config::{SpecialIds, SpecialToken, SpecialTokens};

/// A special token that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedToken {
    /// Its text.
    pub text: String,
    /// Its id; `None` where the vocabulary does not have it.
    pub id: Option<u32>,
}

/// What a tokenizer and the files beside it say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizerFacts {
    /// The number of ids.
    pub ids: usize,
    /// The largest id.
    pub largest_id: u32,
    /// The tokens whose ids the model's [table](TextTokenizer::for_table) has no row for, by their ids.
    pub outside_table: Vec<(u32, String)>,
    /// The `bos_token` that is named, whether or not the tokenizer puts it in front of texts.
    pub bos: Option<NamedToken>,
    /// Whether the tokenizer puts a token in front of every text.
    pub adds_bos: bool,
    /// The token with which a text ends.
    pub eos: Option<NamedToken>,
    /// The `pad_token` that is named.
    pub pad: Option<NamedToken>,
    /// For each file that names ends of texts: its name, and the ids.
    pub ends: Vec<(&'static str, Vec<u32>)>,
    /// The token with which the chat template ends a turn of the assistant.
    pub end_of_turn: Option<NamedToken>,
    /// Whether there is a chat template.
    pub has_chat_template: bool,
}

/// A token of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Its id.
    pub id: u32,
    /// Its text; of the vocabulary, in the characters that stand for bytes.
    pub text: String,
    /// Where it comes from.
    pub kind: TokenKind,
    /// Whether it takes white space beside it with it, or must stand alone as a word.
    pub looks_around: bool,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The vocabulary: found by merges.
    Vocabulary,
    /// Beside the vocabulary: found in a text as it is.
    Added,
    /// Beside the vocabulary, and special: not a part of what a text says.
    Special,
}

/// What the files name, kept beside the tokenizer.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    bos: Option<NamedToken>,
    pad: Option<NamedToken>,
    pub(super) ends: Vec<(&'static str, Vec<u32>)>,
}

/// What each file names as the end of a text: a text, or ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    texts: Vec<(&'static str, String)>,
    ids: Vec<(&'static str, Vec<u32>)>,
}

impl Ends {
    /// `models` are `config.json` and `generation_config.json`, where they can be read.
    pub(super) fn of(
        config: &SpecialTokens,
        map: &SpecialTokens,
        models: &[Option<SpecialIds>; 2],
    ) -> Self {
        let texts = [
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
        ];
        let ids = ["config.json", "generation_config.json"]
            .into_iter()
            .zip(models);
        Self {
            texts: texts
                .into_iter()
                .filter_map(|(file, tokens)| {
                    Some((file, tokens.eos_token.as_ref()?.text().to_owned()))
                })
                .collect(),
            ids: ids
                .filter_map(|(file, ids)| Some((file, ids.as_ref()?.ends().to_vec())))
                .filter(|(_, ids)| !ids.is_empty())
                .collect(),
        }
    }

    /// As ids, without what the vocabulary does not have.
    pub(super) fn ids(self, tokenizer: &Tokenizer) -> Vec<(&'static str, Vec<u32>)> {
        let id = |(file, text): (_, String)| Some((file, vec![tokenizer.token_to_id(&text)?]));
        let texts = self.texts.into_iter().filter_map(id);
        texts.chain(self.ids).collect()
    }
}

impl Named {
    pub(super) fn new(
        special: &SpecialTokens,
        tokenizer: &Tokenizer,
        ends: Vec<(&'static str, Vec<u32>)>,
    ) -> Self {
        let named = |token: &Option<SpecialToken>| {
            let text = token.as_ref()?.text().to_owned();
            let id = tokenizer.token_to_id(&text);
            Some(NamedToken { text, id })
        };
        Self {
            bos: named(&special.bos_token),
            pad: named(&special.pad_token),
            ends,
        }
    }
}

impl TextTokenizer {
    /// What the tokenizer and the files beside it say.
    pub fn facts(&self) -> TokenizerFacts {
        let ids: HashMap<String, u32> = self.tokenizer.get_vocab(true);
        let rows = self.table_rows.unwrap_or(usize::MAX);
        let outside = ids.iter().filter(|(_, id)| **id as usize >= rows);
        let mut outside: Vec<_> = outside.map(|(text, id)| (*id, text.clone())).collect();
        outside.sort();
        let with_id = |id: u32| NamedToken {
            text: self.tokenizer.id_to_token(id).unwrap_or_default(),
            id: Some(id),
        };
        TokenizerFacts {
            ids: ids.len(),
            largest_id: ids.values().copied().max().unwrap_or_default(),
            outside_table: outside,
            bos: self.named.bos.clone(),
            adds_bos: !self.start_ids().is_empty(),
            eos: self.eos_id.map(with_id),
            pad: self.named.pad.clone(),
            ends: self.named.ends.clone(),
            end_of_turn: self.end_of_turn_id().map(with_id),
            has_chat_template: self.chat.is_some(),
        }
    }

    /// All tokens, by their ids.
    pub fn entries(&self) -> Vec<TokenEntry> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let entry = |(text, id): (String, u32)| {
            let added = added.get(&id);
            TokenEntry {
                id,
                text,
                kind: match added {
                    None => TokenKind::Vocabulary,
                    Some(token) if token.special => TokenKind::Special,
                    Some(_) => TokenKind::Added,
                },
                looks_around: added
                    .is_some_and(|token| token.lstrip || token.rstrip || token.single_word),
            }
        };
        let mut entries: Vec<_> = self
            .tokenizer
            .get_vocab(true)
            .into_iter()
            .map(entry)
            .collect();
        entries.sort_by_key(|entry| entry.id);
        entries
    }

    /// The text of one token: what it decodes to, or, where it is a part of a character, its own name in the
    /// vocabulary.
    pub fn piece(&self, id: u32) -> String {
        match self.decode(&[id], false) {
            Ok(text) if !text.is_empty() && !text.contains('\u{fffd}') => text,
            _ => self.tokenizer.id_to_token(id).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenKind;
    use crate::test_support::{EOS, IM_END, tokenizer};

    #[test]
    fn every_token_is_an_entry_once_and_says_where_it_comes_from() {
        let entries = tokenizer().entries();
        assert!(entries.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert_eq!(entries.len(), tokenizer().facts().ids);
        let of = |id: u32| entries.iter().find(|entry| entry.id == id).unwrap();
        assert_eq!(
            (of(EOS).kind, of(0).kind),
            (TokenKind::Special, TokenKind::Vocabulary)
        );
        assert!(!of(EOS).looks_around);
    }

    #[test]
    fn tokens_that_the_table_has_no_row_for_are_found() {
        let largest = tokenizer().facts().largest_id;
        assert_eq!(tokenizer().facts().outside_table, []);
        let fits = tokenizer().for_table(largest as usize + 1).facts();
        assert_eq!(fits.outside_table, []);
        let facts = tokenizer().for_table(largest as usize).facts();
        let outside: Vec<u32> = facts.outside_table.iter().map(|(id, _)| *id).collect();
        assert_eq!(outside, [largest]);
    }

    #[test]
    fn the_ends_of_texts_and_of_turns_are_named() {
        let facts = tokenizer().facts();
        assert!(facts.has_chat_template);
        let id = |token: Option<super::NamedToken>| token.and_then(|token| token.id);
        assert_eq!(id(facts.eos), Some(EOS));
        assert_eq!(id(facts.end_of_turn), Some(IM_END));
        assert_eq!(facts.ends, [("tokenizer_config.json", vec![EOS])]);
    }

    #[test]
    fn a_token_that_is_part_of_a_character_has_the_name_of_the_vocabulary() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("日a").unwrap();
        let pieces: Vec<String> = ids.iter().map(|id| tokenizer.piece(*id)).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
        assert_eq!(pieces.last().unwrap(), "a");
    }
}
