//! The YAML in front of a model card, as the hub reads it.

use super::{Base, head_of, one_line};
use crate::folder::AdapterFolder;

/// The front matter. It names a base that the hub can have, and no licence: that is the author's to choose.
pub(super) fn of(folder: &AdapterFolder, base: Base<'_>) -> String {
    let mut text = String::from("---\n");
    if let Base::Hub(base) = base {
        text += &format!("base_model: {}\n", scalar(base));
    }
    let pipeline = head_of(folder).map_or("text-generation", |head| head.pipeline);
    text += &format!("library_name: peft\npipeline_tag: {pipeline}\ntags:\n");
    if let Base::Hub(base) = base {
        text += &format!("- {}\n", scalar(&format!("base_model:adapter:{base}")));
    }
    let method = folder.method_name();
    text + &format!("- burn\n- {}\n- transformers\n---\n", scalar(method))
}

/// A YAML scalar: plain where that is safe, else quoted as JSON is, which YAML reads.
fn scalar(value: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
    let is_word = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().all(safe)
        && !value.ends_with(':');
    // Words that YAML takes for something else are shorter.
    match is_word && value.len() > 5 {
        true => value.into(),
        false => serde_json::Value::from(one_line(value)).to_string(),
    }
}
