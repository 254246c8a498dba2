//! The rows of a step, which several processes and micro-batches may have together.

use toml::{Table, Value};

use super::{Difference, Differences, RunIdentity};

/// Keys whose product with the number of ranks is the rows of a step.
pub(super) const STEP_KEYS: [&str; 2] = [
    "train.per_device_train_batch_size",
    "train.gradient_accumulation_steps",
];

/// Where the rows of a step come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepRows {
    batch: i64,
    accumulation: i64,
    ranks: i64,
}

impl StepRows {
    pub(super) fn of(run: &RunIdentity, config: &Table) -> Self {
        let number = |key| config.get(key).and_then(Value::as_integer).unwrap_or(1);
        let [batch, accumulation] = STEP_KEYS.map(number);
        Self {
            batch,
            accumulation,
            ranks: i64::try_from(run.ranks.max(1)).unwrap_or(i64::MAX),
        }
    }

    fn product(self) -> i128 {
        i128::from(self.batch) * i128::from(self.accumulation) * i128::from(self.ranks)
    }

    /// The same rows a step are the same run: to the last digit where the micro-batches are the same.
    pub(super) fn compare(self, found: Self, config: &Table, differences: &mut Differences) {
        if self == found {
            return;
        }
        let text = |rows: Self| format!("{} × {} × {}", rows.batch, rows.accumulation, rows.ranks);
        let mut difference = Difference {
            what: format!("{} × {} × ranks", STEP_KEYS[0], STEP_KEYS[1]),
            saved: text(self),
            found: text(found),
        };
        let same_rows = self.product() == found.product();
        let grouped = config.get("train.group_by_length") == Some(&Value::Boolean(true));
        let one_key = self.ranks == found.ranks
            && (self.batch == found.batch) != (self.accumulation == found.accumulation);
        if same_rows && self.batch == found.batch {
            differences.changed.push(difference);
        } else if same_rows && !grouped {
            differences.risky.push(difference);
        } else if one_key {
            let (key, saved, found) = match self.batch == found.batch {
                true => (STEP_KEYS[1], self.accumulation, found.accumulation),
                false => (STEP_KEYS[0], self.batch, found.batch),
            };
            differences.refused.push(Difference {
                what: key.to_owned(),
                saved: saved.to_string(),
                found: found.to_string(),
            });
        } else {
            let micro_batches = i128::from(found.batch) * i128::from(found.ranks);
            if !same_rows && self.product() % micro_batches == 0 {
                let would_do = self.product() / micro_batches;
                difference.found += &format!(" ({} = {would_do} would do)", STEP_KEYS[1]);
            }
            differences.refused.push(difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;
    use super::*;

    #[test]
    fn the_rows_of_a_step_may_come_from_other_ranks() {
        let run = |batch, accumulation, ranks, grouped| {
            let set = [
                format!("train.per_device_train_batch_size={batch}"),
                format!("train.gradient_accumulation_steps={accumulation}"),
                format!("train.group_by_length={grouped}"),
            ];
            RunIdentity {
                ranks,
                ..identity(&set.each_ref().map(String::as_str))
            }
        };
        let found = |saved: RunIdentity, found| {
            let Differences {
                refused,
                changed,
                risky,
            } = saved.differences(&found).unwrap();
            let all = [("refused", refused), ("changed", changed), ("risky", risky)];
            let all = all.into_iter().flat_map(|(name, found)| {
                found
                    .into_iter()
                    .map(move |difference| (name, difference.to_string()))
            });
            all.collect::<Vec<_>>()
        };
        let product =
            "train.per_device_train_batch_size × train.gradient_accumulation_steps × ranks";
        // Older checkpoints say nothing of ranks.
        assert_eq!(found(run(4, 2, 0, false), run(4, 2, 1, false)), []);
        let more = found(run(4, 4, 1, true), run(4, 1, 4, true));
        let said = format!("{product} was 4 × 4 × 1 and is 4 × 1 × 4");
        assert_eq!(more, [("changed", said)]);
        let other_batch = found(run(4, 1, 2, false), run(8, 1, 1, false));
        let said = format!("{product} was 4 × 1 × 2 and is 8 × 1 × 1");
        assert_eq!(other_batch, [("risky", said.clone())]);
        let other_groups = found(run(4, 1, 2, true), run(8, 1, 1, true));
        assert_eq!(other_groups, [("refused", said)]);
        let fewer = found(run(4, 1, 2, false), run(4, 1, 1, false));
        let said = format!(
            "{product} was 4 × 1 × 2 and is 4 × 1 × 1 (train.gradient_accumulation_steps = 2 would do)"
        );
        assert_eq!(fewer, [("refused", said)]);
    }
}
