//! Reads `run.toml`, and `--set` overrides over it.

use std::path::Path;

use toml::Value;

use super::RunConfig;
use super::document::Document;
use crate::Error;

/// One value that goes before the file's, as from `--set section.key=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    section: String,
    key: String,
    value: Value,
    place: String,
}

impl Override {
    /// Parses `section.key=value`. The value is TOML; what is not TOML is taken as a string, so
    /// that `--set output.dir=runs/a` needs no quotes.
    ///
    /// # Errors
    /// [`Error::BadOverride`] where the text has no `=` or no section.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadOverride { text: text.into() };
        let (path, value) = text.split_once('=').ok_or_else(bad)?;
        let (section, key) = path.trim().split_once('.').ok_or_else(bad)?;
        if section.is_empty() || key.is_empty() {
            return Err(bad());
        }
        let value = value.trim();
        let value = value
            .parse()
            .unwrap_or_else(|_| Value::String(value.into()));
        Ok(Self {
            section: section.into(),
            key: key.into(),
            value,
            place: "--set".into(),
        })
    }

    /// An override from a flag of its own, such as `--seed`: `place` is what errors point to.
    pub fn new(section: &str, key: &str, value: impl Into<Value>, place: &str) -> Self {
        Self {
            section: section.into(),
            key: key.into(),
            value: value.into(),
            place: place.into(),
        }
    }
}

impl RunConfig {
    /// Reads the file (absent: all defaults), puts the overrides over it in their order, and
    /// validates.
    ///
    /// # Errors
    /// Whatever is wrong first: the file, its syntax, an unknown section or key, a value's type or
    /// range; each with the file's line or the flag.
    pub fn load(path: Option<&Path>, overrides: &[Override]) -> Result<Self, Error> {
        let Some(path) = path else {
            return Self::parse("", "run.toml", overrides);
        };
        let text = burn_peft_files::read_to_string(path)?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// [`load`](Self::load) from text; `origin` is the name that errors give it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, overrides: &[Override]) -> Result<Self, Error> {
        let mut document = Document::read(text, origin)?;
        for item in overrides {
            document.set(&item.section, &item.key, item.value.clone(), &item.place);
        }
        document.rename()?;
        document.check_keys()?;
        let config = Self {
            model: document.section("model")?,
            method: document.section("method")?,
            task: document.section("task")?,
            data: document.section("data")?,
            train: document.section("train")?,
            output: document.section("output")?,
        };
        config.check().map_err(|found| {
            let place = document.place_of(found.key());
            found.at(place)
        })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GradientCheckpointing, OptimizerKind, Steps};

