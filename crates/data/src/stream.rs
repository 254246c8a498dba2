//! Ids to text while a model generates.

use crate::tokenizer::TextTokenizer;

/// Decodes generated ids one at a time and never returns a part of a character. Special tokens are left out.
///
/// A byte-level token may end inside a UTF-8 character. Its text is held back until the character is
/// complete. The text returned so far is always the decoding of all ids so far without the part held back.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    /// The ids of the last complete text, and all later ids. Some decoders strip the space of the first
    /// token, so a token is decoded together with the one before it.
    window: Vec<u32>,
    /// The number of ids in the window that form the complete text.
    complete: usize,
    /// The number of bytes of the window's text that were returned.
    emitted: usize,
}

impl<'a> StreamDecoder<'a> {
    /// Makes a decoder for one generated text.
    pub fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            complete: 0,
            emitted: 0,
        }
    }

    /// Takes the next id and returns the text that is complete now, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.window.push(id);
        let text = self.text(0)?;
        // An unfinished character is a single U+FFFD at the end. Later ids do not change an earlier U+FFFD.
        let certain = text.strip_suffix('\u{fffd}').unwrap_or(&text);
        let fresh = certain.get(self.emitted..).unwrap_or_default().to_owned();
        self.emitted = self.emitted.max(certain.len());
        if certain.len() == text.len() {
            self.window.drain(..self.complete);
            self.complete = self.window.len();
            self.emitted = self.text(0).map_or(0, |text| text.len());
        }
        (!fresh.is_empty()).then_some(fresh)
    }

    /// Returns the text that is still held back, with U+FFFD for an unfinished character.
    pub fn finish(self) -> Option<String> {
        let rest = self.text(self.emitted)?;
        (!rest.is_empty()).then_some(rest)
    }

    /// The text of the window from byte `from`.
    fn text(&self, from: usize) -> Option<String> {
        // If decoding fails, the window is kept and decoded again with the next id.
        let text = self.tokenizer.decode(&self.window, true).ok()?;
        text.get(from..).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{IM_END, byte_id, tokenizer};

    #[test]
    fn a_character_of_several_tokens_comes_out_whole_and_once() {
        let tokenizer = tokenizer();
        let text = "naïve 日本 🦀!";
        let ids = tokenizer.encode(text).expect("byte-level");
        assert!(
            ids.len() > text.chars().count(),
            "the test needs characters of several tokens"
        );
        let mut decoder = StreamDecoder::new(&tokenizer);
        let mut out = String::new();
        for id in ids {
            let piece = decoder.push(id).unwrap_or_default();
            assert!(!piece.contains('\u{fffd}'), "{piece:?}");
            out += &piece;
        }
        assert_eq!(decoder.finish(), None);
        assert_eq!(out, text);
    }

    #[test]
    fn an_unfinished_character_is_held_back_until_the_end() {
        let tokenizer = tokenizer();
        let mut decoder = StreamDecoder::new(&tokenizer);
        assert_eq!(decoder.push(byte_id(b'a')), Some("a".to_owned()));
        assert_eq!(decoder.push(byte_id(0xe6)), None);
        assert_eq!(decoder.push(byte_id(0x97)), None);
        assert_eq!(decoder.finish(), Some("\u{fffd}".to_owned()));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_block_what_follows() {
        let tokenizer = tokenizer();
        let mut decoder = StreamDecoder::new(&tokenizer);
        let ids = [byte_id(0xff), byte_id(0xff), byte_id(b'b'), byte_id(b'c')];
        let out: String = ids.into_iter().filter_map(|id| decoder.push(id)).collect();
        assert_eq!(out, "\u{fffd}\u{fffd}bc");
    }

    #[test]
    fn special_tokens_are_left_out() {
        let tokenizer = tokenizer();
        let mut decoder = StreamDecoder::new(&tokenizer);
        let ids = [byte_id(b'a'), IM_END, byte_id(b'b')];
        let out: String = ids.into_iter().filter_map(|id| decoder.push(id)).collect();
        assert_eq!(out, "ab");
    }
}
