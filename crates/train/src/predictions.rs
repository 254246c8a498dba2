//! What a model says of rows, under the names of their classes.

use std::fmt;

use burn_peft_data::{Example, Labels, Parts, ProblemType, Row, RowLabel};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    ExampleLoss, Logits, TaskSetup,
    scoring::{Answer, AnswerOptions, AnswerWindow, Scored, TaskScores, best_answer},
};

/// What a model says of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// The answer.
    pub prediction: Prediction,
    /// How sure the model is: the probability of each class by its name, or of each chosen tag, null where there is none. Null of a number, of an
    /// answer, which has its own score, and of a text.
    pub scores: Value,
}

/// The answer for one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// The name of its class.
    Label(String),
    /// The names of its classes.
    Names(Vec<String>),
    /// The tags of its words; none of words that were cut off.
    Tags(Vec<Option<String>>),
    /// Its number.
    Number(f32),
    /// Its numbers.
    Numbers(Vec<f32>),
    /// Where in the text the answer is.
    Answer(Answer),
    /// What the model writes.
    Text(String),
}

/// What the logits of `found` say of each row, in the order of the rows. An example says which row it is of.
///
/// # Panics
/// If a row has no example, or an example no logits.
pub(crate) fn predictions(
    task: &TaskSetup,
    rows: &[(usize, Row)],
    first_row: usize,
    examples: &[Example],
    found: &[ExampleLoss],
) -> Vec<Predicted> {
    let mut of_rows: Vec<Vec<(&Example, &Logits)>> = vec![Vec::new(); rows.len()];
    for (example, found) in examples.iter().zip(found) {
        let logits = found.logits.as_ref().expect("a head gives logits");
        of_rows[example.row - first_row].push((example, logits));
    }
    let of_row = |((_, row), windows): (&(usize, Row), Vec<(&Example, &Logits)>)| match (
        windows.as_slice(),
        &task.labels,
    ) {
        ([(_, Logits::Row(logits))], Some(labels)) => of_text(logits, labels),
        ([(example, Logits::Tokens(logits))], Some(labels)) => {
            of_words(row, example, logits, labels)
        }
        (windows, _) => of_question(task, row, windows),
    };
    rows.iter().zip(of_rows).map(of_row).collect()
}

/// The class, the classes or the numbers of a text.
pub(crate) fn of_text(logits: &[f32], labels: &Labels) -> Predicted {
    let names = &labels.names;
    match labels.problem_type {
        ProblemType::SingleLabel => Predicted {
            prediction: Prediction::Label(names[argmax(logits)].clone()),
            scores: by_name(names, &softmax(logits)),
        },
        ProblemType::MultiLabel => {
            let chosen = names.iter().zip(logits).filter(|(_, logit)| **logit > 0.0);
            let sigmoid = |logit: &f32| 1.0 / (1.0 + (-f64::from(*logit)).exp());
            let scores: Vec<f64> = logits.iter().map(sigmoid).collect();
            Predicted {
                prediction: Prediction::Names(chosen.map(|(name, _)| name.clone()).collect()),
                scores: by_name(names, &scores),
            }
        }
        ProblemType::Regression => Predicted {
            prediction: match logits {
                [number] => Prediction::Number(*number),
                numbers => Prediction::Numbers(numbers.to_vec()),
            },
            scores: Value::Null,
        },
    }
}

/// The tags of a row's words, or of its tokens where the row has ids.
fn of_words(row: &Row, example: &Example, logits: &[Vec<f32>], labels: &Labels) -> Predicted {
    let first_tokens = match &example.parts {
        Parts::Words(first_tokens) => first_tokens.clone(),
        _ => (0..example.len()).collect(),
    };
    let words = row.words().map_or(first_tokens.len(), <[String]>::len);
    let best = |token: &usize| softmax(&logits[*token]).into_iter().fold(0.0, f64::max);
    let scores = first_tokens.iter().map(|token| Some(best(token)));
    let tags = first_tokens
        .iter()
        .map(|token| Some(labels.names[argmax(&logits[*token])].clone()));
    let (mut scores, mut tags): (Vec<_>, Vec<_>) = (scores.collect(), tags.collect());
    scores.resize(words, None);
    tags.resize(words, None);
    Predicted {
        prediction: Prediction::Tags(tags),
        scores: json!(scores),
    }
}

