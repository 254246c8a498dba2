//! Rows to examples: token ids, and a label wherever the model is to learn.
//!
//! | row | ids | supervised |
//! |---|---|---|
//! | prompt/completion | `tokenize(prompt) + tokenize(completion) + [eos]` | the completion and the eos |
//! | instruction | as prompt/completion, the prompt being [`instruction_prompt`] | the output and the eos |
//! | text | `tokenize(text) + [eos]` | everything |
//! | messages | the chat template's text, tokenised as a whole | assistant turns, each through its end-of-turn token |
//! | input_ids/labels | as given | as given |
//!
//! A [`Template`] puts the fields of the first three in another order, with virtual tokens between them.
//!
//! Instruction rows use the plain layout even if the model has a chat template: the two formats then
//! mean the same on every model, and whoever wants the template writes `messages` rows.

use crate::draft::tokenize_chunk;
use crate::error::{Error, Result};
use crate::rows::Rows;
use crate::template::Template;
use crate::tokenizer::TextTokenizer;

/// The label of a position that is not learned, as in PyTorch and transformers.
pub const IGNORE_INDEX: i64 = -100;

/// How many rows are tokenised in parallel between two reports of progress.
const CHUNK: usize = 256;

/// One tokenised row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids `[seq]`.
    pub input_ids: Vec<u32>,
    /// Labels `[seq]`: `labels[t]` is the id at `t` itself, or [`IGNORE_INDEX`]. The shift by one is the loss's.
    pub labels: Vec<i64>,
    /// For each virtual token the index of the id that it stands in front of, `0..=seq`, ascending;
    /// `seq` is behind the last. `None`: all in front, however many there are.
    pub placement: Option<Vec<usize>>,
    /// The line of the file it came from, from 1.
    pub line: usize,
}

impl Example {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// The number of labels that are not [`IGNORE_INDEX`]. Where nothing precedes the row (no virtual
    /// prompt), a label at position 0 is counted here and cannot be predicted.
    pub fn supervised_tokens(&self) -> usize {
        self.labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count()
    }

    /// Whether a causal model can learn anything from it: position 0 has no token before it.
    fn teaches(&self) -> bool {
        self.labels
            .iter()
            .skip(1)
            .any(|&label| label != IGNORE_INDEX)
    }

    /// Keeps the first `length` ids, and all virtual tokens: those behind the cut move up to it.
    fn truncate(&mut self, length: usize) {
        self.input_ids.truncate(length);
        self.labels.truncate(length);
        for place in self.placement.iter_mut().flatten() {
            *place = (*place).min(length);
        }
    }
}

/// How rows become examples.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizeOptions<'a> {
    /// Tokens that a row may have, virtual ones not counted. Default any number.
    pub max_length: Option<usize>,
    /// The order of a row's parts. Default [the table's](self), with virtual tokens, if any, in front.
    pub template: Option<&'a Template>,
}

/// The examples of a file, and what `max_length` did to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokenized {
    /// The examples, in file order.
    pub examples: Vec<Example>,
    /// How many of them were cut to `max_length`.
    pub truncated: usize,
    /// How many rows are not among them, because cutting would have left nothing supervised.
    pub dropped: usize,
}

