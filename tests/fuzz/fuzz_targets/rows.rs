//! Data rows, of whatever format the first one is, through the tokenizer.
#![no_main]

use std::sync::LazyLock;

use burn_peft_data::{Template, TextTokenizer, TokenizeOptions, parse_rows, tokenize_rows};
use burn_peft_fuzz::model;
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    let file = model("config.json");
    TextTokenizer::load(file.parent().expect("a folder")).expect("the fixture's tokenizer")
});
static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    Template::parse("{prompt:2} {input}{prompt:1}{completion}").expect("a template")
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(rows) = parse_rows("rows.jsonl", text) else {
        return;
    };
    for template in [None, Some(&*TEMPLATE)] {
        let options = TokenizeOptions {
            max_length: Some(32),
            template,
            ..TokenizeOptions::default()
        };
        let Ok(found) = tokenize_rows(&rows, &TOKENIZER, options, &mut |_, _| {}) else {
            continue;
        };
        for example in found.examples {
            assert_eq!(example.input_ids.len(), example.labels.len());
            assert!(example.len() <= 32);
            let mut labels = example.labels.iter().zip(&example.input_ids);
            assert!(labels.all(|(label, id)| {
                *label == -100
                    || *label == i64::from(*id)
                    || rows
                        .rows()
                        .iter()
                        .any(|(_, row)| matches!(row, burn_peft_data::Row::Tokenized { .. }))
            }));
        }
    }
});
