//! The linear layer that gives chosen outputs for known inputs.
//!
//! Prefix Tuning starts from the keys and values of real words (Li and Liang 2021, §7.4). The paper trains its
//! MLP until the MLP gives them. Here its last layer is solved for, which is the limit of that.

/// The layer of least norm that gives `table` for `features`: weight `[columns, width]` and bias `[columns]`.
/// `features` is `[tokens, width]` and `table` `[tokens, columns]`; all are row-major.
///
/// With a column of ones appended to the features F for the bias, the layer is Fᵀ (F Fᵀ)⁻¹ · table. It is exact
/// where the features are wider than the prefix is long, and the nearest in squared error otherwise.
pub(crate) fn least_norm_layer(features: &[f64], table: &[f32], tokens: usize) -> [Vec<f32>; 2] {
    let (width, columns) = (features.len() / tokens, table.len() / tokens);
    let features: Vec<Vec<f64>> = features
        .chunks(width)
        .map(|row| [row, &[1.0]].concat())
        .collect();
    let table = table
        .chunks(columns)
        .map(|row| row.iter().map(|value| f64::from(*value)).collect());
    let dual = solve_gram(&features, table.collect()); // [tokens, columns]
    let entry = |column: usize, feature: usize| -> f32 {
        let products = (0..tokens).map(|token| features[token][feature] * dual[token][column]);
        products.sum::<f64>() as f32
    };
    let weight = (0..columns)
        .flat_map(|column| (0..width).map(move |feature| (column, feature)))
        .map(|(column, feature)| entry(column, feature));
    let bias = (0..columns).map(|column| entry(column, width));
    [weight.collect(), bias.collect()]
}

/// (F Fᵀ)⁻¹ · table for features F `[tokens, features]` and a table `[tokens, columns]`, by Cholesky's method.
/// Some tens of tokens in f64: a library of linear algebra would be most of this crate.
fn solve_gram(features: &[Vec<f64>], mut table: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let lower = cholesky_of_gram(features);
    let tokens = features.len();
    for row in 0..tokens {
        for (before, factor) in lower[row][..row].iter().enumerate() {
            subtract_row(&mut table, row, before, *factor);
        }
        divide_row(&mut table[row], lower[row][row]);
    }
    for row in (0..tokens).rev() {
        for (after, factors) in lower.iter().enumerate().skip(row + 1) {
            subtract_row(&mut table, row, after, factors[row]);
        }
        divide_row(&mut table[row], lower[row][row]);
    }
    table
}

/// The lower triangle L of F Fᵀ = L Lᵀ.
fn cholesky_of_gram(features: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let trace: f64 = features.iter().map(|row| dot(row, row)).sum();
    // Keeps the inverse finite where tokens outnumber features; far below f32's rounding otherwise.
    let ridge = 1e-12 * trace / features.len() as f64;
    let mut lower: Vec<Vec<f64>> = Vec::with_capacity(features.len());
    for row in 0..features.len() {
        let mut new: Vec<f64> = Vec::with_capacity(row + 1);
        for column in 0..=row {
            let gram = dot(&features[row], &features[column]);
            if column < row {
                new.push((gram - dot(&new, &lower[column][..column])) / lower[column][column]);
            } else {
                new.push((gram + ridge - dot(&new, &new)).max(ridge).sqrt());
            }
        }
        lower.push(new);
    }
    lower
}

/// Takes `factor` times the row `from` off the row `to`.
fn subtract_row(table: &mut [Vec<f64>], to: usize, from: usize, factor: f64) {
    let source = std::mem::take(&mut table[from]);
    for (value, other) in table[to].iter_mut().zip(&source) {
        *value -= factor * other;
    }
    table[from] = source;
}

fn divide_row(row: &mut [f64], divisor: f64) {
    row.iter_mut().for_each(|value| *value /= divisor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_wider_than_the_prefix_gives_the_table() {
        // Two tokens, three features, two columns.
        let features = [0.5, -0.25, 0.75, -0.5, 1.0, 0.125];
        let table = [1.0, -2.0, 3.0, 0.5];
        let [weight, bias] = least_norm_layer(&features, &table, 2);
        assert_eq!((weight.len(), bias.len()), (6, 2));
        for token in 0..2 {
            for column in 0..2 {
                let products =
                    (0..3).map(|i| features[3 * token + i] * f64::from(weight[3 * column + i]));
                let found = products.sum::<f64>() + f64::from(bias[column]);
                let expected = f64::from(table[2 * token + column]);
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }
}
