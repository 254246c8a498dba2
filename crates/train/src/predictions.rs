//! What a model says of rows, under the names of their classes.

use burn_peft_data::{Example, Labels, Parts, ProblemType, Row, Rows, Task};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    ExampleLoss, Logits, TaskScores, TaskSetup,
    scoring::{Answer, AnswerOptions, Window, best_answer},
};

/// What a model says of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predicted {
    /// The answer.
    pub prediction: Prediction,
    /// How sure the model is: the probability of each class by its name; of tags, that of each chosen one; of an answer,
    /// the scores of the best one and of none. Null of a number.
    pub scores: Value,
}

/// The answer for one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// The name of its class.
    Label(String),
    /// The names of its classes, or the tags of its words.
    Names(Vec<String>),
    /// Its number.
    Number(f32),
    /// Its numbers.
    Numbers(Vec<f32>),
    /// Where in the text the answer is.
    Answer(Answer),
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
    let labels = task.labels.as_ref();
    let of_row = |((_, row), windows): (&(usize, Row), Vec<(&Example, &Logits)>)| {
        match (windows.as_slice(), labels) {
            ([(_, Logits::Row(logits))], Some(labels)) => of_text(logits, labels),
            ([(example, Logits::Tokens(logits))], Some(labels)) => {
                of_words(row, example, logits, labels)
            }
            (windows, _) => of_question(task, row, windows),
        }
    };
    rows.iter().zip(of_rows).map(of_row).collect()
}
