//! How often each label occurs.

use burn_peft_data::{Example, IGNORE_INDEX, Parts, RowLabel, Task};
use serde::Serialize;

use crate::TaskSetup;

/// How often a label occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelCount {
    /// The class; of questions, whether there is an answer.
    pub label: String,
    /// Rows that have it; of tags, words.
    pub count: usize,
}

/// For each class of a task, how often it occurs, in the order of the classes; nothing of a task without classes.
pub(crate) fn label_counts(task: &TaskSetup, examples: &[Example]) -> Vec<LabelCount> {
    if task.task == Task::Qa {
        return answers(examples);
    }
    let Some(labels) = &task.labels else {
        return Vec::new();
    };
    let mut counts = vec![0; labels.names.len()];
    let mut found = false;
    for example in examples {
        match &example.row_label {
            Some(RowLabel::Class(class)) => {
                found = true;
                counts[*class] += 1;
            }
            Some(RowLabel::Classes(flags)) => {
                found = true;
                for (count, flag) in counts.iter_mut().zip(flags) {
                    *count += usize::from(*flag);
                }
            }
            None if task.task == Task::TokenCls => {
                found = true;
                let classes = example
                    .labels
                    .iter()
                    .filter(|&&label| label != IGNORE_INDEX);
                for class in classes {
                    counts[*class as usize] += 1;
                }
            }
            // Numbers have no classes, and rows with label words no label of their own.
            _ => {}
        }
    }
    let named = labels.names.iter().zip(counts);
    let named = named.map(|(label, count)| LabelCount {
        label: label.clone(),
        count,
    });
    if found { named.collect() } else { Vec::new() }
}

/// The windows with an answer, and those without.
fn answers(examples: &[Example]) -> Vec<LabelCount> {
    let [mut with, mut without] = [0, 0];
    for example in examples {
        let none = match &example.parts {
            Parts::Context { no_answer, .. } => *no_answer,
            _ => None,
        };
        match &example.row_label {
            Some(RowLabel::Span { start, .. }) if Some(*start) != none => with += 1,
            _ => without += 1,
        }
    }
    [("with an answer", with), ("without", without)]
        .map(|(label, count)| LabelCount {
            label: label.to_owned(),
            count,
        })
        .to_vec()
}
