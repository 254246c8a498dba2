//! Checkpoints, and runs that go on from them.

use super::toy::*;
use crate::fit::*;
use burn::module::Param;
use std::fs;

fn a_resumed_run_equals_an_uninterrupted_one(settings: &str) {
    let _alone = alone();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (whole, whole_summary) = run(options(dirs[0].path(), settings)).unwrap();

    let dir = dirs[1].path();
    let (_, summary) = run(interrupt_at(options(dir, settings), TOTAL / 2)).unwrap();
    assert!(summary.interrupted);
    assert_eq!(
        summary.checkpoint,
        Some(dir.join("run/checkpoints/step-10"))
    );
    let mut rest = options(dir, settings);
    rest.resume = Some(latest(&rest.output_dir).unwrap());
    assert_eq!(rest.start_step(), TOTAL / 2);
    let (resumed, summary) = run(rest).unwrap();

    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(losses(dirs[1].path()), losses(dirs[0].path()));
    assert_eq!(summary.best_eval, whole_summary.best_eval);
    assert_eq!((summary.steps, summary.new_steps), (TOTAL, TOTAL / 2));
}

#[test]
fn a_run_resumed_with_adamw_equals_an_uninterrupted_one_bit_for_bit() {
    a_resumed_run_equals_an_uninterrupted_one("");
}

#[test]
fn a_run_resumed_with_adafactor_equals_an_uninterrupted_one_bit_for_bit() {
    a_resumed_run_equals_an_uninterrupted_one("train.optim = \"adafactor\"");
}

#[test]
fn resuming_from_an_older_checkpoint_drops_the_later_records() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = run(options(dir.path(), "train.save_steps = 5")).unwrap();
    let before = losses(dir.path());
    let mut again = options(dir.path(), "train.save_steps = 5");
    let older = dir.path().join("run/checkpoints/step-5");
    again.resume = Some(Checkpoint::open(&older).unwrap());
    let (resumed, _) = run(again).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(losses(dir.path()), before);
}

#[test]
fn a_finished_run_resumes_to_itself() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (whole, whole_summary) = run(options(dir.path(), "")).unwrap();
    let mut again = options(dir.path(), "");
    again.resume = Some(latest(&again.output_dir).unwrap());
    let (resumed, summary) = run(again).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(
        (summary.new_steps, summary.train_loss, summary.interrupted),
        (0, whole_summary.train_loss, false)
    );
}

#[test]
fn a_checkpoint_is_the_size_of_what_trains() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (_, summary) = run(options(dir.path(), "")).unwrap();
    for entry in fs::read_dir(summary.checkpoint.unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert!(
            entry.metadata().unwrap().len() < 4_000,
            "{entry:?} holds the frozen part"
        );
    }
}

#[test]
fn nothing_to_resume_and_a_used_folder_are_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    assert!(matches!(latest(&output), Err(Error::NoCheckpoint { .. })));
    run(options(dir.path(), "")).unwrap();
    assert!(matches!(
        run(options(dir.path(), "")),
        Err(Error::OutputInUse { .. })
    ));
}

#[test]
fn half_written_checkpoints_are_not_taken_for_whole_ones() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    run(options(dir.path(), "")).unwrap();
    let output = dir.path().join("run");
    fs::create_dir(output.join("checkpoints/.step-30.partial")).unwrap();
    fs::create_dir(output.join("checkpoints/step-40")).unwrap();
    let mut damaged = Vec::new();
    let newest = Checkpoint::latest(&output, &mut |error| damaged.push(error.to_string()));
    assert_eq!(newest.unwrap().state.step, TOTAL);
    assert!(
        damaged.len() == 1 && damaged[0].contains("step-40"),
        "{damaged:?}"
    );
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_what_differs() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    run(options(dir.path(), "")).unwrap();
    let saved = latest(&dir.path().join("run")).unwrap();

    let mut other = options(dir.path(), "train.seed = 7");
    other.resume = Some(saved.clone());
    let message = run(other).unwrap_err().to_string();
    assert!(message.contains("train.seed was 42"), "{message}");

    let mut other = options(dir.path(), "train.optim = \"adafactor\"");
    other.resume = Some(saved.clone());
    let message = run(other).unwrap_err().to_string();
    assert!(message.contains("train.optim was \"adamw\""), "{message}");

    let device = Default::default();
    let wider = Toy {
        bias: Param::from_data([0.0, 0.0], &device),
        ..toy(0.5)
    };
    let message = saved
        .load_model::<B, _>(wider, &device)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("bias was [1]") && message.contains("is [2]"),
        "{message}"
    );
}
