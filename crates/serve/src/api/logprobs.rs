//! Log-probabilities as the two endpoints write them.

use burn_peft_data::TextTokenizer;
use serde_json::{Map, Value, json};

use crate::text::Scored;

/// Texts of an answer's tokens.
#[derive(Debug)]
pub(crate) struct TokenTexts<'a> {
    tokenizer: &'a TextTokenizer,
    /// Characters of the tokens so far.
    offset: usize,
}

impl<'a> TokenTexts<'a> {
    pub(crate) fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self {
            tokenizer,
            offset: 0,
        }
    }

    /// The text of one token; its id where it is a part of a character.
    fn text(&self, id: u32) -> String {
        match self.tokenizer.decode(&[id], false) {
            Ok(text) if !text.contains('\u{fffd}') => text,
            _ => format!("token_id:{id}"),
        }
    }

    /// `logprobs` of a chat completion.
    pub(crate) fn chat(&self, scored: &[Scored]) -> Value {
        let one = |id: u32, logprob: Option<f32>| {
            let token = self.text(id);
            let is_part = token == format!("token_id:{id}");
            json!({
                "bytes": (!is_part).then(|| token.as_bytes().to_vec()),
                "logprob": logprob.map(finite),
                "token": token,
            })
        };
        let content = scored.iter().map(|scored| {
            let mut value = one(scored.id, scored.logprob);
            let likeliest = scored.likeliest.iter();
            value["top_logprobs"] = likeliest
                .map(|other| one(other.id, Some(other.logprob)))
                .collect();
            value
        });
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }

    /// `logprobs` of a completion: lists with an entry a token.
    pub(crate) fn completion(&mut self, scored: &[Scored]) -> Value {
        let (mut tokens, mut own, mut likeliest, mut offsets) = (vec![], vec![], vec![], vec![]);
        for scored in scored {
            let text = self.text(scored.id);
            offsets.push(self.offset);
            self.offset += text.chars().count();
            own.push(scored.logprob.map(finite));
            likeliest.push(scored.logprob.map(|logprob| {
                // The token itself is always among them, as with OpenAI.
                let others = scored.likeliest.iter();
                let others =
                    others.map(|other| (self.text(other.id), finite(other.logprob).into()));
                let mut found: Map<String, Value> = others.collect();
                found.insert(text.clone(), finite(logprob).into());
                found
            }));
            tokens.push(text);
        }
        json!({
            "tokens": tokens,
            "token_logprobs": own,
            "top_logprobs": likeliest,
            "text_offset": offsets,
        })
    }
}

/// JSON has no infinity. OpenAI writes this number for what is nearly impossible.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}
