//! What is learned of conversations, under templates of each kind.

use super::*;
use crate::conversation::Message;
use crate::error::Error;
use crate::test_support::{CHAT_TEMPLATE, CONFIG, tokenizer, tokenizer_json};

fn supervised_text(tokenizer: &TextTokenizer, messages: &[Message]) -> Result<String> {
    learned_text(tokenizer, &Conversation::new(messages))
}

fn learned_text(tokenizer: &TextTokenizer, conversation: &Conversation) -> Result<String> {
    let (messages, variables) = (&conversation.messages, &conversation.variables);
    let rendered = tokenizer.render(messages, variables, false)?;
    let chat = find_turns(tokenizer, conversation, rendered, Supervise::Assistant)?;
    let encoding = tokenizer.encode_batch(vec![&chat.text])?.remove(0);
    let labels = chat.labels(tokenizer, &encoding);
    let ids: Vec<u32> = labels
        .iter()
        .filter_map(|&label| u32::try_from(label).ok())
        .collect();
    tokenizer.decode(&ids, false)
}

fn with_template(template: &str) -> TextTokenizer {
    TextTokenizer::from_bytes(
        tokenizer_json().as_bytes(),
        CONFIG.as_bytes(),
        Some(template),
    )
    .expect("a tokenizer")
}

#[test]
fn only_assistant_turns_and_their_end_tokens_are_supervised() {
    let messages = [
        Message::new("user", "hello"),
        Message::new("assistant", "早 hi"),
        Message::new("user", "bye"),
        Message::new("assistant", "so long"),
    ];
    let text = supervised_text(&tokenizer(), &messages).expect("a good chat");
    assert_eq!(text, "早 hi<|im_end|>so long<|im_end|>");
}

#[test]
fn a_turn_without_a_special_token_counts_whole() {
    let tokenizer = with_template(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}\
         {% if add_generation_prompt %}assistant: {% endif %}",
    );
    let messages = [Message::new("user", "hi"), Message::new("assistant", "yes")];
    assert_eq!(
        supervised_text(&tokenizer, &messages).expect("a good chat"),
        "yes\n\n"
    );
}

#[test]
fn a_token_that_begins_in_the_prompt_is_not_supervised() {
    // "he" is one token, of which the prompt holds the first letter.
    let tokenizer = with_template(
        "{% for m in messages %}{{ 'h' if m.role == 'assistant' }}{{ m.content }}<|im_end|>{% endfor %}\
         {% if add_generation_prompt %}h{% endif %}",
    );
    let messages = [Message::new("user", "a"), Message::new("assistant", "ey")];
    let text = supervised_text(&tokenizer, &messages).expect("a good chat");
    assert_eq!(text, "y<|im_end|>");
}

