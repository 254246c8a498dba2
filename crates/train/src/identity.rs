//! What makes a run that run and no other, so that `--resume` goes on with it or refuses.

mod step_rows;

use std::collections::BTreeSet;
use std::fmt;

use burn_peft_data::{Example, Mix};
use burn_peft_files::Checksum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use self::step_rows::{STEP_KEYS, StepRows};
use crate::{Error, Ranks, RunConfig};

/// Keys of run.toml that another key or a checksum stands for: files may move.
const ELSEWHERE: [&str; 5] = [
    "model.path",
    "model.revision",
    "data.train",
    "data.valid",
    "output.dir",
];

/// Keys that may be changed on purpose in the middle of a run.
const CHANGEABLE: [&str; 21] = [
    "data.test",
    "train.num_train_epochs",
    "train.max_steps",
    "train.learning_rate",
    "train.head_learning_rate",
    "train.logging_strategy",
    "train.logging_steps",
    "train.logging_first_step",
    "train.eval_strategy",
    "train.eval_steps",
    "train.eval_delay",
    "train.save_strategy",
    "train.save_steps",
    "train.load_best_model_at_end",
    "train.early_stopping_patience",
    "train.early_stopping_threshold",
    "train.save_total_limit",
    "train.predict_with_generate",
    "train.per_device_eval_batch_size",
    "train.gradient_checkpointing",
    "train.report_to",
];

/// A run, as each of its checkpoints remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The version of this program.
    pub version: String,
    /// What computed it.
    pub backend: String,
    /// The fingerprint of the base's weights.
    pub base_fingerprint: String,
    /// A checksum of what the model's chat template makes of a short conversation; empty without one.
    pub chat_template: String,
    /// A checksum of the tokenised training rows, with labels and places of virtual tokens.
    pub train_rows: String,
    /// The same of the validation rows; empty without any.
    pub valid_rows: String,
    /// Processes that share each step. Checkpoints of older versions have 0, for one.
    #[serde(default)]
    pub ranks: usize,
    /// The resolved run.toml.
    pub config: String,
}

/// Something in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is: a key of run.toml, or `the base`.
    pub what: String,
    /// As it was.
    pub saved: String,
    /// As it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, saved, found } = self;
        write!(f, "{what} was {saved} and is {found}")
    }
}

/// In what two runs differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// What makes them two runs.
    pub(crate) refused: Vec<Difference>,
    /// What may be changed on purpose.
    pub(crate) changed: Vec<Difference>,
    /// What should make no difference, and does in the last digits.
    pub(crate) risky: Vec<Difference>,
}

impl RunIdentity {
    /// Refuses to begin where another rank would do another run.
    pub(crate) fn check_ranks(&self, ranks: &Ranks, test: Option<&[Example]>) -> Result<(), Error> {
        if ranks.is_alone() {
            return Ok(());
        }
        let keys = keys_of(&self.config)?;
        let keys = keys
            .iter()
            .filter(|(key, _)| !ELSEWHERE.contains(&key.as_str()));
        let keys: Vec<String> = keys
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        ranks.check_same(&[
            ("the version of burn-peft", self.version.clone()),
            ("the backend", self.backend.clone()),
            ("the base", self.base_fingerprint.clone()),
            ("the chat template", self.chat_template.clone()),
            ("the training data", self.train_rows.clone()),
            ("the validation data", self.valid_rows.clone()),
            (
                "the test data",
                test.map_or_else(String::new, checksum_of_rows),
            ),
            ("run.toml", keys.join("\n")),
        ])
    }

    /// In what `found`, which is to go on, differs from this run.
    pub(crate) fn differences(&self, found: &Self) -> Result<Differences, Error> {
        let mut differences = Differences::default();
        let (saved_config, found_config) = (keys_of(&self.config)?, keys_of(&found.config)?);
        let value = |config: &Table, key: &str| match config.get(key) {
            Some(value) => value.to_string(),
            None => "absent".to_owned(),
        };
        // The file by its name where it has another, else by what is in it.
        let named = |key: &str, saved: &str, found: &str| {
            let names = (value(&saved_config, key), value(&found_config, key));
            match names.0 == names.1 {
                true => (short(saved), short(found)),
                false => names,
            }
        };
        for (what, key, saved, found) in [
            (
                "the base",
                "model.path",
                &self.base_fingerprint,
                &found.base_fingerprint,
            ),
            (
                "the training data",
                "data.train",
                &self.train_rows,
                &found.train_rows,
            ),
            (
                "the validation data",
                "data.valid",
                &self.valid_rows,
                &found.valid_rows,
            ),
        ] {
            if saved != found {
                let (saved, found) = named(key, saved, found);
                let what = what.to_owned();
                differences.refused.push(Difference { what, saved, found });
            }
        }
        // Only where it matters: other rows than conversations do not go through it.
        if !differences.refused.is_empty() && self.chat_template != found.chat_template {
            differences.refused.push(Difference {
                what: "the chat template".into(),
                saved: short(&self.chat_template),
                found: short(&found.chat_template),
            });
        }
        let keys: BTreeSet<&String> = saved_config.keys().chain(found_config.keys()).collect();
        for key in keys {
            let elsewhere = ELSEWHERE.contains(&key.as_str()) || STEP_KEYS.contains(&key.as_str());
            if elsewhere || saved_config.get(key) == found_config.get(key) {
                continue;
            }
            let difference = Difference {
                what: key.clone(),
                saved: value(&saved_config, key),
                found: value(&found_config, key),
            };
            match CHANGEABLE.contains(&key.as_str()) {
                true => differences.changed.push(difference),
                false => differences.refused.push(difference),
            }
        }
        let steps = [(self, &saved_config), (found, &found_config)];
        let [saved, new] = steps.map(|(run, config)| StepRows::of(run, config));
        saved.compare(new, &found_config, &mut differences);
        for (what, saved, found) in [
            ("the backend", &self.backend, &found.backend),
            ("the version of burn-peft", &self.version, &found.version),
        ] {
            if saved != found {
                differences.risky.push(Difference {
                    what: what.to_owned(),
                    saved: saved.clone(),
                    found: found.clone(),
                });
            }
        }
        Ok(differences)
    }
}

