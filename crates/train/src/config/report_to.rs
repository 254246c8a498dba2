//! `train.report_to`: the programs that a run writes its curves for.

use burn_peft::{Choice, OptionType};
use serde::{Deserialize, Serialize};

/// The programs that a run writes its curves for, besides `metrics.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Vec<&'static str>")]
pub struct ReportTo {
    /// Whether an event file of TensorBoard is written.
    pub tensorboard: bool,
}

/// One name or a list of them, as transformers reads it.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"tensorboard\", \"all\", \"none\" or a list of names"
)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<Written> for ReportTo {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let names = match written {
            Written::One(name) => vec![name],
            Written::Several(names) => names,
        };
        let mut found = Self::default();
        for name in names {
            match name.as_str() {
                "tensorboard" | "all" => found.tensorboard = true,
                "none" => {}
                _ => {
                    return Err(format!(
                        "there is no report to `{name}`; known: tensorboard, all, none"
                    ));
                }
            }
        }
        Ok(found)
    }
}

impl From<ReportTo> for Vec<&'static str> {
    fn from(to: ReportTo) -> Self {
        let names = [("tensorboard", to.tensorboard)];
        let chosen = names.into_iter().filter(|(_, chosen)| *chosen);
        chosen.map(|(name, _)| name).collect()
    }
}

impl OptionType for ReportTo {
    fn kind() -> String {
        "name or list of names".into()
    }

    fn choices() -> Vec<Choice> {
        vec![
            Choice::new("tensorboard", &["an event file in `DIR/runs`."]),
            Choice::new("all", &["every one of them."]),
            Choice::new("none", &["`metrics.jsonl` alone."]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        struct File {
            report_to: ReportTo,
        }
        let file: Result<File, _> = toml::from_str(&format!("report_to = {toml}"));
        file.map(|file| file.report_to.tensorboard)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn one_name_and_a_list_are_read_as_transformers_reads_them() {
        for (toml, expected) in [
            ("\"tensorboard\"", true),
            ("[\"tensorboard\"]", true),
            ("\"all\"", true),
            ("\"none\"", false),
            ("[]", false),
        ] {
            assert_eq!(read(toml), Ok(expected), "{toml}");
        }
        for toml in ["\"wandb\"", "[\"tensorboard\", \"wandb\"]"] {
            let message = read(toml).unwrap_err();
            assert!(message.contains("known: tensorboard"), "{message}");
        }
        assert!(read("3").unwrap_err().contains("list of names"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for tensorboard in [false, true] {
            let to = ReportTo { tensorboard };
            let json = serde_json::to_string(&to).unwrap();
            assert_eq!(serde_json::from_str::<ReportTo>(&json).unwrap(), to);
        }
    }
}
