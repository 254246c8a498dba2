//! Which values a run can work with.

use std::{borrow::Cow, fmt::Display};

use super::{DataConfig, DataFile, IntervalStrategy, RunConfig, SaveStrategy, Steps, TrainConfig};
use crate::Error;

impl RunConfig {
    /// Refuses values that cannot work, the first one found.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] or [`Error::BadValue`], naming the key.
    pub fn validate(&self) -> Result<(), Error> {
        self.check().map_err(|found| found.at(String::new()))
    }

    /// [`validate`](Self::validate), without the place where the value was given.
    pub(super) fn check(&self) -> Result<(), Violation> {
        self.method.validate()?;
        self.check_model_and_data()?;
        self.check_task()?;
        self.check_sizes()?;
        self.check_evaluations()?;
        self.check_optimizer()
    }

    fn check_model_and_data(&self) -> Result<(), Violation> {
        let (model, data) = (&self.model, &self.data);
        let path = model.path.as_deref();
        let given = path != Some("");
        require("model.path", "empty", given, "a folder or a hub id")?;
        let revision = model.revision.as_deref();
        require(
            "model.revision",
            revision.unwrap_or_default(),
            revision.is_none() || path.is_some(),
            "only beside model.path",
        )?;
        check_files(data)?;
        let length = data.max_length;
        require("data.max_length", length, length >= 2, "2 or more")?;
        let multiple = data.pad_to_multiple_of.unwrap_or(1);
        require(
            "data.pad_to_multiple_of",
            multiple,
            multiple >= 1,
            AT_LEAST_1,
        )?;
        let dir = self.output.dir.as_deref();
        let given = dir.is_none_or(|dir| !dir.as_os_str().is_empty());
        require("output.dir", "empty", given, "the path of a folder")
    }

    fn check_task(&self) -> Result<(), Violation> {
        let task = &self.task;
        let names = task.labels.as_deref();
        let given = names.is_none_or(|names| !names.is_empty());
        require("task.labels", "[]", given, "a class or more")?;
        let twice = names.and_then(|names| {
            let is_twice = |(at, name): &(usize, &String)| names[..*at].contains(name);
            names.iter().enumerate().find(is_twice)
        });
        let name = twice.map_or("", |(_, name)| name);
        require("task.labels", name, twice.is_none(), "once")?;
        let dropout = task.classifier_dropout;
        let possible = (0.0..1.0).contains(&dropout);
        let expected = "0 or more and below 1";
        require("task.classifier_dropout", dropout, possible, expected)?;
        let length = task.max_answer_length;
        require("task.max_answer_length", length, length >= 1, AT_LEAST_1)?;
        let threshold = task.null_score_diff_threshold;
        let key = "task.null_score_diff_threshold";
        require(key, threshold, threshold.is_finite(), "a number")
    }

    fn check_sizes(&self) -> Result<(), Violation> {
        let train = &self.train;
        for (key, value) in [
            (
                "train.per_device_train_batch_size",
                train.per_device_train_batch_size,
            ),
            (
                "train.per_device_eval_batch_size",
                train.per_device_eval_batch_size,
            ),
            (
                "train.gradient_accumulation_steps",
                train.gradient_accumulation_steps,
            ),
            (
                "train.save_total_limit",
                train.save_total_limit.unwrap_or(1),
            ),
        ] {
            require(key, value, value >= 1, AT_LEAST_1)?;
        }
        for (key, steps) in [
            ("train.logging_steps", Some(train.logging_steps)),
            ("train.eval_steps", train.eval_steps),
            ("train.save_steps", train.save_steps),
        ] {
            let possible = steps != Some(Steps::Count(0));
            require(key, 0, possible, "1 or more, or a share of all steps")?;
        }
        let steps = train.max_steps;
        let possible = steps == -1 || steps >= 1;
        require(
            "train.max_steps",
            steps,
            possible,
            "1 or more, or -1 for none",
        )?;
        // TOML's integers are signed.
        let seed = train.seed;
        require(
            "train.seed",
            seed,
            i64::try_from(seed).is_ok(),
            "below 2^63",
        )?;
        let seed = train.data_seed.unwrap_or(seed);
        let possible = i64::try_from(seed).is_ok();
        require("train.data_seed", seed, possible, "below 2^63")
    }

    fn check_evaluations(&self) -> Result<(), Violation> {
        let train = &self.train;
        let delay = train.eval_delay;
        let possible = delay >= 0.0 && delay.is_finite();
        require("train.eval_delay", delay, possible, "0 or more")?;
        let metric = train.metric_for_best_model.as_deref();
        let given = !matches!(metric, Some("" | "eval_"));
        let expected = "the name of a metric, as in \"loss\"";
        require("train.metric_for_best_model", "empty", given, expected)?;
        let patience = train.early_stopping_patience.unwrap_or(1);
        let key = "train.early_stopping_patience";
        require(key, patience, patience >= 1, AT_LEAST_1)?;
        let threshold = train.early_stopping_threshold;
        let possible = threshold >= 0.0 && threshold.is_finite();
        let key = "train.early_stopping_threshold";
        require(key, threshold, possible, "0 or more")?;
        let evaluates = train.eval_strategy != Some(IntervalStrategy::No);
        if let Some(key) = train.needs_evaluations().filter(|_| !evaluates) {
            return Err(Violation::Range {
                key: "train.eval_strategy",
                value: "no".into(),
                expected: format!("\"steps\" or \"epoch\" with {key}").into(),
            });
        }
        let saves = !train.load_best_model_at_end || train.save_strategy != SaveStrategy::No;
        let expected = "\"best\", \"steps\" or \"epoch\" with train.load_best_model_at_end";
        require("train.save_strategy", "no", saves, expected)
    }