    fn message(text: &str) -> String {
        let message = RunConfig::parse(text, "run.toml", &[])
            .unwrap_err()
            .to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    fn set(text: &str) -> Result<RunConfig, Error> {
        RunConfig::load(None, &[Override::parse(text).unwrap()])
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let found = message("[train]\nseed = 1\nlearnig_rate = 1.0\n");
        assert!(found.starts_with("run.toml:3: "), "{found}");
        assert!(
            found.contains("`learnig_rate`") && found.contains("[train]"),
            "{found}"
        );
        assert!(found.contains("did you mean `learning_rate`"), "{found}");
    }

    #[test]
    fn a_key_in_the_wrong_section_is_sent_to_its_own() {
        assert!(message("[data]\nseed = 1").contains("belongs in [train]"));
        assert!(message("seed = 1").contains("`seed` belongs in [train]"));
    }

    #[test]
    fn a_section_that_is_a_value_is_refused_as_that() {
        let found = message("method = 3");
        assert!(
            found.contains("[method]") && !found.contains("no section"),
            "{found}"
        );
    }

    #[test]
    fn an_unknown_section_is_refused_with_the_nearest_known_one() {
        let found = message("\n[trian]\nseed = 1");
        assert!(
            found.starts_with("run.toml:2: ") && found.contains("[train]"),
            "{found}"
        );
    }

    #[test]
    fn an_option_of_another_method_is_refused() {
        let found = message("[method]\ntype = \"prompt-tuning\"\nprefix_projection = true");
        assert!(found.contains("[method] of type prompt-tuning"), "{found}");
    }

    #[test]
    fn an_unknown_method_is_refused_with_the_known_ones() {
        let found = message("[method]\ntype = \"lora\"");
        assert!(
            found.starts_with("run.toml:2: ") && found.contains("p-tuning-v2"),
            "{found}"
        );
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line_and_key() {
        let found = message("[train]\nseed = 1\nlearning_rate = \"fast\"\n");
        assert!(
            found.starts_with("run.toml:3: train.learning_rate"),
            "{found}"
        );
        assert!(found.contains("expected a number"), "{found}");
        let found = message("[method]\ntype = \"prompt-tuning\"\nnum_virtual_tokens = -1\n");
        assert!(
            found.starts_with("run.toml:3: method.num_virtual_tokens"),
            "{found}"
        );
        let found = message("[train]\noptim = \"sgd\"\n");
        assert!(
            found.contains("sgd") && found.contains("adamw") && found.contains("adafactor"),
            "{found}"
        );
    }

    #[test]
    fn a_syntax_error_and_a_value_out_of_range_carry_their_line() {
        assert!(message("[train]\nseed = = 1").starts_with("run.toml:2: "));
        assert!(
            message("[train]\n\nwarmup_ratio = 2").starts_with("run.toml:3: train.warmup_ratio")
        );
    }

    #[test]
    fn overrides_go_before_the_file_and_the_last_one_wins() {
        let overrides = [
            "train.seed=5",
            "train.seed=6",
            "train.learning_rate=5e-3",
            "output.dir=runs/b",
        ]
        .map(|text| Override::parse(text).unwrap());
        let text = "[train]\nseed = 1\nmax_steps = 9";
        let config = RunConfig::parse(text, "run.toml", &overrides).unwrap();
        assert_eq!((config.train.seed, config.train.max_steps), (6, 9));
        assert_eq!(config.train.learning_rate, Some(5e-3));
        assert_eq!(config.output_dir(), Path::new("runs/b"));
    }

    #[test]
    fn override_values_are_toml_or_bare_strings() {
        assert_eq!(
            set("model.path=Qwen/Qwen2.5-0.5B")
                .unwrap()
                .model
                .path
                .unwrap(),
            "Qwen/Qwen2.5-0.5B"
        );
        assert_eq!(
            set("model.path=\"a b\"").unwrap().model.path.unwrap(),
            "a b"
        );
        assert_eq!(
            set("train.num_train_epochs = 2")
                .unwrap()
                .train
                .num_train_epochs,
            2.0
        );
        assert!(
            set("train.group_by_length=true")
                .unwrap()
                .train
                .group_by_length
        );
    }

    #[test]
    fn gradient_checkpointing_is_a_switch_or_auto() {
        for (text, when) in [
            ("true", GradientCheckpointing::Always),
            ("false", GradientCheckpointing::Never),
            ("auto", GradientCheckpointing::Auto),
        ] {
            let config = set(&format!("train.gradient_checkpointing={text}")).unwrap();
            assert_eq!(config.train.gradient_checkpointing, when);
            // As it stands in the run's own file.
            let again = RunConfig::parse(&config.to_toml().unwrap(), "run.toml", &[]).unwrap();
            assert_eq!(again.train.gradient_checkpointing, when);
        }
        let found = set("train.gradient_checkpointing=maybe")
            .unwrap_err()
            .to_string();
        assert!(
            found.contains("gradient_checkpointing") && found.contains("auto"),
            "{found}"
        );
        assert!(!found.contains('\n'), "{found}");
    }

    #[test]
    fn names_and_values_of_transformers_5_are_read() {
        for name in ["adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf"] {
            let config = set(&format!("train.optim={name}")).unwrap();
            assert_eq!(config.train.optim, OptimizerKind::AdamW, "{name}");
        }
        for name in ["adamw_8bit", "adamw_bnb_8bit", "sgd"] {
            assert!(set(&format!("train.optim={name}")).is_err(), "{name}");
        }
        let config = set("train.warmup_steps=0.1").unwrap();
        assert_eq!(config.train.warmup_steps, Steps::Share(0.1));
        let config = set("train.activation_checkpointing=true").unwrap();
        assert_eq!(
            config.train.gradient_checkpointing,
            GradientCheckpointing::Always
        );
        let twice =
            message("[train]\ngradient_checkpointing = true\nactivation_checkpointing = true");
        assert!(
            twice.starts_with("run.toml:3: train.activation_checkpointing: "),
            "{twice}"
        );
        let whole = "[train]\nlogging_strategy = \"epoch\"\neval_strategy = \"steps\"\neval_steps = 0.2\n\
                     save_strategy = \"best\"\nlr_scheduler_type = \"constant_with_warmup\"";
        RunConfig::parse(whole, "run.toml", &[]).unwrap();
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (text, named) in [
            (
                "eval_strategy = \"no\"\nload_best_model_at_end = true",
                "run.toml:2: train.eval_strategy is no",
            ),
            (
                "eval_strategy = \"no\"\nearly_stopping_patience = 2",
                "with train.early_stopping_patience",
            ),
            (
                "eval_strategy = \"no\"\nsave_strategy = \"best\"",
                "train.eval_strategy is no",
            ),
            (
                "save_strategy = \"no\"\nload_best_model_at_end = true",
                "run.toml:2: train.save_strategy is no",
            ),
            (
                "early_stopping_patience = 0",
                "train.early_stopping_patience is 0",
            ),
            (
                "early_stopping_threshold = -0.1",
                "train.early_stopping_threshold is -0.1",
            ),
            (
                "metric_for_best_model = \"\"",
                "train.metric_for_best_model is empty",
            ),
            ("eval_delay = -1.0", "train.eval_delay is -1"),
            ("eval_steps = 0", "train.eval_steps is 0"),
            ("eval_steps = 1.5", "train.eval_steps: 1.5 is neither"),
        ] {
            let found = message(&format!("[train]\n{text}"));
            assert!(found.contains(named), "{text}: {found}");
        }
    }

    #[test]
    fn an_unknown_key_without_a_counterpart_has_no_hint() {
        let found = message("[train]\npacking = true");
        assert_eq!(found, "run.toml:2: [train] has no key `packing`");
        let found = message("[train]\nbf16 = true");
        assert!(found.ends_with("; did you mean `model.dtype`?"), "{found}");
    }

    #[test]
    fn a_bad_override_names_the_flag() {
        for text in ["train.seed", "seed=1", ".seed=1", "train.=1"] {
            assert!(
                Override::parse(text)
                    .unwrap_err()
                    .to_string()
                    .contains(text)
            );
        }
        assert!(
            set("train.sed=1")
                .unwrap_err()
                .to_string()
                .starts_with("--set: ")
        );
        let flag = Override::new("train", "max_steps", 0, "--max-steps");
        let found = RunConfig::load(None, &[flag]).unwrap_err().to_string();
        assert!(
            found.starts_with("--max-steps: train.max_steps is 0"),
            "{found}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let found = RunConfig::load(Some(Path::new("nowhere.toml")), &[]).unwrap_err();
        assert!(found.to_string().contains("nowhere.toml"));
    }
}