/// As Qwen3's does, which leaves out the reasoning of all turns but the last.
#[test]
fn a_turn_that_is_written_differently_once_others_follow_is_found() {
    let tokenizer = with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n\
         {% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}\
         {{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    let messages = [
        Message::new("user", "a"),
        Message::new("assistant", "assistant"),
        Message::new("user", "assistant"),
        Message::new("assistant", "yes"),
    ];
    let text = supervised_text(&tokenizer, &messages).expect("a good chat");
    assert_eq!(
        text,
        "assistant<|im_end|><think>\n\n</think>\n\nyes<|im_end|>"
    );
}

#[test]
fn an_empty_turn_that_cannot_be_found_is_not_learned_and_the_others_are() {
    let tokenizer = with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n\
         {% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}\
         {{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    for empty in ["", "\n"] {
        let messages = [
            Message::new("user", "a"),
            Message::new("assistant", empty),
            Message::new("user", "b"),
            Message::new("assistant", "yes"),
        ];
        let text = supervised_text(&tokenizer, &messages).expect("a good chat");
        assert_eq!(text, "<think>\n\n</think>\n\nyes<|im_end|>");
    }
    // Where it can be found, its end is learned.
    let messages = [Message::new("assistant", ""), Message::new("user", "b")];
    let plain = with_template(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}\
         {% if add_generation_prompt %}assistant: {% endif %}",
    );
    let text = supervised_text(&plain, &messages).expect("a good chat");
    assert_eq!(text, "<|im_end|>");
}

/// As that of DeepSeek-R1's distilled models does.
#[test]
fn a_generation_prompt_that_says_more_than_the_saved_turn_leaves_the_turn_learned() {
    let tokenizer = with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n\
         {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    );
    for answer in ["yes", "<b>yes", "a</think>yes"] {
        let messages = [Message::new("user", "a"), Message::new("assistant", answer)];
        let text = supervised_text(&tokenizer, &messages).expect("a good chat");
        let shown = answer.trim_start_matches("a</think>");
        assert_eq!(text, format!("{shown}<|im_end|>"));
    }
}

#[test]
fn an_assistant_that_speaks_first_is_learned_whatever_the_template_puts_in_front() {
    // It looks at the first turn, of which there is none before the assistant's.
    let looks = format!("{{%- set first = messages[0]['content'].strip() %}}{CHAT_TEMPLATE}");
    let tokenizer = with_template(&looks);
    let messages = [
        Message::new("assistant", "assistant"),
        Message::new("user", "assistant"),
        Message::new("assistant", "yes"),
    ];
    for count in 1..=3 {
        let text = supervised_text(&tokenizer, &messages[..count]).expect("a good chat");
        let expected = ["assistant<|im_end|>", "", "yes<|im_end|>"][..count].concat();
        assert_eq!(text, expected);
    }
}

/// Some write it only behind a user. Zephyr's writes it behind the last turn, of which there may be none.
#[test]
fn a_generation_prompt_that_is_not_always_written_leaves_the_header_given() {
    let behind_user = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
         {%- endfor %}{%- if add_generation_prompt and messages[-1].role == 'user' %}\
         {{- '<|im_start|>assistant\\n' }}{%- endif %}";
    let behind_last = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
         {% if loop.last and add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}{% endfor %}";
    for template in [behind_user, behind_last] {
        let tokenizer = with_template(template);
        for roles in [
            &["user", "assistant", "assistant"][..],
            &["user", "assistant", "tool", "assistant"],
            &["system", "assistant", "user", "assistant"],
            &["assistant", "user", "assistant"],
        ] {
            let turn = |(index, role): (usize, &&str)| Message::new(*role, format!("t{index}"));
            let messages: Vec<Message> = roles.iter().enumerate().map(turn).collect();
            let answers = roles.iter().enumerate();
            let answers = answers.filter(|(_, role)| **role == "assistant");
            let expected: String = answers
                .map(|(index, _)| format!("t{index}<|im_end|>"))
                .collect();
            let text = supervised_text(&tokenizer, &messages).expect("a good chat");
            assert_eq!(text, expected, "{roles:?} with {template}");
        }
    }
}

#[test]
fn a_turn_that_a_flag_takes_out_is_given_and_not_learned() {
    let messages = || {
        let mut wrong = Message::new("assistant", "no");
        wrong.masked_by = Some("weight");
        [
            Message::new("user", "a"),
            wrong,
            Message::new("user", "b"),
            Message::new("assistant", "yes"),
        ]
    };
    let marked = with_template(
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}\
         {{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n\n{% endfor %}\
         {% if add_generation_prompt %}assistant: {% endif %}",
    );
    for tokenizer in [tokenizer(), marked] {
        let text = supervised_text(&tokenizer, &messages()).expect("a good chat");
        assert_eq!(text, "yes<|im_end|>");
    }
}

#[test]
fn marked_text_is_learned_and_nothing_else() {
    let tokenizer = with_template(
        "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}<|im_end|>\n{% endfor %}",
    );
    let messages = [Message::new("user", "é"), Message::new("tool", "早")];
    let text = supervised_text(&tokenizer, &messages).expect("a good chat");
    assert_eq!(text, "é早");
}

#[test]
fn tool_calls_are_learned_wherever_the_turn_stands() {
    let tokenizer = with_template(
        "{%- set first = messages[0]['role'].strip() %}{% for m in messages %}<|im_start|>{{ m.role }}\n\
         {{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n\
         {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    let mut call = Message::new("assistant", "");
    let calls = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
    call.fields.insert("tool_calls".to_owned(), calls);
    let text = supervised_text(&tokenizer, &[call]).expect("a good chat");
    assert_eq!(text, "{\"name\": \"f\"}<|im_end|>");
}

/// As Mistral's, which puts nothing in front of the assistant's turns, and the tools in front of the last user's.
#[test]
fn a_turn_with_nothing_in_front_begins_where_the_turn_before_ends() {
    let tokenizer = with_template(
        "{% for m in messages %}{% if m.role == 'user' %}\
         {{ 'TOOLS' if m == (messages | selectattr('role', 'equalto', 'user') | list | last) }}[{{ m.content }}]\
         {% else %} {{ m.content }}{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}<|im_end|>{% endif %}\
         {% endfor %}",
    );
    let mut call = Message::new("assistant", "");
    let calls = serde_json::json!([{"name": "f"}]);
    call.fields.insert("tool_calls".to_owned(), calls);
    let messages = [
        Message::new("user", "a"),
        call,
        Message::new("user", "b"),
        Message::new("assistant", "c"),
    ];
    let text = supervised_text(&tokenizer, &messages).expect("a good chat");
    assert_eq!(text, " {\"name\": \"f\"}<|im_end|> c<|im_end|>");
}

#[test]
fn a_template_that_writes_a_turn_in_no_known_way_is_refused() {
    let tokenizer = with_template(
        "{% for m in messages %}[{{ m.role if loop.last else 'past' }}]{{ m.content }}\
         {{ '<|im_end|>' if loop.last }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    );
    let messages = [Message::new("assistant", "a"), Message::new("user", "b")];
    let error = supervised_text(&tokenizer, &messages).expect_err("the first turn changes");
    assert!(
        matches!(error, Error::UnstableChatTemplate { message: 0 }),
        "{error}"
    );
}

#[test]
fn turns_are_taken_out_of_what_is_marked() {
    let marks = || vec![0..4, 6..9];
    assert_eq!(without(marks(), &[2..7, 8..9], &[0..2, 7..8]), [0..2, 7..8]);
    let first = 2..4;
    let found = without(marks(), &[1..2, 6..9], std::slice::from_ref(&first));
    assert_eq!(found, [0..1, first]);
}

/// As SmolLM3's marks do.
#[test]
fn a_mark_that_begins_in_front_of_a_turn_goes_with_it() {
    let [first, second, mark] = [2..4, 8..9, 6..9];
    let marks = vec![0..4, mark.clone()];
    let (given, learned) = (std::slice::from_ref(&first), std::slice::from_ref(&second));
    assert_eq!(without(marks, given, learned), [mark]);
}
