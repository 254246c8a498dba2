//! Which classes are taken for which.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most classes whose counts are printed as a table.
const TABLE_CLASSES: usize = 12;

/// How many of the confusions are listed where there are too many classes for a table.
const LISTED: usize = 10;

/// How often each class was predicted for the rows of each class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// The names of the classes.
    pub names: Vec<String>,
    /// The rows of a file by their class and the predicted one: `[gold, predicted]`.
    pub counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// Counts pairs of classes, each of which is an index of `names`.
    pub fn of(gold: &[usize], predicted: &[usize], names: &[String]) -> Self {
        let mut counts = vec![vec![0; names.len()]; names.len()];
        for (gold, predicted) in gold.iter().zip(predicted) {
            counts[*gold][*predicted] += 1;
        }
        Self {
            names: names.to_vec(),
            counts,
        }
    }

    /// The rows of a class.
    pub fn gold(&self, class: usize) -> usize {
        self.counts[class].iter().sum()
    }

    /// The rows for which a class was predicted.
    pub fn predicted(&self, class: usize) -> usize {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// The rows of a class for which it was predicted.
    pub fn right(&self, class: usize) -> usize {
        self.counts[class][class]
    }

    /// The pairs of two classes that occur, the most frequent first.
    fn confusions(&self) -> Vec<(usize, &str, &str)> {
        let mut found = Vec::new();
        for (gold, row) in self.counts.iter().enumerate() {
            for (predicted, count) in row.iter().enumerate() {
                if gold != predicted && *count > 0 {
                    let names = (self.names[gold].as_str(), self.names[predicted].as_str());
                    found.push((*count, names.0, names.1));
                }
            }
        }
        found.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        found
    }
}

impl fmt::Display for ConfusionMatrix {
    /// A table with a line for each class and a column for each prediction; of more than twelve classes, the
    /// most frequent confusions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.len() > TABLE_CLASSES {
            let confusions = self.confusions();
            for (count, gold, predicted) in confusions.iter().take(LISTED) {
                let (gold, predicted) = (one_line(gold), one_line(predicted));
                writeln!(f, "{count} of {gold} taken for {predicted}")?;
            }
            return match confusions.len().saturating_sub(LISTED) {
                0 => Ok(()),
                more => writeln!(f, "and {more} more pairs of classes"),
            };
        }
        let corner = "gold \\ predicted";
        let names: Vec<String> = self.names.iter().map(|name| one_line(name)).collect();
        let digits = |count: &usize| count.to_string().len();
        let first = names.iter().map(|name| name.chars().count());
        let first = first.chain([corner.len()]).max().unwrap_or_default();
        let column = |class: usize| {
            let counts = self.counts.iter().map(|row| digits(&row[class]));
            counts.chain([names[class].chars().count()]).max()
        };
        let widths: Vec<usize> = (0..names.len())
            .map(|class| column(class).unwrap_or_default())
            .collect();
        write!(f, "{corner:<first$}")?;
        for (name, width) in names.iter().zip(&widths) {
            write!(f, "  {name:>width$}")?;
        }
        writeln!(f)?;
        for (name, row) in names.iter().zip(&self.counts) {
            write!(f, "{name:<first$}")?;
            for (count, width) in row.iter().zip(&widths) {
                write!(f, "  {count:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A name as a table has it: whoever names classes may break lines.
fn one_line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_also_where_names_are_not_ascii() {
        let names = ["好".to_owned(), "terrible".to_owned()];
        let found = ConfusionMatrix::of(&[0, 0, 1, 1, 1], &[0, 1, 1, 1, 0], &names);
        assert_eq!(
            found.to_string(),
            "gold \\ predicted  好  terrible\n\
             好                 1         1\n\
             terrible          1         2\n"
        );
    }

    #[test]
    fn of_many_classes_the_most_frequent_confusions_are_listed() {
        let names: Vec<String> = (0..13).map(|class| format!("c{class}")).collect();
        let gold = [0, 1, 1, 2, 2, 2];
        let found = ConfusionMatrix::of(&gold, &[0, 3, 3, 2, 2, 4], &names);
        assert_eq!(
            found.to_string(),
            "2 of c1 taken for c3\n1 of c2 taken for c4\n"
        );
        let gold: Vec<usize> = (0..12).collect();
        let predicted: Vec<usize> = (1..13).collect();
        let found = ConfusionMatrix::of(&gold, &predicted, &names).to_string();
        assert_eq!(found.lines().count(), 11);
        assert!(found.ends_with("and 2 more pairs of classes\n"), "{found}");
    }
}
