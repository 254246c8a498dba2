//! Scores of classes, as scikit-learn computes them.

use burn_peft_data::Labels;
use serde::{Deserialize, Serialize};

use super::{ConfusionMatrix, f1_of_counts, mean, share};

/// Scores of rows that have one class each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The share of rows whose class was predicted.
    pub accuracy: f64,
    /// The mean F1 over the classes that occur among the rows or the predictions, as `f1_score(average="macro")`.
    pub f1_macro: f64,
    /// F1 over all rows, as `f1_score(average="micro")`. Where every row has one class, it is the accuracy.
    pub f1_micro: f64,
    /// The correlation of Matthews for any number of classes, as `matthews_corrcoef`: 0 where it is not defined,
    /// because all rows or all predictions are of one class.
    pub matthews: f64,
    /// Which classes are taken for which.
    pub confusion_matrix: ConfusionMatrix,
}

impl ClassScores {
    pub(super) fn of(gold: &[usize], predicted: &[usize], labels: &Labels) -> Self {
        assert_eq!(gold.len(), predicted.len(), "a prediction for each row");
        let matrix = ConfusionMatrix::of(gold, predicted, &labels.names);
        let classes = 0..labels.len();
        let accuracy = share(classes.clone().map(|c| matrix.right(c)).sum(), gold.len());
        let counts = classes.map(|c| (matrix.right(c), matrix.gold(c), matrix.predicted(c)));
        let occurring = counts.filter(|(_, gold, predicted)| gold + predicted > 0);
        let each: Vec<f64> = occurring
            .map(|(right, gold, predicted)| f1_of_counts(right, gold, predicted))
            .collect();
        Self {
            accuracy,
            f1_macro: mean(&each),
            f1_micro: accuracy,
            matthews: matthews(&matrix),
            confusion_matrix: matrix,
        }
    }
}

/// The correlation of Matthews, by Gorodkin's formula for several classes (2004).
fn matthews(matrix: &ConfusionMatrix) -> f64 {
    // Integers, because zero has to be found exactly.
    let [mut rows, mut right, mut both, mut of_gold, mut of_predicted] = [0_i128; 5];
    for class in 0..matrix.names.len() {
        let (gold, predicted) = (matrix.gold(class) as i128, matrix.predicted(class) as i128);
        rows += gold;
        right += matrix.right(class) as i128;
        both += gold * predicted;
        of_gold += gold * gold;
        of_predicted += predicted * predicted;
    }
    let of_gold = (rows * rows - of_gold) as f64;
    let of_predicted = (rows * rows - of_predicted) as f64;
    if of_gold * of_predicted == 0.0 {
        return 0.0;
    }
    (right * rows - both) as f64 / (of_gold * of_predicted).sqrt()
}

/// Scores of rows that have any number of classes each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelScores {
    /// The share of rows of which every class, and no other, was predicted.
    pub accuracy: f64,
    /// The mean F1 over all classes, as `f1_score(average="macro")`: 0 of a class that does not occur.
    pub f1_macro: f64,
    /// F1 over all pairs of a row and a class, as `f1_score(average="micro")`.
    pub f1_micro: f64,
}

impl MultiLabelScores {
    pub(super) fn of<R: AsRef<[bool]>>(gold: &[R], predicted: &[R], labels: &Labels) -> Self {
        assert_eq!(gold.len(), predicted.len(), "a prediction for each row");
        let mut counts = vec![[0_usize; 3]; labels.len()];
        let mut exact = 0;
        for (gold, predicted) in gold.iter().zip(predicted) {
            let (gold, predicted) = (gold.as_ref(), predicted.as_ref());
            exact += usize::from(gold == predicted);
            for (class, of_class) in counts.iter_mut().enumerate() {
                of_class[0] += usize::from(gold[class] && predicted[class]);
                of_class[1] += usize::from(gold[class]);
                of_class[2] += usize::from(predicted[class]);
            }
        }
        let f1 = |[right, gold, predicted]: [usize; 3]| f1_of_counts(right, gold, predicted);
        let each: Vec<f64> = counts.iter().map(|of_class| f1(*of_class)).collect();
        let all = [0, 1, 2].map(|kind| counts.iter().map(|of_class| of_class[kind]).sum());
        Self {
            accuracy: share(exact, gold.len()),
            f1_macro: mean(&each),
            f1_micro: f1(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Cases, assert_close};
    use super::*;
    use burn_peft_data::ProblemType;

    #[test]
    fn classes_score_as_in_scikit_learn() {
        let cases = Cases::read(include_str!(
            "../../../../tests/fixtures/metrics/classes.json"
        ));
        for case in cases.at_least(300) {
            let labels = Labels::numbered(case.parse("classes"), ProblemType::SingleLabel);
            let gold: Vec<usize> = case.parse("gold");
            let found = ClassScores::of(&gold, &case.parse::<Vec<usize>>("predicted"), &labels);
            let names = ["accuracy", "f1_macro", "f1_micro", "matthews"];
            let values = [
                found.accuracy,
                found.f1_macro,
                found.f1_micro,
                found.matthews,
            ];
            for (name, value) in names.into_iter().zip(values) {
                assert_close(value, case.parse(name), &format!("{name} of {case}"));
            }
            assert_eq!(
                found.confusion_matrix.counts,
                case.parse::<Vec<Vec<usize>>>("confusion_matrix")
            );
        }
    }

    #[test]
    fn several_classes_a_row_score_as_in_scikit_learn() {
        let cases = Cases::read(include_str!(
            "../../../../tests/fixtures/metrics/multi_label.json"
        ));
        for case in cases.at_least(300) {
            let labels = Labels::numbered(case.parse("classes"), ProblemType::MultiLabel);
            let rows = |name| -> Vec<Vec<bool>> {
                let rows: Vec<String> = case.parse(name);
                let row = |row: &String| row.chars().map(|bit| bit == '1').collect();
                rows.iter().map(row).collect()
            };
            let found = MultiLabelScores::of(&rows("gold"), &rows("predicted"), &labels);
            let names = ["accuracy", "f1_macro", "f1_micro"];
            let values = [found.accuracy, found.f1_macro, found.f1_micro];
            for (name, value) in names.into_iter().zip(values) {
                assert_close(value, case.parse(name), &format!("{name} of {case}"));
            }
        }
    }
}
