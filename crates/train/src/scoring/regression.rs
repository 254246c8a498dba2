//! Scores of numbers, as SciPy computes them.

use serde::{Deserialize, Serialize};

use super::mean;

/// How well predicted numbers follow the right ones. Of a head with several outputs, the mean over these.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegressionScores {
    /// Pearson's correlation. `None` where it is not defined: of fewer than two rows, of numbers that are all the same or
    /// not finite.
    pub pearson: Option<f64>,
    /// Spearman's correlation, which is that of the ranks. Equal numbers share the mean of their ranks. `None` as
    /// above.
    pub spearman: Option<f64>,
}

impl RegressionScores {
    pub(super) fn of<R: AsRef<[f32]>>(gold: &[R], predicted: &[R]) -> Self {
        assert_eq!(gold.len(), predicted.len(), "a prediction for each row");
        let outputs = gold.first().map_or(0, |row| row.as_ref().len());
        let column = |rows: &[R], output: usize| -> Vec<f64> {
            let values = rows.iter().map(|row| f64::from(row.as_ref()[output]));
            values.collect()
        };
        let columns: Vec<_> = (0..outputs)
            .map(|output| (column(gold, output), column(predicted, output)))
            .collect();
        let spearman = |(a, b): &(Vec<f64>, Vec<f64>)| pearson(&ranks(a), &ranks(b));
        Self {
            pearson: mean_if_defined(columns.iter().map(|(a, b)| pearson(a, b))),
            spearman: mean_if_defined(columns.iter().map(spearman)),
        }
    }
}

fn mean_if_defined(each: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let each: Vec<f64> = each.collect::<Option<_>>()?;
    (!each.is_empty()).then(|| mean(&each))
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (direction(a)?, direction(b)?);
    let dot: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    // Rounding can lead out of the range.
    Some(dot.clamp(-1.0, 1.0))
}

/// The differences from the mean, scaled to length one. `None` where there is no difference.
fn direction(values: &[f64]) -> Option<Vec<f64>> {
    let is_constant = values.iter().all(|value| *value == values[0]);
    if is_constant || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let mean = mean(values);
    let mut differences: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let length = differences.iter().map(|d| d * d).sum::<f64>().sqrt();
    for difference in &mut differences {
        *difference /= length;
    }
    Some(differences)
}

/// The rank of each value from 1; equal values share the mean of their ranks. A value that is not a number makes all
/// ranks so.
fn ranks(values: &[f64]) -> Vec<f64> {
    if values.iter().any(|value| value.is_nan()) {
        return vec![f64::NAN; values.len()];
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // `-0.0` and `0.0` are neighbours in the order, and equal here.
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        for index in equal {
            ranks[*index] = before as f64 + (equal.len() + 1) as f64 / 2.0;
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Cases, assert_close};
    use super::*;

    fn columns(values: &[f32]) -> Vec<[f32; 1]> {
        values.iter().map(|value| [*value]).collect()
    }

    #[test]
    fn correlations_are_those_of_scipy() {
        let cases = Cases::read(include_str!(
            "../../../../tests/fixtures/metrics/regression.json"
        ));
        for case in cases.at_least(300) {
            let gold: Vec<f32> = case.parse("gold");
            let predicted: Vec<f32> = case.parse("predicted");
            let found = RegressionScores::of(&columns(&gold), &columns(&predicted));
            for (name, value) in [("pearson", found.pearson), ("spearman", found.spearman)] {
                match (value, case.parse::<Option<f64>>(name)) {
                    (Some(value), Some(expected)) => {
                        assert_close(value, expected, &format!("{name} of {case}"));
                    }
                    (found, expected) => assert_eq!(found, expected, "{name} of {case}"),
                }
            }
        }
    }

    #[test]
    fn what_is_not_defined_is_null() {
        for (gold, predicted) in [
            (vec![], vec![]),
            (vec![1.0], vec![2.0]),
            (vec![1.0, 2.0], vec![3.0, 3.0]),
            (vec![1.0, 2.0], vec![3.0, f32::NAN]),
        ] {
            let found = RegressionScores::of(&columns(&gold), &columns(&predicted));
            assert_eq!((found.pearson, found.spearman), (None, None), "{gold:?}");
            let json = serde_json::to_string(&found).unwrap();
            assert_eq!(json, r#"{"pearson":null,"spearman":null}"#);
        }
        // An infinite number has a rank, but no distance from the mean.
        let found = RegressionScores::of(
            &columns(&[1.0, 2.0, 3.0]),
            &columns(&[1.0, 2.0, f32::INFINITY]),
        );
        assert_eq!(found.pearson, None);
        assert_close(found.spearman.unwrap(), 1.0, "spearman");
    }

    #[test]
    fn of_several_outputs_it_is_the_mean() {
        let gold = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]];
        let predicted = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]];
        let found = RegressionScores::of(&gold, &predicted);
        assert_close(found.pearson.unwrap(), 0.0, "pearson");
        assert_close(found.spearman.unwrap(), 0.0, "spearman");
    }
}
