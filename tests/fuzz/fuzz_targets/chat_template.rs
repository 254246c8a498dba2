//! Chat templates, which models bring along: a small program that must end.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use burn_peft_data::{Message, Rows, TextTokenizer, TokenizeOptions, parse_rows, tokenize_rows};
use burn_peft_fuzz::model;
use libfuzzer_sys::fuzz_target;

static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    ["tokenizer.json", "tokenizer_config.json"].map(|name| fs::read(model(name)).expect(name))
});
static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    let rows = r#"{"messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}, {"role": "user", "content": "on"}, {"role": "assistant", "content": "mat"}]}"#;
    parse_rows("chat.jsonl", rows).expect("good rows")
});

fuzz_target!(|data: &[u8]| {
    let Ok(template) = std::str::from_utf8(data) else {
        return;
    };
    let [tokenizer, config] = &*FILES;
    let Ok(tokenizer) = TextTokenizer::from_bytes(tokenizer, config, Some(template)) else {
        return;
    };
    let _ = tokenizer.end_of_turn_id();
    let _ = tokenizer.render_chat(&[Message::new("user", "hi")], true);
    let _ = tokenize_rows(
        &ROWS,
        &tokenizer,
        TokenizeOptions::default(),
        &mut |_, _| {},
    );
});