    fn check_optimizer(&self) -> Result<(), Violation> {
        let train = &self.train;
        for (key, value) in [
            ("train.num_train_epochs", train.num_train_epochs),
            ("train.learning_rate", train.learning_rate.unwrap_or(1.0)),
            (
                "train.head_learning_rate",
                train.head_learning_rate.unwrap_or(1.0),
            ),
            ("train.adam_epsilon", train.adam_epsilon),
        ] {
            require(key, value, value > 0.0 && value.is_finite(), "above 0")?;
        }
        for (key, value) in [
            ("train.weight_decay", train.weight_decay),
            ("train.max_grad_norm", train.max_grad_norm),
        ] {
            require(key, value, value >= 0.0 && value.is_finite(), "0 or more")?;
        }
        for (key, value) in [
            ("train.adam_beta1", train.adam_beta1),
            ("train.adam_beta2", train.adam_beta2),
        ] {
            require(
                key,
                value,
                (0.0..1.0).contains(&value),
                "0 or more and below 1",
            )?;
        }
        let kwargs = train.lr_scheduler_kwargs.clone().unwrap_or_default();
        if let Some(message) = kwargs.fault(train.lr_scheduler_type, train.learning_rate) {
            let key = "train.lr_scheduler_kwargs".into();
            return Err(Violation::Method { key, message });
        }
        let ratio = train.warmup_ratio;
        let possible = (0.0..=1.0).contains(&ratio);
        require("train.warmup_ratio", ratio, possible, "between 0 and 1")
    }
}

impl TrainConfig {
    /// The key, as `section.key`, that can do nothing without evaluations while training.
    pub(crate) fn needs_evaluations(&self) -> Option<&'static str> {
        let keys = [
            ("train.load_best_model_at_end", self.load_best_model_at_end),
            (
                "train.early_stopping_patience",
                self.early_stopping_patience.is_some(),
            ),
            (
                "train.save_strategy = \"best\"",
                self.save_strategy == SaveStrategy::Best,
            ),
        ];
        keys.into_iter()
            .find_map(|(key, is_set)| is_set.then_some(key))
    }
}

fn check_files(data: &DataConfig) -> Result<(), Violation> {
    let files = data.train.as_ref().map(|files| files.0.as_slice());
    let given = files.is_none_or(|files| !files.is_empty());
    require("data.train", "[]", given, "a file or more")?;
    for DataFile { weight, .. } in files.unwrap_or_default() {
        let possible = *weight > 0.0 && *weight <= MOST_WEIGHT;
        let value = format!("a file with weight {weight}");
        require(
            "data.train",
            value,
            possible,
            "a weight above 0, up to 1000",
        )?;
    }
    let Some(split) = data.validation_split else {
        return Ok(());
    };
    let key = "data.validation_split";
    let expected = "a ratio between 0 and 1, or a whole number of rows";
    require(key, split, split.is_possible(), expected)?;
    require(key, split, data.valid.is_none(), "no data.valid beside it")
}

/// A guard against weights that are something else, such as numbers of rows.
const MOST_WEIGHT: f64 = 1000.0;

const AT_LEAST_1: &str = "1 or more";

/// A value that is of the right type and yet cannot be used.
pub(super) enum Violation {
    /// Found by this crate.
    Range {
        key: &'static str,
        value: String,
        expected: Cow<'static, str>,
    },
    /// Found by what the key is an option of.
    Method { key: String, message: String },
}

impl Violation {
    /// The key at fault, as `section.key`.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Range { key, .. } => key,
            Self::Method { key, .. } => key,
        }
    }

    pub(super) fn at(self, place: String) -> Error {
        match self {
            Self::Range {
                key,
                value,
                expected,
            } => Error::OutOfRange {
                place,
                key: key.into(),
                value,
                expected: expected.into_owned(),
            },
            Self::Method { key, message } => Error::BadValue {
                place,
                key,
                message,
            },
        }
    }
}

impl From<burn_peft::Error> for Violation {
    fn from(error: burn_peft::Error) -> Self {
        match error {
            burn_peft::Error::Option { name, reason } => Self::Method {
                key: format!("method.{name}"),
                message: reason,
            },
            other => Self::Method {
                key: "method".into(),
                message: other.to_string(),
            },
        }
    }
}

fn require(
    key: &'static str,
    value: impl Display,
    holds: bool,
    expected: &'static str,
) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    let value = value.to_string();
    Err(Violation::Range {
        key,
        value,
        expected: expected.into(),
    })
}
