//! Bounds on what a `tokenizer.json` does to a text.
//!
//! A tokenizer is data, and whoever made the model wrote it. Some of the library's steps fail without end or grow a
//! text without bound on data that no published tokenizer has.

use serde::Deserialize;
use serde_json::Value;

/// How many times longer a text may become. Published normalizers write "▁", of three bytes, for a space.
const MAX_GROWTH: usize = 64;
/// The most bytes that may be put in front of a text.
const MAX_PREFIX: usize = 1024;

/// The steps of a tokenizer. The vocabulary is left out, since it is most of the file.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Refuses what the library does not survive. The reason is what follows the name of the file.
///
/// Whether a step is well-formed is for the library to say.
pub(super) fn check(tokenizer_json: &[u8]) -> Result<(), String> {
    let Ok(steps) = serde_json::from_slice::<Steps>(tokenizer_json) else {
        return Ok(());
    };
    for (part, step) in [
        ("normalizer", &steps.normalizer),
        ("pre_tokenizer", &steps.pre_tokenizer),
        ("decoder", &steps.decoder),
    ] {
        let growth = growth(step).map_err(|reason| format!("its {part} {reason}"))?;
        if growth > MAX_GROWTH {
            return Err(format!(
                "its {part} can make a text {growth} times as long; {MAX_GROWTH} times is the most"
            ));
        }
    }
    Ok(())
}

/// How many times longer a step, or a sequence of steps, makes a text at most.
fn growth(step: &Value) -> Result<usize, String> {
    let size = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, str::len);
    let inner = ["normalizers", "pretokenizers", "decoders"];
    let inner = inner.iter().find_map(|key| step.get(key)?.as_array());
    let mut product = 1_usize;
    for step in inner.into_iter().flatten() {
        product = product.saturating_mul(growth(step)?);
    }
    match step.get("type").and_then(Value::as_str) {
        Some("Replace") => {
            let pattern = step.get("pattern");
            let text = pattern.and_then(|pattern| pattern.get("String")?.as_str());
            if text.is_some_and(str::is_empty) {
                return Err("replaces an empty text, which is everywhere".to_owned());
            }
            // A pattern that is a regular expression matches one byte or more.
            let replaced = text.map_or(1, str::len);
            product = product.saturating_mul(size("content").div_ceil(replaced).max(1));
        }
        Some("Prepend") if size("prepend") > MAX_PREFIX => {
            return Err(format!("puts {} bytes in front of a text", size("prepend")));
        }
        _ => {}
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(normalizer: Value) -> Option<String> {
        check(
            json!({"model": {}, "normalizer": normalizer})
                .to_string()
                .as_bytes(),
        )
        .err()
    }

    #[test]
    fn steps_of_published_tokenizers_are_within_bounds() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        assert_eq!(
            reason(json!({"type": "Sequence", "normalizers": [prepend, replace]})),
            None
        );
        assert_eq!(reason(json!({"type": "NFC"})), None);
        assert_eq!(reason(Value::Null), None);
    }

    #[test]
    fn steps_without_bounds_are_refused() {
        let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let empty = reason(replace(json!({"String": ""}), "a")).expect("it is refused");
        assert!(
            empty.contains("its normalizer replaces an empty text"),
            "{empty}"
        );
        let ten = replace(json!({"Regex": "."}), "aaaaaaaaaa");
        assert_eq!(reason(ten.clone()), None);
        let nested = json!({"type": "Sequence", "normalizers": [ten.clone(), {"type": "Sequence", "normalizers": [ten]}]});
        let nested = reason(nested).expect("it is refused");
        assert!(nested.contains("100 times as long"), "{nested}");
        assert!(reason(json!({"type": "Prepend", "prepend": "a".repeat(2000)})).is_some());
    }
}