/// The prompt of an instruction row. `generate` must be given the same text.
///
/// The layout has the parts of Stanford Alpaca's, in this project's words.
pub fn instruction_prompt(instruction: &str, input: Option<&str>) -> String {
    match input.filter(|input| !input.is_empty()) {
        Some(input) => format!(
            "A task follows, with the input it is about. Answer it fully.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        ),
        None => format!(
            "A task follows. Answer it fully.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
        ),
    }
}

/// Tokenises and labels every row, in file order. `progress` is told `(rows done, rows in all)`.
///
/// A row longer than `max_length` keeps its first `max_length` tokens, as transformers' and TRL's
/// trainers have it (`truncation_mode = "keep_start"`): the end of the completion and its eos go. TRL
/// keeps a row whose whole completion went, which then adds nothing to a step, or makes its loss 0/0;
/// here it is dropped. Both are counted.
///
/// # Errors
/// A row has nothing to learn from even before it is cut, its ids are outside the vocabulary, its
/// conversation does not fit the chat template, it lacks a field of the template (each with file and
/// line), the tokenizer has no eos, or no row survived the cut.
pub fn tokenize_rows(
    rows: &Rows,
    tokenizer: &TextTokenizer,
    options: TokenizeOptions<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Tokenized> {
    if rows.is_empty() {
        return Err(Error::NoRows {
            path: rows.path().to_owned(),
        });
    }
    let limit = options.max_length.unwrap_or(usize::MAX);
    let mut tokenized = Tokenized::default();
    let mut done = 0;
    for chunk in rows.rows().chunks(CHUNK) {
        for mut example in tokenize_chunk(rows.path(), chunk, tokenizer, options.template)? {
            if !example.teaches() {
                return Err(Error::NothingSupervised {
                    path: rows.path().to_owned(),
                    line: example.line,
                });
            }
            let is_cut = example.len() > limit;
            example.truncate(limit);
            if !example.teaches() {
                tokenized.dropped += 1;
                continue;
            }
            tokenized.truncated += usize::from(is_cut);
            tokenized.examples.push(example);
        }
        done += chunk.len();
        progress(done, rows.len());
    }
    if tokenized.examples.is_empty() {
        return Err(Error::AllDropped {
            path: rows.path().to_owned(),
            max_length: limit,
        });
    }
    Ok(tokenized)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::parse_rows;
    use crate::test_support::{CONFIG, EOS, tokenizer, tokenizer_json};

    fn tokenize(text: &str, max_length: Option<usize>) -> Result<Tokenized> {
        tokenize_rows(
            &parse_rows("train.jsonl", text)?,
            &tokenizer(),
            TokenizeOptions {
                max_length,
                ..TokenizeOptions::default()
            },
            &mut |_, _| {},
        )
    }

    fn only(text: &str) -> Example {
        let mut tokenized = tokenize(text, None).expect("a good row");
        assert_eq!(tokenized.examples.len(), 1);
        tokenized.examples.remove(0)
    }

    fn ids(text: &str) -> Vec<u32> {
        tokenizer().encode(text).expect("byte-level")
    }

    /// Labels that hide the first `hidden` ids.
    fn hiding(hidden: usize, ids: &[u32]) -> Vec<i64> {
        let label = |(index, &id): (usize, &u32)| {
            if index < hidden {
                IGNORE_INDEX
            } else {
                i64::from(id)
            }
        };
        ids.iter().enumerate().map(label).collect()
    }

    fn full_message(error: &Error) -> String {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            message += &format!(": {error}");
            source = error.source();
        }
        message
    }

    #[test]
    fn a_completion_is_supervised_and_ends_with_eos() {
        let example = only(r#"{"prompt":"say ","completion":"hello"}"#);
        let expected = [ids("say "), ids("hello"), vec![EOS]].concat();
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.labels, hiding(4, &expected));
        assert_eq!(example.supervised_tokens(), expected.len() - 4);
    }

    #[test]
    fn no_token_straddles_prompt_and_completion() {
        // "he" is one token, but not when its letters are in different fields.
        let example = only(r#"{"prompt":"h","completion":"e"}"#);
        assert_eq!(example.input_ids, [ids("h"), ids("e"), vec![EOS]].concat());
        assert_ne!(example.input_ids[..2], ids("he"));
    }

    #[test]
    fn an_empty_completion_still_teaches_to_stop() {
        let example = only(r#"{"prompt":"ab","completion":""}"#);
        assert_eq!(example.labels, [IGNORE_INDEX, IGNORE_INDEX, i64::from(EOS)]);
    }

    #[test]
    fn text_is_supervised_throughout() {
        let example = only(r#"{"text":"hello"}"#);
        assert_eq!(example.input_ids, [ids("hello"), vec![EOS]].concat());
        assert_eq!(example.labels, hiding(0, &example.input_ids));
    }

    #[test]
    fn an_instruction_is_the_documented_prompt_and_its_output() {
        for (row, input) in [
            (
                r#"{"instruction":"Add.","input":"1 2","output":"3"}"#,
                Some("1 2"),
            ),
            (r#"{"instruction":"Add.","output":"3"}"#, None),
        ] {
            let prompt = ids(&instruction_prompt("Add.", input));
            let expected = [prompt.clone(), ids("3"), vec![EOS]].concat();
            let example = only(row);
            assert_eq!(example.input_ids, expected);
            assert_eq!(example.labels, hiding(prompt.len(), &expected));
        }
        assert!(!instruction_prompt("Add.", None).contains("### Input"));
    }

    #[test]
    fn a_chat_row_is_the_rendered_conversation_with_the_answer_supervised() {
        let example = only(
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}"#,
        );
        let given = ids(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        );
        let answer = ids("hello<|im_end|>");
        let expected = [given.clone(), answer, ids("\n")].concat();
        let mut labels = hiding(given.len(), &expected);
        *labels.last_mut().expect("not empty") = IGNORE_INDEX;
        assert_eq!(example.input_ids, expected);
        assert_eq!(example.labels, labels);
    }

    #[test]
    fn given_ids_are_used_as_they_are() {
        let example = only(r#"{"input_ids":[1,2,3],"labels":[-100,-100,9]}"#);
        assert_eq!(
            (example.input_ids, example.labels),
            (vec![1, 2, 3], vec![-100, -100, 9])
        );
    }

    #[test]
    fn given_ids_outside_the_vocabulary_name_their_line() {
        let good = r#"{"input_ids":[1,2],"labels":[1,2]}"#;
        for (row, expected) in [
            (
                r#"{"input_ids":[1,9999],"labels":[1,2]}"#,
                "input_ids[1] is 9999",
            ),
            (r#"{"input_ids":[1,2],"labels":[1,-1]}"#, "labels[1] is -1"),
        ] {
            let message = tokenize(&format!("{good}\n{row}"), None)
                .expect_err("a bad row")
                .to_string();
            assert!(
                message.starts_with("train.jsonl:2: ") && message.contains(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn a_row_with_nothing_to_learn_names_its_line() {
        for row in [
            r#"{"input_ids":[1,2],"labels":[1,-100]}"#,
            r#"{"text":""}"#,
            r#"{"messages":[{"role":"user","content":"hi"}]}"#,
        ] {
            let error = tokenize(&format!("\n{row}"), None).expect_err("nothing is supervised");
            assert!(
                matches!(error, Error::NothingSupervised { line: 2, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_conversation_the_template_refuses_names_its_line_and_the_reason() {
        let error = tokenize(r#"{"messages":[{"role":"oracle","content":"x"}]}"#, None)
            .expect_err("no such role");
        let message = full_message(&error);
        assert!(
            message.starts_with("train.jsonl:1: ") && message.contains("unknown role oracle"),
            "{message}"
        );
    }

    #[test]
    fn long_rows_lose_their_end_and_are_counted() {
        let rows = [
            r#"{"prompt":"ab","completion":"cd"}"#,
            r#"{"prompt":"ab","completion":"c"}"#,
            r#"{"prompt":"abcd","completion":"e"}"#,
        ];
        let tokenized = tokenize(&rows.join("\n"), Some(4)).expect("two rows are left");
        assert_eq!((tokenized.truncated, tokenized.dropped), (1, 1));
        assert_eq!(tokenized.examples[0].input_ids, ids("abcd"));
        assert_eq!(tokenized.examples[0].labels, hiding(2, &ids("abcd")));
        assert_eq!(
            tokenized.examples[1].input_ids,
            [ids("abc"), vec![EOS]].concat()
        );
        assert_eq!(
            tokenized
                .examples
                .iter()
                .map(|example| example.line)
                .collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn a_limit_that_drops_every_row_is_an_error() {
        let error = tokenize(r#"{"prompt":"abcd","completion":"e"}"#, Some(3))
            .expect_err("nothing is left");
        assert!(error.to_string().contains("max_length = 3"), "{error}");
    }

    #[test]
    fn without_an_eos_no_row_is_silently_left_open() {
        let tokenizer = TextTokenizer::from_bytes(tokenizer_json().as_bytes(), b"{}", None)
            .expect("a tokenizer");
        let rows = parse_rows("train.jsonl", r#"{"text":"a"}"#).expect("a good row");
        let error = tokenize_rows(
            &rows,
            &tokenizer,
            TokenizeOptions::default(),
            &mut |_, _| {},
        );
        assert!(matches!(error, Err(Error::NoEos)));
    }

    #[test]
    fn chat_rows_need_a_template() {
        let tokenizer =
            TextTokenizer::from_bytes(tokenizer_json().as_bytes(), CONFIG.as_bytes(), None)
                .expect("a tokenizer");
        let rows = parse_rows(
            "train.jsonl",
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
        )
        .expect("a good row");
        let error = tokenize_rows(
            &rows,
            &tokenizer,
            TokenizeOptions::default(),
            &mut |_, _| {},
        );
        assert!(matches!(error, Err(Error::NoChatTemplate)));
    }

    #[test]
    fn progress_ends_with_all_rows_and_chunks_keep_file_order() {
        let text: String = (0..600)
            .map(|index| format!("{{\"text\":\"row {index}\"}}\n"))
            .collect();
        let rows = parse_rows("train.jsonl", &text).expect("good rows");
        let mut reports = Vec::new();
        let tokenized = tokenize_rows(
            &rows,
            &tokenizer(),
            TokenizeOptions::default(),
            &mut |done, all| reports.push((done, all)),
        );
        assert_eq!(reports, [(256, 600), (512, 600), (600, 600)]);
        let examples = tokenized.expect("good rows").examples;
        assert_eq!(
            examples[599].input_ids,
            [ids("row 599"), vec![EOS]].concat()
        );
        assert!(
            examples
                .iter()
                .enumerate()
                .all(|(index, example)| example.line == index + 1)
        );
    }

    #[test]
    fn a_row_that_is_cut_keeps_its_virtual_tokens_and_they_do_not_count() {
        let template = Template::parse("{prompt:9}{prompt}{prompt:1}{completion}{prompt:2}");
        let template = template.expect("a good template");
        let rows = r#"{"prompt":"ab","completion":"cd"}"#;
        let rows = parse_rows("train.jsonl", rows).expect("a good row");
        for (max_length, behind, truncated) in [(5, 5, 0), (4, 4, 1), (3, 3, 1)] {
            let options = TokenizeOptions {
                max_length: Some(max_length),
                template: Some(&template),
            };
            let tokenized = tokenize_rows(&rows, &tokenizer(), options, &mut |_, _| {});
            let tokenized = tokenized.expect("something is left");
            let example = &tokenized.examples[0];
            assert_eq!(
                (example.len(), tokenized.truncated),
                (max_length, truncated)
            );
            let expected = [vec![0; 9], vec![2], vec![behind; 2]].concat();
            assert_eq!(example.placement, Some(expected));
        }
    }
}
