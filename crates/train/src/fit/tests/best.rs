//! Runs that end with their best evaluation, and runs that end early.

use super::toy::*;
use crate::checkpoint::BestEval;
use crate::fit::*;
use crate::record::LogRecord;
use burn_flex::Flex;
use std::fs;
use std::path::Path;

/// Scores that are best where the weight, on its way from 0.5 to 3, comes by 1.5.
struct NearOneAndAHalf;

impl Scorer<Toy<Flex>> for NearOneAndAHalf {
    fn score(
        &mut self,
        model: &Toy<Flex>,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Option<EvalScores>, Error> {
        let distance = f64::from(model.weight.val().into_scalar()) - 1.5;
        Ok(Some(EvalScores {
            loss: 1.0,
            label_tokens: 1,
            tokens: 1,
            metrics: [("eval_nearness".to_owned(), -distance.abs())].into(),
        }))
    }
}

const BEST: &str = "train.load_best_model_at_end = true\ntrain.metric_for_best_model = \"nearness\"\n\
                    train.eval_steps = 2\n";

fn run_scored(options: FitOptions) -> (Toy<Flex>, FitSummary) {
    run_with(options, Validation::Scores(Box::new(NearOneAndAHalf))).unwrap()
}

fn resume(dir: &Path, settings: &str) -> FitOptions {
    let mut options = options(dir, settings);
    options.resume = Some(latest(&options.output_dir).unwrap());
    options
}

/// The steps of the checkpoints that are there.
fn saved(dir: &Path) -> Vec<usize> {
    let steps = crate::checkpoint::steps_in(&dir.join("run/checkpoints")).unwrap();
    steps.into_iter().map(|(step, _)| step).collect()
}

/// Each evaluation's step and metric.
fn evaluations(dir: &Path) -> Vec<(usize, f64)> {
    let evaluation = |record| match record {
        LogRecord::Eval(record) => Some((record.step, record.metrics["eval_nearness"])),
        LogRecord::Train(_) => None,
    };
    records(dir).into_iter().filter_map(evaluation).collect()
}

#[test]
fn the_best_evaluations_model_is_the_result_and_its_checkpoint_stays() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("{BEST}train.save_total_limit = 1");
    let (model, summary) = run_scored(options(dir.path(), &settings));
    let by_metric = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let (best, value) = evaluations(dir.path())
        .into_iter()
        .max_by(by_metric)
        .unwrap();
    assert!((4..TOTAL - 2).contains(&best), "{best} tests nothing");
    assert_eq!((summary.steps, summary.adapter_step), (TOTAL, best));
    let found = summary.best_eval.unwrap();
    assert_eq!((found.step, found.metric.as_str()), (best, "eval_nearness"));
    // serde_json reads a number to within a unit in the last place.
    assert!((found.value - value).abs() < 1e-12);
    assert_eq!(saved(dir.path()), [best, TOTAL]);
    let path = dir.path().join(format!("run/checkpoints/step-{best}"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let loaded = checkpoint.load_model(toy(9.0).valid(), &Default::default());
    assert_eq!(bits(&model), bits(&loaded.unwrap()));

    let mut without = options(dir.path(), &settings.replace("end = true", "end = false"));
    without.output_dir = dir.path().join("other");
    let (last, summary) = run_scored(without);
    assert_eq!(summary.adapter_step, TOTAL);
    assert_ne!(bits(&last), bits(&model));
}

#[test]
fn a_run_ends_early_and_a_resumed_one_does_as_it_would_have() {
    let _alone = alone();
    let settings = format!("{BEST}train.early_stopping_patience = 2\ntrain.save_steps = 3");
    let whole = tempfile::tempdir().unwrap();
    let (model, summary) = run_scored(options(whole.path(), &settings));
    let end = summary.steps;
    assert!(summary.stopped_early && end < TOTAL, "{summary:?}");
    assert_eq!(
        summary.adapter_step,
        end - 4,
        "two evaluations after the best one"
    );
    assert!(saved(whole.path()).contains(&end));
    for stop in 1..end {
        let dir = tempfile::tempdir().unwrap();
        let (_, first) = run_scored(interrupt_at(options(dir.path(), &settings), stop));
        assert!(first.interrupted && !first.stopped_early && first.steps == stop);
        let (resumed, rest) = run_scored(resume(dir.path(), &settings));
        assert_eq!(bits(&resumed), bits(&model), "stopped at {stop}");
        assert_eq!(
            losses(dir.path()),
            losses(whole.path()),
            "stopped at {stop}"
        );
        assert_eq!(
            evaluations(dir.path()),
            evaluations(whole.path()),
            "stopped at {stop}"
        );
        let facts = |summary: &FitSummary| {
            let FitSummary {
                steps,
                adapter_step,
                stopped_early,
                ..
            } = *summary;
            (
                steps,
                adapter_step,
                stopped_early,
                summary.best_eval.clone(),
            )
        };
        assert_eq!(facts(&rest), facts(&summary), "stopped at {stop}");
    }
}

#[test]
fn a_run_that_ended_early_has_ended() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("{BEST}train.early_stopping_patience = 2");
    let (model, summary) = run_scored(options(dir.path(), &settings));
    let before = (records(dir.path()), saved(dir.path()));
    let (again, second) = run_scored(resume(dir.path(), &settings));
    assert_eq!((second.new_steps, second.steps), (0, summary.steps));
    assert!(second.stopped_early);
    assert_eq!(bits(&again), bits(&model));
    assert_eq!((records(dir.path()), saved(dir.path())), before);
    // More patience is more steps.
    let (_, more) = run_scored(resume(
        dir.path(),
        &format!("{BEST}train.early_stopping_patience = 3"),
    ));
    assert_eq!(
        (more.new_steps, more.adapter_step),
        (2, summary.adapter_step)
    );
}

#[test]
fn a_stopped_run_ends_with_the_best_so_far() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (_, whole) = run_scored(options(&dir.path().join("whole"), BEST));
    let best = whole.adapter_step;
    let stopped = dir.path().join("stopped");
    let (_, summary) = run_scored(interrupt_at(options(&stopped, BEST), best + 3));
    assert_eq!((summary.steps, summary.adapter_step), (best + 3, best));
}

