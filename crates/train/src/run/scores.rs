//! `scores.json`: how good the base and the adapter are, kept so that a resumed run knows what to compare with.

use std::path::Path;

use burn_peft_data::Example;
use burn_peft_files::if_exists;
use serde::{Deserialize, Serialize};

use crate::{Error, HeldOut, Scored, identity::checksum_of_rows};

/// Its name in a run's folder.
pub(super) const SCORES_FILE: &str = "scores.json";

/// The scores of a run's held-out rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Scores {
    /// A checksum of the tokenised rows; empty without any.
    rows: String,
    before: Option<Kept>,
    after: Option<Kept>,
}

/// Scores with the samples, which those for `--json` leave out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    scores: HeldOut,
    samples: Vec<Scored>,
}

impl Kept {
    fn of(scores: &HeldOut) -> Self {
        Self {
            samples: scores.samples.clone(),
            scores: scores.clone(),
        }
    }
}

impl Scores {
    pub(super) fn of(
        examples: Option<&[Example]>,
        before: Option<&HeldOut>,
        after: Option<&HeldOut>,
    ) -> Self {
        Self {
            rows: examples.map_or_else(String::new, checksum_of_rows),
            before: before.map(Kept::of),
            after: after.map(Kept::of),
        }
    }

    /// The file's bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_else(|error| {
            unreachable!("scores are numbers and texts under string keys: {error}")
        })
    }

    /// What the file in `dir` says of the base and of these rows. `None` where there is none, or where it is of other
    /// rows.
    pub(super) fn before(
        dir: &Path,
        examples: &[Example],
        notes: &mut dyn FnMut(&str),
    ) -> Result<Option<HeldOut>, Error> {
        let path = dir.join(SCORES_FILE);
        let found = if_exists(path.metadata().map(|_| ()));
        if !matches!(found, Ok(Some(()))) {
            return Ok(None);
        }
        let bytes = burn_peft_files::read(&path)?;
        let read: Scores = match serde_json::from_slice(&bytes) {
            Ok(read) => read,
            Err(error) => {
                notes(&format!(
                    "warning: {}: {error}; the base's scores are left out",
                    path.display()
                ));
                return Ok(None);
            }
        };
        let same = read.rows == checksum_of_rows(examples);
        Ok(read.before.filter(|_| same).map(|kept| HeldOut {
            completions: kept.samples.clone(),
            samples: kept.samples,
            ..kept.scores
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evaluation, TaskScores};

    fn example(id: u32) -> Example {
        Example {
            input_ids: vec![id],
            labels: vec![i64::from(id)],
            row_label: None,
            placement: None,
            parts: burn_peft_data::Parts::Whole,
            row: 0,
            line: 1,
        }
    }

    fn scored(loss: f64, scores: Option<TaskScores>) -> HeldOut {
        HeldOut {
            evaluation: Evaluation {
                loss,
                perplexity: None,
                label_tokens: 3,
                examples: 2,
                per_example: Vec::new(),
            },
            scores,
            texts: None,
            samples: vec![Scored {
                prompt: "a".into(),
                reference: "b".into(),
                text: "c".into(),
            }],
            completions: Vec::new(),
            eval_seconds: 0.0,
        }
    }

    #[test]
    fn a_resumed_run_finds_what_the_first_process_measured() {
        let dir = tempfile::tempdir().unwrap();
        let silent = &mut |note: &str| panic!("{note}");
        let rows = [example(1)];
        assert!(Scores::before(dir.path(), &rows, silent).unwrap().is_none());
        for scores in [None, Some(TaskScores::answers(&[vec!["x"]], &["x"]))] {
            let before = scored(2.5, scores.clone());
            let file = Scores::of(Some(&rows), Some(&before), None);
            burn_peft_files::write(&dir.path().join(SCORES_FILE), &file.to_bytes()).unwrap();
            let found = Scores::before(dir.path(), &rows, silent).unwrap().unwrap();
            assert_eq!(found.evaluation, before.evaluation);
            assert_eq!(found.scores, scores);
            assert_eq!(found.samples, before.samples);
        }
        let other = [example(2)];
        assert!(
            Scores::before(dir.path(), &other, silent)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_loss_of_no_labels_is_read_again_as_nan() {
        let dir = tempfile::tempdir().unwrap();
        let file = Scores::of(Some(&[]), Some(&scored(f64::NAN, None)), None);
        burn_peft_files::write(&dir.path().join(SCORES_FILE), &file.to_bytes()).unwrap();
        let found = Scores::before(dir.path(), &[], &mut |_| ()).unwrap();
        assert!(found.unwrap().evaluation.loss.is_nan());
    }

    #[test]
    fn a_damaged_file_is_said_and_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SCORES_FILE), "{\"rows\": ").unwrap();
        let mut said = String::new();
        let found = Scores::before(dir.path(), &[], &mut |note| said += note).unwrap();
        assert!(found.is_none());
        assert!(said.contains("scores.json"), "{said}");
    }
}