/// The answer to a question.
fn of_question(task: &TaskSetup, row: &Row, windows: &[(&Example, &Logits)]) -> Predicted {
    let windows: Vec<AnswerWindow<'_>> = windows
        .iter()
        .filter_map(|(example, logits)| match logits {
            Logits::Span { start, end } => Some(AnswerWindow {
                start,
                end,
                parts: &example.parts,
            }),
            Logits::Row(_) | Logits::Tokens(_) | Logits::Windows(_) => None,
        })
        .collect();
    let context = row.question().map_or("", |question| &question.context);
    let options = AnswerOptions {
        max_answer_length: task.config.max_answer_length,
        null_score_diff_threshold: task.config.null_score_diff_threshold,
    };
    Predicted {
        prediction: Prediction::Answer(best_answer(context, &windows, &options)),
        scores: Value::Null,
    }
}

/// A row with what is right and what a model says of it, as texts.
pub(crate) fn sample_of(task: &TaskSetup, row: &Row, predicted: &Predicted) -> Scored {
    Scored {
        prompt: given(row),
        reference: gold(task, row).unwrap_or_default(),
        text: predicted.prediction.to_string(),
    }
}

/// What a model is given of a row.
fn given(row: &Row) -> String {
    match (row.text(), row.words(), row.question()) {
        (Some((text, None)), ..) => text.to_owned(),
        (Some((text, Some(pair))), ..) => format!("{text}\n{pair}"),
        (_, Some(words), _) => words.join(" "),
        (.., Some(question)) => format!("{}\n{}", question.question, question.context),
        // Token ids say nothing to a reader.
        _ => String::new(),
    }
}

/// What is right of a row, under the names of the classes.
fn gold(task: &TaskSetup, row: &Row) -> Option<String> {
    let Some(labels) = &task.labels else {
        let answers = row.question()?.answers.as_ref()?;
        return Some(answers.first().map_or("", |answer| &answer.text).to_owned());
    };
    let name = |class: usize| labels.names[class].as_str();
    if let Some(tags) = labels.gold_tags(row).ok()? {
        let tags = tags
            .iter()
            .map(|class| usize::try_from(*class).map_or("-", name));
        return Some(tags.collect::<Vec<_>>().join(" "));
    }
    Some(match labels.gold(row).ok()? {
        RowLabel::Class(class) => name(class).to_owned(),
        RowLabel::Classes(chosen) => {
            let names = labels.names.iter().zip(chosen);
            let names = names.filter_map(|(name, chosen)| chosen.then_some(name.as_str()));
            names.collect::<Vec<_>>().join(", ")
        }
        RowLabel::Values(values) => joined(&values),
        RowLabel::Span { .. } | RowLabel::Unknown => return None,
    })
}

fn joined(numbers: &[f32]) -> String {
    let numbers: Vec<String> = numbers
        .iter()
        .map(|number| format!("{number:.4}"))
        .collect();
    numbers.join(", ")
}

