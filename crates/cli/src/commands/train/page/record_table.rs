//! The records of a run as a table.

use serde::Serialize;
use serde_json::Value;

/// Training records that are shown, evenly spread; of evaluations all.
const MOST_RECORDS: usize = 200;

/// Keys that have a column where a record has them.
const COLUMNS: [&str; 7] = [
    "step",
    "epoch",
    "loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
];

#[derive(Debug, Default, Serialize)]
pub(super) struct RecordTable {
    caption: String,
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Keys of an evaluation that are no scores, and the loss.
const KNOWN: [&str; 3] = ["eval_loss", "eval_label_tokens", "eval_seconds"];

/// The keys of the other scores that evaluations have, as `eval_accuracy`.
pub(super) fn other_scores(records: &[Value]) -> Vec<&str> {
    let objects = records.iter().filter_map(Value::as_object);
    let keys = objects.flat_map(|record| record.keys());
    let mut found: Vec<&str> = Vec::new();
    for key in keys {
        let is_other = key.starts_with("eval_") && !KNOWN.contains(&key.as_str());
        if is_other && !found.contains(&key.as_str()) {
            found.push(key);
        }
    }
    found
}

impl RecordTable {
    pub(super) fn of(records: &[Value]) -> Self {
        let is_evaluation = |record: &&Value| record.get("eval_loss").is_some();
        let logged = records.iter().filter(|record| !is_evaluation(record));
        let every = logged.count().div_ceil(MOST_RECORDS).max(1);
        let mut seen = 0;
        let shown = records.iter().filter(|record| {
            seen += usize::from(!is_evaluation(record));
            is_evaluation(record) || seen.is_multiple_of(every)
        });
        let shown: Vec<&Value> = shown.collect();
        let has = |key: &&str| shown.iter().any(|record| record[*key].is_number());
        let columns = COLUMNS.into_iter().chain(other_scores(records));
        let names: Vec<&str> = columns.filter(has).collect();
        let row = |record: &&Value| names.iter().map(|key| figure(&record[*key])).collect();
        Self {
            caption: match every {
                1 => format!("{} records of metrics.jsonl", shown.len()),
                _ => format!(
                    "{} of the {} records of metrics.jsonl",
                    shown.len(),
                    records.len()
                ),
            },
            rows: shown.iter().map(row).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

/// A number with five digits that count; nothing where there is none.
pub(super) fn figure(value: &Value) -> String {
    let Some(number) = value.as_f64() else {
        return String::new();
    };
    if value.is_u64() || number == 0.0 {
        return number.to_string();
    }
    match number.abs() {
        1e-3..1e5 => {
            let digits = (4 - number.abs().log10().floor() as i32).max(0) as usize;
            format!("{number:.digits$}")
        }
        _ => format!("{number:.4e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_long_run_every_evaluation_and_some_steps_are_shown() {
        let step = |step: usize| match step % 100 {
            0 => json!({"step": step, "eval_loss": 1.5}),
            _ => json!({"step": step, "loss": 2.5}),
        };
        let records: Vec<Value> = (1..=10_000).map(step).collect();
        let table = RecordTable::of(&records);
        let evaluations = table.rows.iter().filter(|row| row[2] == "1.5000");
        assert_eq!(evaluations.count(), 100);
        assert!(
            table.rows.len() <= MOST_RECORDS + 100,
            "{}",
            table.rows.len()
        );
        assert!(table.caption.contains("of the 10000 records"));
        assert_eq!(table.names, ["step", "loss", "eval_loss"]);
    }

    #[test]
    fn figures_have_five_digits_that_count() {
        let values = [
            json!(300),
            json!(2.34512),
            json!(0.0012345678),
            json!(1e-9),
            json!(null),
        ];
        let found = values.map(|value| figure(&value));
        assert_eq!(found, ["300", "2.3451", "0.0012346", "1.0000e-9", ""]);
    }
}