#[test]
fn a_best_checkpoint_that_is_damaged_is_said_before_the_run_goes_on() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (_, summary) = run_scored(options(dir.path(), BEST));
    let best = dir
        .path()
        .join(format!("run/checkpoints/step-{}", summary.adapter_step));
    fs::write(best.join("model.mpk"), "damaged").unwrap();
    let again = run_with(
        resume(dir.path(), BEST),
        Validation::Scores(Box::new(NearOneAndAHalf)),
    );
    let message = again.unwrap_err().to_string();
    assert!(
        message.contains("model.mpk") && message.contains("load_best_model_at_end=false"),
        "{message}"
    );
    let without = resume(dir.path(), &BEST.replace("end = true", "end = false"));
    assert_eq!(run_scored(without).1.adapter_step, TOTAL);
}

#[test]
fn save_strategy_best_saves_what_is_better_than_all_before() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let settings = BEST.replace(
        "train.load_best_model_at_end = true",
        "train.save_strategy = \"best\"",
    );
    let (_, summary) = run_scored(options(dir.path(), &settings));
    let best = summary.best_eval.unwrap().step;
    assert_eq!(saved(dir.path()), (2..=best).step_by(2).collect::<Vec<_>>());
    assert_eq!(summary.adapter_step, TOTAL);

    let none = tempfile::tempdir().unwrap();
    run(options(none.path(), "train.save_strategy = \"no\"")).unwrap();
    assert_eq!(saved(none.path()), [0; 0]);
}

#[test]
fn without_a_metric_the_loss_decides() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (_, summary) = run(options(dir.path(), "train.load_best_model_at_end = true")).unwrap();
    let losses = records(dir.path())
        .into_iter()
        .filter_map(|record| match record {
            LogRecord::Eval(record) => Some((record.step, record.eval_loss)),
            LogRecord::Train(_) => None,
        });
    let (step, value) = losses.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let metric = "eval_loss".to_owned();
    let found = summary.best_eval.unwrap();
    assert!((found.value - value).abs() < 1e-12);
    assert_eq!(
        found,
        BestEval {
            step,
            metric,
            ..found.clone()
        }
    );
    assert_eq!(summary.adapter_step, step);
}
