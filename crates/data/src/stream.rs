//! Ids to text, one id at a time.

use crate::tokenizer::TextTokenizer;

/// Turns generated ids into text as they arrive, and never emits half a character.
///
/// A byte-level token may end inside a UTF-8 character; its text is held back until the character is
/// complete. What has been emitted is always the decoding of all ids so far, less what is held back.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a TextTokenizer,
    skip_special: bool,
    /// The ids of the last complete stretch and all after it. Some decoders strip the space of the
    /// first token, so a token is decoded with the one before it.
    window: Vec<u32>,
    /// How many ids of the window are the complete stretch.
    complete: usize,
    /// How many bytes of the window's text are emitted.
    emitted: usize,
}

impl<'a> StreamDecoder<'a> {
    pub(crate) fn new(tokenizer: &'a TextTokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            window: Vec::new(),
            complete: 0,
            emitted: 0,
        }
    }

    /// Takes the next id, and returns the text that is now certain, if there is any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.window.push(id);
        let text = self.text(0)?;
        // An unfinished character is one U+FFFD at the end. One before it is a byte that no later id can mend.
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

    /// Ends the stream: what was held back, with U+FFFD for a character that never was completed.
    pub fn finish(self) -> Option<String> {
        let rest = self.text(self.emitted)?;
        (!rest.is_empty()).then_some(rest)
    }

    fn text(&self, from: usize) -> Option<String> {
        // Decoding fails for no id; were it to, the window is kept and tried again with the next one.
        let text = self
            .tokenizer
            .decode(&self.window, self.skip_special)
            .ok()?;
        text.get(from..).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
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
        let mut decoder = tokenizer.stream_decoder(true);
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
        let mut decoder = tokenizer.stream_decoder(true);
        assert_eq!(decoder.push(byte_id(b'a')), Some("a".to_owned()));
        assert_eq!(decoder.push(byte_id(0xe6)), None);
        assert_eq!(decoder.push(byte_id(0x97)), None);
        assert_eq!(decoder.finish(), Some("\u{fffd}".to_owned()));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_block_what_follows() {
        let tokenizer = tokenizer();
        let mut decoder = tokenizer.stream_decoder(true);
        let ids = [byte_id(0xff), byte_id(0xff), byte_id(b'b'), byte_id(b'c')];
        let out: String = ids.into_iter().filter_map(|id| decoder.push(id)).collect();
        assert_eq!(out, "\u{fffd}\u{fffd}bc");
    }

    #[test]
    fn special_tokens_are_shown_only_when_asked_for() {
        let tokenizer = tokenizer();
        for (skip_special, expected) in [(true, "ab"), (false, "a<|im_end|>b")] {
            let mut decoder = tokenizer.stream_decoder(skip_special);
            let ids = [byte_id(b'a'), IM_END, byte_id(b'b')];
            let out: String = ids.into_iter().filter_map(|id| decoder.push(id)).collect();
            assert_eq!(out, expected);
        }
    }
}