impl fmt::Display for Prediction {
    /// As a reader sees it; empty where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(name) => f.write_str(name),
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Tags(tags) => {
                let tags = tags.iter().map(|tag| tag.as_deref().unwrap_or("-"));
                f.write_str(&tags.collect::<Vec<_>>().join(" "))
            }
            Self::Number(number) => f.write_str(&joined(&[*number])),
            Self::Numbers(numbers) => f.write_str(&joined(numbers)),
            Self::Answer(answer) => f.write_str(&answer.text),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// How good the predictions for `rows` are; `None` where a row has no label.
pub(crate) fn scores_of(
    task: &TaskSetup,
    rows: &[(usize, Row)],
    predicted: &[Predicted],
) -> Option<TaskScores> {
    let rows = rows.iter().map(|(_, row)| row).zip(predicted);
    let Some(labels) = &task.labels else {
        let (mut gold, mut found) = (Vec::new(), Vec::new());
        for (row, predicted) in rows {
            let answers = row.question()?.answers.as_ref()?.iter();
            gold.push(answers.map(|answer| answer.text.clone()).collect());
            match &predicted.prediction {
                Prediction::Answer(answer) => found.push(answer.text.clone()),
                _ => return None,
            }
        }
        return Some(TaskScores::answers(&gold, &found));
    };
    let (mut gold_classes, mut classes) = (Vec::new(), Vec::new());
    let (mut gold_sets, mut sets) = (Vec::new(), Vec::new());
    let (mut gold_numbers, mut numbers) = (Vec::new(), Vec::new());
    let (mut gold_tags, mut tags) = (Vec::new(), Vec::new());
    for (row, predicted) in rows {
        if let Some(gold) = labels.gold_tags(row).ok()? {
            let Prediction::Tags(found) = &predicted.prediction else {
                return None;
            };
            // A token without a tag is not compared, and a word that was cut off is not either, as in run_ner.
            let known = gold.iter().zip(found).filter_map(|(class, tag)| {
                let class = usize::try_from(*class).ok()?;
                Some((labels.names[class].clone(), tag.clone()?))
            });
            let (gold, found): (Vec<String>, Vec<String>) = known.unzip();
            gold_tags.push(gold);
            tags.push(found);
            continue;
        }
        match (labels.gold(row).ok()?, &predicted.prediction) {
            (RowLabel::Class(class), Prediction::Label(name)) => {
                gold_classes.push(class);
                classes.push(labels.class(name)?);
            }
            (RowLabel::Classes(of_row), Prediction::Names(names)) => {
                gold_sets.push(of_row);
                let is_chosen = |name: &String| names.contains(name);
                sets.push(labels.names.iter().map(is_chosen).collect::<Vec<bool>>());
            }
            (RowLabel::Values(values), Prediction::Number(number)) => {
                gold_numbers.push(values);
                numbers.push(vec![*number]);
            }
            (RowLabel::Values(values), Prediction::Numbers(found)) => {
                gold_numbers.push(values);
                numbers.push(found.clone());
            }
            _ => return None,
        }
    }
    Some(if !tags.is_empty() {
        TaskScores::spans(&gold_tags, &tags)
    } else if !classes.is_empty() {
        TaskScores::classes(&gold_classes, &classes, labels)
    } else if !sets.is_empty() {
        TaskScores::multi_label(&gold_sets, &sets, labels)
    } else {
        TaskScores::regression(&gold_numbers, &numbers)
    })
}

/// The index of the greatest logit, the first of equal ones.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

/// Probabilities, in f64.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials = logits.iter().map(|logit| f64::from(logit - largest).exp());
    let exponentials: Vec<f64> = exponentials.collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

/// An object with a score for each name.
fn by_name(names: &[String], scores: &[f64]) -> Value {
    let scores = names.iter().zip(scores);
    Value::Object(Map::from_iter(
        scores.map(|(name, score)| (name.clone(), json!(score))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(problem_type: ProblemType) -> Labels {
        Labels {
            problem_type,
            names: vec!["a".into(), "b".into()],
        }
    }

    #[test]
    fn a_word_that_was_cut_off_has_no_tag_and_no_score() {
        let row = Row::Tagging {
            words: ["x", "y", "z"].map(String::from).into(),
            tags: None,
        };
        // The second token is a further one of the first word, and the third word was cut off.
        let example = Example {
            input_ids: vec![1, 2, 3],
            labels: vec![-100; 3],
            row_label: None,
            placement: None,
            parts: Parts::Words(vec![0, 2]),
            row: 0,
            line: 1,
        };
        let logits = [vec![0.0, 1.0], vec![9.0, 0.0], vec![2.0, 2.0]];
        let labels = labels(ProblemType::SingleLabel);
        let found = of_words(&row, &example, &logits, &labels);
        let tags = [Some("b".to_owned()), Some("a".to_owned()), None];
        assert_eq!(found.prediction, Prediction::Tags(tags.into()));
        assert_eq!(found.scores[1], json!(0.5));
        assert_eq!(found.scores[2], Value::Null);
    }

    #[test]
    fn what_a_text_is_follows_from_the_problem() {
        let of = |problem_type| of_text(&[1.0, -1.0], &labels(problem_type));
        let single = of(ProblemType::SingleLabel);
        assert_eq!(single.prediction, Prediction::Label("a".into()));
        let shares = ["a", "b"].map(|name| single.scores[name].as_f64().unwrap());
        assert!((shares[0] + shares[1] - 1.0).abs() < 1e-12, "{shares:?}");
        let several = of(ProblemType::MultiLabel);
        assert_eq!(several.prediction, Prediction::Names(vec!["a".into()]));
        let numbers = of(ProblemType::Regression);
        assert_eq!(numbers.prediction, Prediction::Numbers(vec![1.0, -1.0]));
        assert_eq!(numbers.scores, Value::Null);
    }
}