/// The values of a run.toml by `section.key`.
fn keys_of(config: &str) -> Result<Table, Error> {
    let sections: Table = toml::from_str(config).map_err(|error| Error::ConfigSyntax {
        place: "the checkpoint's run.toml: ".into(),
        message: error.message().to_owned(),
    })?;
    let mut keys = Table::new();
    // A key that came later than the run had its default.
    for (section, value) in defaults()?.into_iter().chain(sections) {
        let Value::Table(table) = value else { continue };
        for (key, value) in table {
            keys.insert(format!("{section}.{key}"), value);
        }
    }
    Ok(keys)
}

/// The sections that every run has, with their defaults.
fn defaults() -> Result<Table, Error> {
    let RunConfig { data, train, .. } = RunConfig::default();
    let sections = [
        ("data", Value::try_from(data)),
        ("train", Value::try_from(train)),
    ];
    let section = |(name, value): (&str, Result<Value, _>)| {
        let value = value.map_err(|error: toml::ser::Error| Error::ConfigSyntax {
            place: String::new(),
            message: error.to_string(),
        });
        Ok((name.to_owned(), value?))
    };
    sections.into_iter().map(section).collect()
}

/// Enough of a checksum to tell two apart.
fn short(checksum: &str) -> String {
    match checksum {
        "" => "absent".to_owned(),
        text => text.chars().take(12).collect(),
    }
}

/// A checksum of tokenised rows, and of how often an epoch has them where that is not once.
pub(crate) fn checksum_of_mixed(examples: &[Example], mix: &Mix) -> String {
    let rows = checksum_of_rows(examples);
    match mix.is_once() {
        true => rows,
        false => Checksum::of(format!("{rows} {mix:?}").as_bytes()).to_string(),
    }
}

