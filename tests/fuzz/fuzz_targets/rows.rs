//! Data rows, of whatever format the first one is, through the tokenizer.
#![no_main]

use std::sync::LazyLock;

use burn_peft_data::{
    Labels, Parts, Row, RowLabel, RowReader, Rows, Targets, Task, Template, TextTokenizer, TokenizeOptions,
    Verbalizer, parse_rows, parse_rows_for, tokenize_rows,
};
use burn_peft_fuzz::model;
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    let file = model("config.json");
    TextTokenizer::load(file.parent().expect("a folder")).expect("the fixture's tokenizer")
});
static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let templates = [
        "{prompt:2} {input}{prompt:1}{completion}",
        "{prompt:2} {text}{prompt:1}\n{text_pair}",
        "a {text} {text_pair}:{prompt:1}{label}{prompt:1}",
    ];
    let template = |source: &str| Template::parse(source).expect("a template");
    templates.map(template).into()
});

const LONGEST: usize = 32;

fuzz_target!(|data: &[u8]| {
    // Parquet and gzip are known by their bytes.
    if let Ok(rows) = RowReader::default().parse("rows", data) {
        tokenize(&rows);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for path in ["rows.jsonl", "rows.conll", "rows.csv", "rows.tsv", "rows"] {
        if let Ok(rows) = parse_rows(path, text) {
            tokenize(&rows);
        }
        for task in Task::ALL {
            if let Ok(rows) = parse_rows_for(path, text, task) {
                tokenize(&rows);
            }
        }
    }
});

/// Tokenises rows in every way that their task has.
fn tokenize(rows: &Rows) {
    let labels = Labels::of(rows).unwrap_or(Labels {
        problem_type: Default::default(),
        names: vec!["O".into(), "B-X".into()],
    });
    let words: Vec<String> = labels.names.iter().map(|name| format!(" {name}")).collect();
    let answers = |no_answer| Targets::Answers {
        doc_stride: 4,
        no_answer,
        every_window: !no_answer,
    };
    let tags = |label_all_tokens| Targets::Tags {
        labels: &labels,
        label_all_tokens,
    };
    let ways = match rows.task() {
        Task::CausalLm => vec![Targets::Text],
        Task::SeqCls => vec![
            Targets::Class(&labels),
            Targets::Verbalizer(&labels, &words),
        ],
        Task::TokenCls => vec![tags(false), tags(true)],
        Task::Qa => vec![answers(false), answers(true)],
    };
    for targets in ways {
        for template in [None].into_iter().chain(TEMPLATES.iter().map(Some)) {
            let options = TokenizeOptions {
                max_length: Some(LONGEST),
                template,
                targets,
            };
            if let Ok(found) = tokenize_rows(rows, &TOKENIZER, options, &mut |_, _| {}) {
                found
                    .examples
                    .iter()
                    .for_each(|example| check(rows, example));
            }
        }
    }
    if let Ok(verbalizer) = Verbalizer::new(&labels, &words, &TOKENIZER) {
        let _ = verbalizer.candidates(rows, &TOKENIZER, None, Some(LONGEST));
    }
}

fn check(rows: &Rows, example: &burn_peft_data::Example) {
    let length = example.len();
    assert_eq!(length, example.labels.len());
    assert!(0 < length && length <= LONGEST);
    let (_, row) = &rows.rows()[example.row];
    if rows.task() == Task::CausalLm && !matches!(row, Row::Tokenized { .. }) {
        let mut labels = example.labels.iter().zip(&example.input_ids);
        assert!(labels.all(|(label, id)| *label == -100 || *label == i64::from(*id)));
    }
    match &example.parts {
        Parts::Whole => {}
        Parts::Words(words) => {
            assert!(words.is_sorted() && words.iter().all(|first| *first < length))
        }
        Parts::Context {
            tokens, characters, ..
        } => {
            assert!(tokens.end <= length && tokens.len() == characters.len());
            let context = &row.question().expect("a question").context;
            let count = context.chars().count();
            assert!(
                characters
                    .iter()
                    .all(|range| range.start <= range.end && range.end <= count)
            );
        }
    }
    if let Some(RowLabel::Span { start, end }) = example.row_label {
        assert!(start <= end && end < length);
    }
}
