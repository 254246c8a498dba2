//! llama.cpp's name for how a tokenizer cuts a text before it merges.
//!
//! llama.cpp has the rules in itself, under names, and its converter finds the name by a hash of what the tokenizer makes of
//! one text. Here `tokenizer.json` says what the rules are.

use serde_json::Value;

/// Qwen2, Qwen2.5, Qwen3: digits one by one.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Llama 3: digits by threes.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One step of a pre-tokenizer.
#[derive(Debug, Clone, PartialEq)]
enum Step<'a> {
    /// Cuts out what a pattern finds, and keeps it.
    Split(&'a str),
    /// Every digit by itself.
    Digits,
    /// Bytes as characters, after GPT-2's own pattern.
    Gpt2Bytes,
    /// Bytes as characters.
    Bytes,
}

/// The name for a `tokenizer.json`.
///
/// # Errors
/// What of it llama.cpp does not do.
pub(super) fn name(tokenizer: &Value) -> Result<&'static str, String> {
    check_normalizer(&tokenizer["normalizer"])?;
    let model = &tokenizer["model"];
    check_model(model)?;
    let pre_tokenizer = &tokenizer["pre_tokenizer"];
    let steps = steps(pre_tokenizer);
    let ignore_merges = model["ignore_merges"] == true;
    let name = match (steps.as_deref(), ignore_merges) {
        (Some([Step::Split(QWEN2), Step::Bytes]), false) => "qwen2",
        (Some([Step::Split(LLAMA3), Step::Bytes]), true) => "llama-bpe",
        (Some([Step::Digits, Step::Gpt2Bytes]), false) => "smollm",
        (Some([Step::Gpt2Bytes]), false) => "gpt-2",
        (Some(_), true) => return Err("it takes whole words before merges".to_owned()),
        _ => return Err(format!("its pre-tokenizer is {pre_tokenizer}")),
    };
    Ok(name)
}

/// The steps, if all of them are known.
fn steps(pre_tokenizer: &Value) -> Option<Vec<Step<'_>>> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let parts = pre_tokenizer["pretokenizers"].as_array()?;
            let parts: Option<Vec<_>> = parts.iter().map(steps).collect();
            Some(parts?.concat())
        }
        "Split" => {
            // The patterns find every character, so that it is the same to keep what they find or to drop the rest.
            let kept = [("Isolated", false), ("Removed", true)];
            let is_kept = |(behavior, invert): &(&str, bool)| {
                pre_tokenizer["behavior"] == **behavior && pre_tokenizer["invert"] == *invert
            };
            let pattern = pre_tokenizer["pattern"]["Regex"].as_str()?;
            kept.iter().any(is_kept).then(|| vec![Step::Split(pattern)])
        }
        "Digits" => (pre_tokenizer["individual_digits"] == true).then(|| vec![Step::Digits]),
        "ByteLevel" => {
            // Older files leave it out, and mean it.
            let with_pattern = pre_tokenizer["use_regex"] != false;
            let bytes = if with_pattern {
                Step::Gpt2Bytes
            } else {
                Step::Bytes
            };
            (pre_tokenizer["add_prefix_space"] == false).then(|| vec![bytes])
        }
        _ => None,
    }
}

/// llama.cpp normalises nothing. What NFC changes is rare, and its Qwen2 leaves it out too.
fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    match normalizer["type"].as_str() {
        None | Some("NFC") => Ok(()),
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array();
            parts.into_iter().flatten().try_for_each(check_normalizer)
        }
        Some(other) => Err(format!("its normalizer is {other}")),
    }
}

/// Refuses other models than byte-level BPE.
fn check_model(model: &Value) -> Result<(), String> {
    let kind = model["type"].as_str().unwrap_or("BPE");
    if kind != "BPE" || !model["merges"].is_array() {
        return Err(format!("its model is {kind}, and not byte-level BPE"));
    }
    if model["byte_fallback"] == true {
        return Err("its merges are of characters, with bytes for the others".to_owned());
    }
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        let value = &model[key];
        if !value.is_null() && value != "" && value.as_f64() != Some(0.0) {
            return Err(format!("it has a `{key}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokenizer(pre_tokenizers: Value, ignore_merges: bool) -> Value {
        json!({
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
            "model": {"type": "BPE", "dropout": null, "end_of_word_suffix": "", "merges": [], "ignore_merges": ignore_merges},
        })
    }

    fn split(pattern: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
    }

    fn bytes(use_regex: bool) -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
    }

    #[test]
    fn a_name_is_found_by_what_is_done() {
        let digits = json!({"type": "Digits", "individual_digits": true});
        for (steps, ignore_merges, expected) in [
            (json!([split(QWEN2), bytes(false)]), false, "qwen2"),
            (json!([split(LLAMA3), bytes(false)]), true, "llama-bpe"),
            (json!([digits, bytes(true)]), false, "smollm"),
            (json!([bytes(true)]), false, "gpt-2"),
        ] {
            assert_eq!(name(&tokenizer(steps, ignore_merges)), Ok(expected));
        }
    }

    #[test]
    fn what_llama_cpp_does_otherwise_has_no_name() {
        let prefixed = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
        let merged = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "MergedWithNext", "invert": false});
        for (steps, ignore_merges) in [
            (json!([split(r"\s+"), bytes(false)]), false),
            (json!([merged, bytes(false)]), false),
            (json!([split(QWEN2), bytes(true)]), false),
            (json!([split(QWEN2), bytes(false)]), true),
            (json!([split(LLAMA3), bytes(false)]), false),
            (json!([prefixed]), false),
            (json!([{"type": "Metaspace"}]), false),
        ] {
            let tokenizer = tokenizer(steps, ignore_merges);
            assert!(name(&tokenizer).is_err(), "{tokenizer}");
        }
        let good = tokenizer(json!([bytes(true)]), false);
        for (key, value, named) in [
            ("normalizer", json!({"type": "Lowercase"}), "Lowercase"),
            ("model", json!({"type": "Unigram"}), "Unigram"),
            (
                "model",
                json!({"type": "BPE", "merges": [], "byte_fallback": true}),
                "bytes",
            ),
            (
                "model",
                json!({"type": "BPE", "merges": [], "dropout": 0.1}),
                "dropout",
            ),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(name(&bad).unwrap_err().contains(named));
        }
    }
}