/// A checksum of tokenised rows, in their order.
pub(crate) fn checksum_of_rows(examples: &[Example]) -> String {
    let mut bytes = Vec::new();
    // Of each row first, so that only one row is held twice.
    let mut all = Vec::with_capacity(16 * examples.len());
    for example in examples {
        bytes.clear();
        let placement = example.placement.as_deref();
        let placed = placement.map_or(u64::MAX, |cells| cells.len() as u64);
        bytes.extend((example.input_ids.len() as u64).to_le_bytes());
        bytes.extend(placed.to_le_bytes());
        bytes.extend(example.input_ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(example.labels.iter().flat_map(|label| label.to_le_bytes()));
        // Its text form has every number to the last digit.
        let label = example.row_label.iter().map(|label| format!("{label:?}"));
        bytes.extend(label.flat_map(String::into_bytes));
        let cells = placement.unwrap_or_default();
        bytes.extend(cells.iter().flat_map(|cell| (*cell as u64).to_le_bytes()));
        all.extend(Checksum::of(&bytes).to_string().into_bytes());
    }
    Checksum::of(&all).to_string()
}

#[cfg(test)]
mod tests {
    use burn_peft_data::{Parts, RowLabel};

    use super::*;
    use crate::Override;

    pub(super) fn identity(set: &[&str]) -> RunIdentity {
        let overrides: Vec<_> = set.iter().map(|s| Override::parse(s).unwrap()).collect();
        let config = RunConfig::load(None, &overrides).unwrap();
        RunIdentity {
            config: config.to_toml().unwrap(),
            base_fingerprint: "1111".into(),
            train_rows: "2222".into(),
            ..RunIdentity::default()
        }
    }

    fn names(differences: &[Difference]) -> Vec<&str> {
        differences.iter().map(|d| d.what.as_str()).collect()
    }

    #[test]
    fn every_key_is_refused_unless_it_may_change() {
        let saved = identity(&[]);
        for (set, changed) in [
            ("train.max_steps=7", true),
            ("train.learning_rate=1e-5", true),
            ("train.logging_steps=3", true),
            ("train.seed=1", false),
            ("train.per_device_train_batch_size=3", false),
            ("train.weight_decay=0.5", false),
            ("method.num_virtual_tokens=3", false),
            ("data.max_length=3", false),
            ("data.validation_split=0.1", false),
            ("data.excess_length_strategy=drop", false),
            ("data.template={input}{completion}", false),
            ("model.dtype=bf16", false),
        ] {
            let key = set.split('=').next().unwrap();
            let found = saved.differences(&identity(&[set])).unwrap();
            let (named, other) = match changed {
                true => (&found.changed, &found.refused),
                false => (&found.refused, &found.changed),
            };
            assert_eq!((names(named), other.len()), (vec![key], 0), "{set}");
        }
        assert_eq!(
            saved.differences(&saved).unwrap(),
            Differences::default(),
            "a run is itself"
        );
    }

    #[test]
    fn files_may_move_and_may_not_change() {
        let saved = identity(&["data.train=a.jsonl", "output.dir=x"]);
        let moved = identity(&["data.train=b.jsonl", "output.dir=y"]);
        assert_eq!(saved.differences(&moved).unwrap(), Differences::default());
        let other = RunIdentity {
            train_rows: "3333".into(),
            ..moved
        };
        let found = saved.differences(&other).unwrap();
        let expected = Difference {
            what: "the training data".into(),
            saved: "\"a.jsonl\"".into(),
            found: "\"b.jsonl\"".into(),
        };
        assert_eq!(found.refused, [expected]);
    }

    #[test]
    fn a_key_that_the_run_was_saved_without_had_its_default() {
        let found = identity(&[]);
        let config: Vec<&str> = found.config.lines().collect();
        let without = config.iter().filter(|line| !line.starts_with("supervise"));
        let saved = RunIdentity {
            config: without.copied().collect::<Vec<_>>().join("\n"),
            ..found.clone()
        };
        assert_ne!(saved.config, found.config);
        assert_eq!(saved.differences(&found).unwrap(), Differences::default());
        let other = saved
            .differences(&identity(&["data.supervise=all"]))
            .unwrap();
        assert_eq!(names(&other.refused), ["data.supervise"]);
    }

    #[test]
    fn another_backend_is_said_and_not_refused() {
        let saved = identity(&[]);
        let other = RunIdentity {
            backend: "vulkan".into(),
            ..saved.clone()
        };
        let found = saved.differences(&other).unwrap();
        assert_eq!(
            (names(&found.risky), found.refused.len()),
            (vec!["the backend"], 0)
        );
    }

    #[test]
    fn rows_of_other_weights_are_other_rows() {
        let sum = |files: &[(usize, f64)]| checksum_of_mixed(&[], &Mix::new(files.iter().copied()));
        assert_eq!(sum(&[(4, 1.0), (3, 1.0)]), checksum_of_rows(&[]));
        let sums = [
            &[(4, 1.0), (3, 1.0)],
            &[(4, 1.0), (3, 2.0)],
            &[(4, 1.0), (3, 0.5)],
            &[(3, 1.0), (4, 2.0)],
        ];
        let sums: BTreeSet<String> = sums.iter().map(|files| sum(*files)).collect();
        assert_eq!(sums.len(), 4);
    }

    #[test]
    fn rows_are_told_apart_by_ids_labels_and_places() {
        let row = |ids: &[u32], labels: &[i64], placement: Option<Vec<usize>>| Example {
            input_ids: ids.into(),
            labels: labels.into(),
            row_label: None,
            placement,
            parts: Parts::Whole,
            row: 0,
            line: 1,
        };
        let rows = [
            row(&[1, 2], &[-100, 2], None),
            row(&[1, 3], &[-100, 3], None),
            row(&[1, 2], &[-100, -100], None),
            row(&[1, 2], &[-100, 2], Some(vec![])),
            row(&[1, 2], &[-100, 2], Some(vec![1])),
        ];
        let labelled = |label| Example {
            row_label: Some(label),
            ..row(&[1, 2], &[-100, -100], None)
        };
        let rows: Vec<Example> = rows
            .into_iter()
            .chain([
                labelled(RowLabel::Class(0)),
                labelled(RowLabel::Class(1)),
                labelled(RowLabel::Values(vec![0.5])),
                labelled(RowLabel::Span { start: 0, end: 1 }),
            ])
            .collect();
        let sums: BTreeSet<String> = rows
            .iter()
            .map(|row| checksum_of_rows(std::slice::from_ref(row)))
            .collect();
        assert_eq!(sums.len(), rows.len());
        let swapped = [rows[1].clone(), rows[0].clone()];
        assert_ne!(checksum_of_rows(&swapped), checksum_of_rows(&rows[..2]));
    }
}
