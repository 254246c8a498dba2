use serde_json::json;

use super::*;

fn page() -> Page {
    Page {
        title: "prompt-tuning on a/b".into(),
        version: "0",
        ..Page::default()
    }
}

const HOSTILE: &str =
    r#"</pre></dd><script>alert("x")</script><img src=http://evil onerror='y'> {{ 7*7 }} & <b>"#;

/// A page with hostile text wherever text comes from elsewhere.
fn hostile() -> Page {
    let text = || HOSTILE.to_owned();
    Page {
        title: text(),
        status: text(),
        tiles: vec![Tile {
            name: "loss",
            value: text(),
            note: text(),
        }],
        warnings: vec![text()],
        held_out: text(),
        scores: vec![Score {
            name: "loss",
            before: text(),
            after: text(),
        }],
        matrices: vec![
            Matrix::of(
                "the base",
                &ConfusionMatrix::of(&[0, 0, 1], &[0, 1, 1], &[text(), "\" onclick=\"z".into()]),
            ),
            Matrix::of(
                "with the adapter",
                &ConfusionMatrix::of(&[0], &[1], &vec![text(); MOST_CLASSES + 1]),
            ),
        ],
        samples: vec![Sample {
            input: text(),
            reference: text(),
            before: Some(text()),
            after: text(),
        }],
        data: vec![File {
            purpose: "training",
            rows: 3,
            name: text(),
        }],
        notes: vec![text()],
        config: text(),
        charts: charts(&[
            json!({"step": 1, "loss": 1.0}),
            json!({"step": 2, "loss": 0.5}),
        ])
        .unwrap(),
        ..page()
    }
}

#[test]
fn what_comes_from_elsewhere_is_text_whatever_is_in_it() {
    let html = hostile().render().unwrap();
    for tag in ["<script", "<img", "onclick=\"", "</dd><"] {
        assert!(!html.contains(tag), "{tag}: {html}");
    }
    assert!(html.contains("&lt;script&gt;"));
    assert!(html.contains("{{ 7*7 }}"), "a text is no template: {html}");
    assert!(html.contains("<svg"), "a curve is no text: {html}");
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let html = hostile().render().unwrap();
    // The quoted one of the rows apart.
    let html = html.replace("&lt;img src=http:&#x2f;&#x2f;evil", "");
    for reference in ["src=", "href=", "url(", "@import", "<link", "xmlns"] {
        assert!(!html.contains(reference), "{reference}: {html}");
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn the_figures_are_those_of_the_records() {
    let records = [
        json!({"step": 0, "epoch": 0.0, "eval_loss": 3.123456}),
        json!({"step": 10, "epoch": 0.5, "loss": 2.345678, "learning_rate": 1e-3, "grad_norm": 0.54321,
               "tokens_per_second": 1234.5}),
        json!({"step": 20, "epoch": 1.0, "eval_loss": 1.987654}),
    ];
    let page = Page {
        charts: charts(&records).unwrap(),
        records: RecordTable::of(&records),
        ..page()
    };
    let html = page.render().unwrap();
    for figure in [
        "3.1235",
        "2.3457",
        "0.0010000",
        "0.54321",
        "1234.5",
        "1.9877",
    ] {
        assert!(html.contains(figure), "{figure}: {html}");
    }
    let titles: Vec<&str> = page.charts.iter().map(|chart| &*chart.title).collect();
    let expected = [
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Tokens per second",
    ];
    assert_eq!(titles, expected);
    assert!(html.contains("the base, validation"));
}

#[test]
fn each_score_of_the_evaluations_has_a_curve_with_the_base() {
    let records = [
        json!({"step": 0, "epoch": 0.0, "eval_loss": 0.7, "eval_label_tokens": 9, "eval_accuracy": 0.51234}),
        json!({"step": 9, "epoch": 1.0, "eval_loss": 0.3, "eval_seconds": 1.0, "eval_accuracy": 0.91234}),
    ];
    let page = Page {
        charts: charts(&records).unwrap(),
        records: RecordTable::of(&records),
        ..page()
    };
    let titles: Vec<&str> = page.charts.iter().map(|chart| &*chart.title).collect();
    assert_eq!(titles, ["Loss", "Accuracy"]);
    let html = page.render().unwrap();
    assert!(
        html.contains("0.51234") && html.contains("0.91234"),
        "{html}"
    );
}

#[test]
fn a_run_without_records_has_a_page_without_curves() {
    assert!(charts(&[]).unwrap().is_empty());
    let html = page().render().unwrap();
    assert!(html.contains("prompt-tuning on a"));
    assert!(!html.contains("<svg") && !html.contains("Curves"));
}

#[test]
fn times_are_short() {
    let found = [0.4, 75.0, 7260.0].map(duration);
    assert_eq!(found, ["0 s", "1 min 15 s", "2 h 1 min"]);
}

#[test]
fn digits_are_grouped() {
    let found = [0, 999, 1000, 1_234_567].map(with_commas);
    assert_eq!(found, ["0", "999", "1,000", "1,234,567"]);
}
