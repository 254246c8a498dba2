//! A post-processor that puts virtual tokens in front of every text.

use serde_json::{Map, Value, json};

use super::virtual_token;

/// Processors that put nothing around a text.
const ONLY_OFFSETS: &str = "ByteLevel";
const TEMPLATE: &str = "TemplateProcessing";
const SEQUENCE: &str = "Sequence";

/// The post-processor `found` of a tokenizer, with `count` virtual tokens, whose ids begin at `first`, in front of what it
/// puts around a text or a pair of texts.
///
/// # Errors
/// If that cannot be said of it: why, as the end of a sentence.
pub(super) fn with_virtual_tokens(
    found: &Value,
    first: usize,
    count: usize,
) -> Result<Value, String> {
    let mut processors = match found {
        Value::Null => Vec::new(),
        _ if found["type"] == SEQUENCE => {
            found["processors"].as_array().cloned().unwrap_or_default()
        }
        one => vec![one.clone()],
    };
    // Two templates in a sequence are more than the tokenizers library can do, so the one that is there is changed.
    let mut templates = processors.iter_mut().filter(|one| one["type"] == TEMPLATE);
    match (templates.next(), templates.next()) {
        (Some(template), None) => put_in_front(template, first, count)?,
        (None, _) => {
            let mut template = template_of_nothing();
            put_in_front(&mut template, first, count)?;
            processors.push(template);
        }
        (Some(_), Some(_)) => return Err("it has two templates".to_owned()),
    }
    let is_known = |one: &Value| one["type"] == TEMPLATE || one["type"] == ONLY_OFFSETS;
    if let Some(other) = processors.iter().find(|one| !is_known(one)) {
        return Err(format!("nothing is known of the kind {}", other["type"]));
    }
    Ok(match processors.len() {
        1 => processors.remove(0),
        _ => json!({"type": SEQUENCE, "processors": processors}),
    })
}

/// A template that gives texts as they are.
fn template_of_nothing() -> Value {
    let text = |id: &str, type_id: usize| json!({"Sequence": {"id": id, "type_id": type_id}});
    json!({
        "type": TEMPLATE,
        "single": [text("A", 0)],
        "pair": [text("A", 0), text("B", 1)],
        "special_tokens": {},
    })
}

fn put_in_front(template: &mut Value, first: usize, count: usize) -> Result<(), String> {
    let front = (0..count).map(|index| {
        let id = virtual_token(index);
        json!({"SpecialToken": {"id": id, "type_id": 0}})
    });
    for key in ["single", "pair"] {
        let Some(pieces) = template[key].as_array_mut() else {
            return Err(format!("its template has no list `{key}`"));
        };
        // A tokenizer that knows no pairs goes on knowing none.
        if key == "single" || !pieces.is_empty() {
            pieces.splice(0..0, front.clone());
        }
    }
    let special = template["special_tokens"].as_object_mut();
    let special: &mut Map<_, _> = special.ok_or("its template has no `special_tokens`")?;
    for index in 0..count {
        let id = virtual_token(index);
        let token = json!({"id": id, "ids": [first + index], "tokens": [id]});
        special.insert(id, token);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pieces: &Value) -> Vec<&str> {
        let pieces = pieces.as_array().unwrap().iter();
        pieces
            .map(|piece| {
                let kind = ["SpecialToken", "Sequence"].map(|kind| piece[kind]["id"].as_str());
                kind.into_iter().flatten().next().unwrap()
            })
            .collect()
    }

    #[test]
    fn virtual_tokens_come_before_the_bos_and_other_processors_stay() {
        let bytes = json!({"type": "ByteLevel", "trim_offsets": true});
        let mut bos = template_of_nothing();
        bos["single"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({"SpecialToken": {"id": "<s>", "type_id": 0}}));
        bos["special_tokens"]["<s>"] = json!({"id": "<s>", "ids": [1], "tokens": ["<s>"]});
        let sequence = json!({"type": "Sequence", "processors": [bytes, bos]});
        let found = with_virtual_tokens(&sequence, 7, 2).unwrap();
        assert_eq!(found["processors"][0], bytes);
        let template = &found["processors"][1];
        let names = ["<|virtual_0|>", "<|virtual_1|>"];
        assert_eq!(
            ids(&template["single"]),
            [&names[..], &["<s>", "A"]].concat()
        );
        assert_eq!(ids(&template["pair"]), [&names[..], &["A", "B"]].concat());
        assert_eq!(template["special_tokens"][names[1]]["ids"], json!([8]));
        assert_eq!(template["special_tokens"]["<s>"]["ids"], json!([1]));

        let found = with_virtual_tokens(&bytes, 7, 2).unwrap();
        assert_eq!(found["processors"][0], bytes);
        assert_eq!(
            ids(&found["processors"][1]["single"]),
            [&names[..], &["A"]].concat()
        );
        let found = with_virtual_tokens(&Value::Null, 7, 2).unwrap();
        assert_eq!(found["type"], "TemplateProcessing");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let roberta = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]});
        let reason = with_virtual_tokens(&roberta, 7, 2).unwrap_err();
        assert!(reason.contains("RobertaProcessing"), "{reason}");
    }
}
