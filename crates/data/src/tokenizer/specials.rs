//! The special tokens that a tokenizer's post-processor puts around texts.

use tokenizers::{Encoding, Tokenizer};

/// The ids around one text, and around the two of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Specials {
    /// In front of and behind a text.
    pub(crate) single: [Vec<u32>; 2],
    /// In front of, between and behind two texts.
    pub(crate) pair: [Vec<u32>; 3],
    /// Whether the tokenizer puts a space in front of a text by itself, as Llama 2's does.
    pub(crate) prepends_space: bool,
}

impl Specials {
    /// Finds them in the encodings of two short texts. Where a pair cannot be encoded, it is one text.
    pub(super) fn find(tokenizer: &Tokenizer) -> Result<Self, tokenizers::Error> {
        let encode = |text: &str| tokenizer.encode_fast(text, false);
        let (a, b) = (encode("a")?, encode("b")?);
        let first = a
            .get_ids()
            .first()
            .and_then(|id| tokenizer.id_to_token(*id));
        let prepends_space = first.is_some_and(|token| token.starts_with(['▁', 'Ġ']));
        let both = tokenizer.encode_fast("a", true)?;
        let Some([before, after]) = split(both.get_ids(), &a) else {
            return Ok(Self {
                prepends_space,
                ..Self::default()
            });
        };
        let [before, after] = [before.to_vec(), after.to_vec()];
        let pair = tokenizer.encode_fast(("a", "b"), true)?;
        let around = split(pair.get_ids(), &a).and_then(|[front, rest]| {
            let [between, behind] = split(rest, &b)?;
            Some([front, between, behind].map(<[u32]>::to_vec))
        });
        Ok(Self {
            pair: around.unwrap_or_else(|| [before.clone(), Vec::new(), after.clone()]),
            single: [before, after],
            prepends_space,
        })
    }
}

/// What stands in front of the ids of a text and behind them.
fn split<'a>(ids: &'a [u32], text: &Encoding) -> Option<[&'a [u32]; 2]> {
    let text = text.get_ids();
    if text.is_empty() {
        return None;
    }
    let start = ids.windows(text.len()).position(|window| window == text)?;
    Some([&ids[..start], &ids[start + text.len()..]])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::test_support::{EOS, IM_END, IM_START, tokenizer_json};

    fn specials(post_processor: Value) -> Specials {
        let mut json: Value = serde_json::from_str(&tokenizer_json()).expect("JSON");
        json["post_processor"] = post_processor;
        let tokenizer = Tokenizer::from_bytes(json.to_string()).expect("a tokenizer");
        Specials::find(&tokenizer).expect("it encodes")
    }

    #[test]
    fn what_a_template_puts_around_one_text_and_two_is_found() {
        let special = |text: &str| json!({"SpecialToken": {"id": text, "type_id": 0}});
        let token = |text: &str, id: u32| json!({"id": text, "ids": [id], "tokens": [text]});
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let (bos, eos, end) = ("<|im_start|>", "<|endoftext|>", "<|im_end|>");
        let mut processor = json!({
            "type": "TemplateProcessing",
            "single": [special(bos), text("A"), special(eos)],
            "pair": [special(bos), text("A"), special(end), special(bos), text("B"), special(eos)],
            "special_tokens": {bos: token(bos, IM_START), eos: token(eos, EOS), end: token(end, IM_END)},
        });
        let found = specials(processor.clone());
        assert_eq!(found.single, [vec![IM_START], vec![EOS]]);
        assert_eq!(
            found.pair,
            [vec![IM_START], vec![IM_END, IM_START], vec![EOS]]
        );
        // A tokenizer that knows no pairs.
        processor["pair"] = json!([]);
        assert_eq!(
            specials(processor).pair,
            [vec![IM_START], vec![], vec![EOS]]
        );
        assert_eq!(specials(Value::Null), Specials::default());
    }
}
