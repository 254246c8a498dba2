//! Whole runs of a toy: linear regression with noise, a frozen part and accumulated micro-batches.

mod best;
mod resume;
mod toy;

use self::toy::*;
use super::index_loader::IndexLoader;
use super::*;
use crate::record::LogRecord;
use std::fs;
use std::path::Path;

#[test]
fn a_run_learns_and_leaves_its_files_and_no_others() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (model, summary) = run(options(
        dir.path(),
        "train.save_steps = 6\ntrain.save_total_limit = 2",
    ))
    .unwrap();
    // It starts at 4.9.
    assert!(
        summary.eval.as_ref().unwrap().eval_loss < 1.0,
        "{summary:?} {model}"
    );
    assert_eq!(
        (summary.steps, summary.new_steps, summary.interrupted),
        (TOTAL, TOTAL, false)
    );

    let names = |path: &Path| {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let run = dir.path().join("run");
    assert_eq!(names(&run), ["checkpoints", "metrics.jsonl"]);
    assert_eq!(names(&run.join("checkpoints")), ["step-18", "step-20"]);
    let parts = [
        "checksums.xxh128",
        "model.mpk",
        "optimizer.mpk",
        "scheduler.mpk",
        "trainer_state.json",
    ];
    assert_eq!(names(&run.join("checkpoints/step-20")), parts);
    assert_eq!(summary.checkpoint, Some(run.join("checkpoints/step-20")));
}

#[test]
fn the_log_has_each_step_with_its_rate_and_each_epochs_evaluation() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    run(options(dir.path(), "")).unwrap();
    let losses = losses(dir.path());
    assert_eq!(losses.len(), TOTAL);
    // Two steps of warm-up from 0, then down over 18.
    for (step, rate) in [(1, 0.0), (2, 0.1), (3, 0.2), (12, 0.1)] {
        assert!(
            (losses[step - 1].2 - rate).abs() < 1e-12,
            "{step}: {losses:?}"
        );
    }
    let evals: Vec<usize> = records(dir.path())
        .iter()
        .filter_map(|record| match record {
            LogRecord::Eval(record) => Some(record.step),
            LogRecord::Train(_) => None,
        })
        .collect();
    assert_eq!(evals, [8, 16, TOTAL]);
}

#[test]
fn a_logged_loss_is_the_mean_since_the_last_one() {
    let _alone = alone();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    run(options(dirs[0].path(), "")).unwrap();
    run(options(dirs[1].path(), "").with_logging_steps(8)).unwrap();
    let each = losses(dirs[0].path());
    let mean = |range: std::ops::Range<usize>| {
        each[range.clone()]
            .iter()
            .map(|(_, loss, _)| loss)
            .sum::<f64>()
            / range.len() as f64
    };
    let found = losses(dirs[1].path());
    let expected = [(8, mean(0..8)), (16, mean(8..16)), (TOTAL, mean(16..TOTAL))];
    assert_eq!(found.len(), expected.len());
    for ((step, loss, _), (expected_step, expected_loss)) in found.iter().zip(expected) {
        assert_eq!(*step, expected_step);
        // serde_json reads a number to within a unit in the last place.
        assert!(
            (loss - expected_loss).abs() < 1e-12,
            "{loss} is not {expected_loss}"
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_at_its_step() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), "train.save_steps = 2");
    let poison = |step| {
        if step == 4 {
            vec![vec![f32::NAN]]
        } else {
            batches(step)
        }
    };
    let train = IndexLoader::new(0..TOTAL, poison);
    let error = fit(
        toy(0.5),
        Arc::new(train),
        None,
        &Default::default(),
        options,
    )
    .unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, Error::NotFinite { step: 5, .. }),
        "{message}"
    );
    assert!(
        message.contains("step-4") && message.contains("learning_rate"),
        "{message}"
    );
    // The last good one is still there, and nothing newer.
    assert_eq!(latest(&dir.path().join("run")).unwrap().state.step, 4);
}

#[test]
fn a_step_without_supervised_tokens_changes_nothing_and_is_counted() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = IndexLoader::new(
        0..TOTAL,
        |step| if step == 4 { vec![] } else { batches(step) },
    );
    let options = options(dir.path(), "");
    let (_, summary) = fit(
        toy(0.5),
        Arc::new(train),
        None,
        &Default::default(),
        options,
    )
    .unwrap();
    assert_eq!((summary.empty_steps, summary.new_steps), (1, TOTAL));
    let logged: Vec<usize> = losses(dir.path()).iter().map(|(step, ..)| *step).collect();
    assert!(
        !logged.contains(&5) && logged.len() == TOTAL - 1,
        "{logged:?}"
    );
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_with_an_error() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "train.save_steps = 3");
    let blocked = options.output_dir.join("checkpoints");
    options.observers.push(at_step(1, move || {
        fs::write(&blocked, "in the way").unwrap();
        Ok(())
    }));
    let error = run(options).unwrap_err();
    assert!(matches!(error, Error::File(_)), "{error}");
    assert_eq!(losses(dir.path()).len(), 3);
}

#[test]
fn an_observer_that_fails_and_data_that_ends_are_errors() {
    let _alone = alone();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut failing = options(dirs[0].path(), "");
    failing
        .observers
        .push(at_step(3, || Err(Error::NothingToEvaluate)));
    assert!(matches!(run(failing), Err(Error::NothingToEvaluate)));

    let train = IndexLoader::new(0..5, batches);
    let ended = fit(
        toy(0.5),
        Arc::new(train),
        None,
        &Default::default(),
        options(dirs[1].path(), ""),
    );
    assert!(matches!(
        ended,
        Err(Error::DataExhausted {
            step: 6,
            total_steps: TOTAL
        })
    ));
}
