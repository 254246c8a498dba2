//! A byte-level tokenizer and a chat template that stand in for Qwen2's in this crate's tests.

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::{AddedToken, Tokenizer};

use crate::example::{Example, Parts};
use crate::tokenizer::TextTokenizer;

pub(crate) const EOS: u32 = 258;
pub(crate) const IM_START: u32 = 259;
pub(crate) const IM_END: u32 = 260;

pub(crate) const CONFIG: &str =
    r#"{"eos_token":"<|endoftext|>","pad_token":{"content":"<|endoftext|>"}}"#;

/// A template with the features that Qwen2.5-Instruct's uses: tools, a namespace, a look at the previous
/// message, string methods and an exception.
pub(crate) const CHAT_TEMPLATE: &str = r#"
{%- set state = namespace(answers=0) %}
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- elif messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\nBe brief.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role in ['system', 'user'] or (message.role == 'assistant' and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content.strip() + '<|im_end|>' + '\n' }}
        {%- if message.role.startswith('assist') %}
            {%- set state.answers = state.answers + 1 %}
        {%- endif %}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- raise_exception('unknown role ' ~ message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

/// Returns the character that byte-level BPE writes for a byte: the byte itself if it is printable, or else a
/// character from U+0100 on.
fn byte_character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + rank).expect("far below the surrogates")
}

/// Returns the id of a byte in the tokenizer of the tests.
pub(crate) fn byte_id(byte: u8) -> u32 {
    u32::from(byte)
}

/// Makes the `tokenizer.json` of the tests: ids 0–255 are the bytes, 256 and 257 the merges `he` and `hel`, and
/// three special tokens follow.
pub(crate) fn tokenizer_json() -> String {
    let mut vocab: Vocab = (0..=255)
        .map(|byte| (byte_character(byte).to_string(), byte_id(byte)))
        .collect();
    vocab.insert("he".to_owned(), 256);
    vocab.insert("hel".to_owned(), 257);
    let merges = vec![
        ("h".to_owned(), "e".to_owned()),
        ("he".to_owned(), "l".to_owned()),
    ];
    let mut tokenizer = Tokenizer::new(BPE::new(vocab, merges));
    tokenizer.with_normalizer(Some(NFC));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    // This trims white space from the offsets, which must not move the edges of an assistant turn.
    tokenizer.with_post_processor(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.add_special_tokens(
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(|text| AddedToken::from(text, true)),
    );
    tokenizer.to_string(false).expect("a tokenizer is JSON")
}

pub(crate) fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_bytes(
        tokenizer_json().as_bytes(),
        CONFIG.as_bytes(),
        Some(CHAT_TEMPLATE),
    )
    .expect("the tests' tokenizer is good")
}

/// Makes one example of each given length. Its ids are `100 · its number + position`.
pub(crate) fn examples(lengths: &[usize]) -> Vec<Example> {
    let example = |(index, &length): (usize, &usize)| {
        let input_ids: Vec<u32> = (0..length as u32)
            .map(|position| 100 * index as u32 + position)
            .collect();
        let labels = input_ids.iter().map(|&id| i64::from(id)).collect();
        Example {
            input_ids,
            labels,
            row_label: None,
            placement: None,
            parts: Parts::Whole,
            row: index,
            line: index + 1,
        }
    };
    lengths.iter().enumerate().map(example).collect()
}
