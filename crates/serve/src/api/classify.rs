//! `/classify`: what the heads of adapters say of texts, as vLLM writes it.

use std::sync::Arc;

use axum::response::Response;
use burn_peft_data::{Labels, ProblemType, Row};
use serde_json::{Map, Value, json};

use super::{
    error::{ApiError, json_response},
    fields::{Fields, expected, missing},
    sampling::Sampling,
    start::{Asked, Rows, on_text_thread},
};
use crate::{
    engine::{Event, Ids},
    server::Server,
};

/// Answers a request.
pub(crate) async fn answer(server: &Arc<Server>, mut fields: Fields) -> Result<Response, ApiError> {
    let name = fields.required_text("model")?;
    let input = inputs(fields.take("input").ok_or_else(|| missing("input"))?)?;
    fields.finish()?;
    let model = server.models().of_classes(&name)?;
    let of_model = model.clone();
    let ids: Vec<Ids> = on_text_thread(server, move |models| {
        let rows = input.into_iter();
        rows.map(|row| models.row_ids(&of_model, row)).collect()
    })
    .await?;
    let asked = Asked {
        model: &model,
        param: "input",
        sampling: &Sampling::none(),
        default_tokens: 0,
        logprobs: None,
        prompt_logprobs: None,
        head: true,
    };
    let mut rows = Rows::start(server, &asked, &ids)?;
    let mut found: Vec<Option<Vec<f32>>> = vec![None; ids.len()];
    let mut cached_tokens = 0;
    while let Some((index, event)) = rows.next().await {
        match event {
            Event::Started {
                cached_tokens: held,
            } => cached_tokens += held,
            Event::Head(outputs) => found[index] = Some(outputs),
            Event::TimedOut => return Err(ApiError::timed_out()),
            Event::Gone => return Err(ApiError::gone()),
            Event::Prompt(_) | Event::Token { .. } | Event::Done(_) => {}
        }
    }
    let labels = model.labels().expect("of_classes has found some");
    let found = found.into_iter().enumerate();
    let data: Result<Vec<Value>, ApiError> = found
        .map(|(index, outputs)| Ok(object(index, &outputs.ok_or_else(ApiError::gone)?, labels)))
        .collect();
    let prompt_tokens: usize = ids.iter().map(|ids| ids.input_ids.len()).sum();
    Ok(json_response(&json!({
        "id": format!("classify-{:032x}", rows.number),
        "object": "list",
        "created": rows.created,
        "model": name,
        "data": data?,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        },
    })))
}

/// What a head says of one text. Beside vLLM's fields, `scores` has the probabilities by name, `labels` the classes of
/// a head that tells several at once, and `values` the numbers of a regression.
fn object(index: usize, outputs: &[f32], labels: &Labels) -> Value {
    let names = &labels.names;
    let scores = |probabilities: &[f64]| -> Map<String, Value> {
        let scores = names.iter().zip(probabilities);
        scores
            .map(|(name, score)| (name.clone(), (*score).into()))
            .collect()
    };
    match labels.problem_type {
        ProblemType::SingleLabel => {
            let probabilities = softmax(outputs);
            json!({
                "index": index,
                "label": names.get(largest(outputs)),
                "probs": probabilities,
                "num_classes": outputs.len(),
                "scores": scores(&probabilities),
            })
        }
        ProblemType::MultiLabel => {
            let sigmoid = |output: &f32| 1.0 / (1.0 + (-f64::from(*output)).exp());
            let probabilities: Vec<f64> = outputs.iter().map(sigmoid).collect();
            let chosen = names
                .iter()
                .zip(outputs)
                .filter(|(_, output)| **output > 0.0);
            json!({
                "index": index,
                "label": names.get(largest(outputs)),
                "labels": chosen.map(|(name, _)| name).collect::<Vec<_>>(),
                "probs": probabilities,
                "num_classes": outputs.len(),
                "scores": scores(&probabilities),
            })
        }
        ProblemType::Regression => json!({"index": index, "label": null, "values": outputs}),
    }
}

/// The first of the largest.
fn largest(outputs: &[f32]) -> usize {
    let mut best = 0;
    for (index, output) in outputs.iter().enumerate() {
        if *output > outputs[best] {
            best = index;
        }
    }
    best
}

fn softmax(outputs: &[f32]) -> Vec<f64> {
    let most = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = outputs
        .iter()
        .map(|output| f64::from(output - most).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// A text, or a list of texts and of pairs of texts.
fn inputs(value: Value) -> Result<Vec<Row>, ApiError> {
    let what = "a string, or a list of strings and of objects with `text` and `text_pair`";
    let row = |text: String, text_pair: Option<String>| Row::Classification {
        text,
        text_pair,
        label: None,
    };
    let one = |value: Value| match value {
        Value::String(text) => Ok(row(text, None)),
        Value::Object(mut pair) => {
            let [text, text_pair] = ["text", "text_pair"].map(|key| pair.shift_remove(key));
            match (text, text_pair, pair.is_empty()) {
                (Some(Value::String(text)), Some(Value::String(text_pair)), true) => {
                    Ok(row(text, Some(text_pair)))
                }
                _ => Err(expected("input", what)),
            }
        }
        _ => Err(expected("input", what)),
    };
    match value {
        Value::Array(values) if !values.is_empty() => values.into_iter().map(one).collect(),
        Value::Array(_) => Err(expected("input", what)),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(problem_type: ProblemType) -> Labels {
        let names = ["good", "bad"].map(str::to_owned).to_vec();
        Labels {
            problem_type,
            names,
        }
    }

    #[test]
    fn a_text_has_a_class_several_or_numbers() {
        let object = |kind, outputs: [f32; 2]| object(3, &outputs, &labels(kind));
        let single = object(ProblemType::SingleLabel, [0.0, 3.0_f32.ln()]);
        assert_eq!(
            (&single["index"], &single["label"]),
            (&json!(3), &json!("bad"))
        );
        let close = |value: &Value, expected: f64| {
            // A logarithm in f32.
            assert!(
                (value.as_f64().expect("a number") - expected).abs() < 1e-6,
                "{value}"
            );
        };
        close(&single["probs"][0], 0.25);
        close(&single["scores"]["bad"], 0.75);
        let multi = object(ProblemType::MultiLabel, [0.1, -0.1]);
        assert_eq!(multi["labels"], json!(["good"]));
        let regression = object(ProblemType::Regression, [1.5, 2.0]);
        assert_eq!(regression["values"], json!([1.5, 2.0]));
    }

    #[test]
    fn inputs_are_texts_and_pairs_one_or_many() {
        for (value, expected) in [
            (json!("a"), Some(1)),
            (json!(["a", {"text": "b", "text_pair": "c"}]), Some(2)),
            (json!([]), None),
            (json!([1]), None),
            (json!({"text": "b"}), None),
            (json!({"text": "b", "text_pair": "c", "other": 1}), None),
        ] {
            let found = inputs(value.clone()).ok().map(|rows| rows.len());
            assert_eq!(found, expected, "{value}");
        }
    }
}
