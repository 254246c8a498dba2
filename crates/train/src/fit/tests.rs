//! Whole runs of a toy: linear regression with noise, a frozen part and accumulated micro-batches.

use super::index_loader::IndexLoader;
use super::*;
use crate::record::{LogRecord, TrainRecord};
use burn::backend::Autodiff;
use burn::module::{Module, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use burn_flex::Flex;
use burn_train::TrainOutput;
use std::fs;
use std::path::Path;
use std::sync::MutexGuard;

type B = Autodiff<Flex>;

/// Rows of one number.
type Batch = Vec<f32>;

/// `y = weight · x + bias`, to be taught `y = 3x - 1`.
#[derive(Module, Debug)]
struct Toy<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    bias: Param<Tensor<B, 1>>,
    /// Stands for the base model: large, and in no record.
    frozen: Tensor<B, 1>,
}

fn toy(weight: f32) -> Toy<B> {
    let device = Default::default();
    Toy {
        weight: Param::from_data([weight], &device),
        bias: Param::from_data([0.0], &device),
        frozen: Tensor::ones([100_000], &device),
    }
}

impl<B: Backend> Toy<B> {
    fn loss(&self, batch: &Batch, noise: f64) -> Tensor<B, 1> {
        let device = self.frozen.device();
        let x = Tensor::<B, 1>::from_floats(batch.as_slice(), &device);
        let spread = Distribution::Normal(0.0, noise);
        let target = x.clone() * 3.0 - 1.0 + Tensor::random([batch.len()], spread, &device);
        let predicted = x * self.weight.val() + self.bias.val();
        (predicted - target).square().mean() * self.frozen.clone().narrow(0, 0, 1)
    }
}

impl TrainStep for Toy<B> {
    type Input = Vec<Batch>;
    type Output = LmOutput;

    fn step(&self, batches: Vec<Batch>) -> TrainOutput<LmOutput> {
        let mut grads = GradientsAccumulator::new();
        let (mut sum, mut rows) = (0.0, 0);
        for batch in &batches {
            let loss = self.loss(batch, 0.01) / batches.len() as f32;
            sum += f64::from(loss.clone().into_scalar());
            rows += batch.len();
            grads.accumulate(self, GradientsParams::from_grads(loss.backward(), self));
        }
        TrainOutput {
            grads: grads.grads(),
            item: LmOutput::new(sum, rows, 2 * rows),
        }
    }
}

impl InferenceStep for Toy<Flex> {
    type Input = Batch;
    type Output = LmOutput;

    fn step(&self, batch: Batch) -> LmOutput {
        let loss = f64::from(self.loss(&batch, 0.0).into_scalar());
        LmOutput::new(loss, batch.len(), batch.len())
    }
}

/// Flex has one random generator for the process; runs at the same time would draw from each other.
fn alone() -> MutexGuard<'static, ()> {
    static RUNS: Mutex<()> = Mutex::new(());
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

const TOTAL: usize = 20;

fn options(dir: &Path, settings: &str) -> FitOptions {
    let text = format!(
        "train.learning_rate = 0.2\ntrain.max_steps = {TOTAL}\ntrain.warmup_steps = 2\n\
         train.logging_steps = 1\ntrain.weight_decay = 0.01\n{settings}"
    );
    let config = RunConfig::parse(&text, "test", &[]).unwrap();
    let plan = Plan::with_steps_per_epoch(&config.train, 8);
    let mut options = FitOptions::new(&config, plan);
    options.output_dir = dir.join("run");
    options.renderer = RendererChoice::Silent;
    options
}

/// Two micro-batches for each step, another pair each step.
fn batches(step: usize) -> Vec<Batch> {
    let base = step as f32 * 0.37;
    vec![vec![base.sin(), base.cos()], vec![(base * 2.0).sin(), 0.5]]
}

fn run(options: FitOptions) -> Result<(Toy<Flex>, FitSummary), Error> {
    let train = IndexLoader::new(options.start_step()..options.plan.total_steps, batches);
    let valid: Vec<Batch> = vec![vec![1.0, -1.0], vec![0.5]];
    let valid = IndexLoader::new(0..2, move |index| valid[index].clone());
    // Another start than the checkpoint's, so that a resume that forgets the model shows.
    let model = toy(if options.resume.is_some() { 9.0 } else { 0.5 });
    fit(
        model,
        Arc::new(train),
        Some(Arc::new(valid)),
        &Default::default(),
        options,
    )
}

fn bits(model: &Toy<Flex>) -> [u32; 2] {
    [&model.weight, &model.bias].map(|param| param.val().into_scalar().to_bits())
}

fn records(dir: &Path) -> Vec<LogRecord> {
    let text = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn losses(dir: &Path) -> Vec<(usize, f64, f64)> {
    let train = records(dir).into_iter().filter_map(|record| match record {
        LogRecord::Train(TrainRecord {
            step,
            loss,
            learning_rate,
            ..
        }) => Some((step, loss, learning_rate)),
        LogRecord::Eval(_) => None,
    });
    train.collect()
}

/// Stops the run at a step, or fails there.
struct AtStep {
    step: usize,
    act: Box<dyn FnMut() -> Result<(), Error> + Send>,
}

impl Observer for AtStep {
    fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        match record {
            LogRecord::Train(record) if record.step == self.step => (self.act)(),
            _ => Ok(()),
        }
    }
}

fn at_step(
    step: usize,
    act: impl FnMut() -> Result<(), Error> + Send + 'static,
) -> Box<dyn Observer> {
    Box::new(AtStep {
        step,
        act: Box::new(act),
    })
}

fn interrupt_at(mut options: FitOptions, step: usize) -> FitOptions {
    let interrupter = options.interrupter.clone();
    options.observers.push(at_step(step, move || {
        interrupter.stop(Some("test"));
        Ok(())
    }));
    options
}

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
    rest.resume = Some(Checkpoint::latest(&rest.output_dir).unwrap());
    assert_eq!(rest.start_step(), TOTAL / 2);
    let (resumed, summary) = run(rest).unwrap();

    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(losses(dirs[1].path()), losses(dirs[0].path()));
    assert_eq!(
        summary.best_eval.map(|best| best.step),
        whole_summary.best_eval.map(|best| best.step)
    );
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
    let (whole, _) = run(options(dir.path(), "")).unwrap();
    let mut again = options(dir.path(), "");
    again.resume = Some(Checkpoint::latest(&again.output_dir).unwrap());
    let (resumed, summary) = run(again).unwrap();
    assert_eq!(bits(&resumed), bits(&whole));
    assert_eq!(
        (summary.new_steps, summary.train_loss, summary.interrupted),
        (0, None, false)
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
    assert_eq!(
        Checkpoint::latest(&dir.path().join("run"))
            .unwrap()
            .state
            .step,
        4
    );
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
fn nothing_to_resume_and_a_used_folder_are_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    assert!(matches!(
        Checkpoint::latest(&output),
        Err(Error::NoCheckpoint { .. })
    ));
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
    assert_eq!(Checkpoint::latest(&output).unwrap().state.step, TOTAL);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_what_differs() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    run(options(dir.path(), "")).unwrap();
    let saved = Checkpoint::latest(&dir.path().join("run")).unwrap();

    let mut other = options(dir.path(), "train.seed = 7");
    other.resume = Some(saved.clone());
    let message = run(other).unwrap_err().to_string();
    assert!(message.contains("train.seed was 42"), "{message}");

    let mut other = options(dir.path(), "train.optim = \"adafactor\"");
    other.resume = Some(saved.clone());
    let message = run(other).unwrap_err().to_string();
    assert!(message.contains("train.optim was adamw"), "{message}");

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
    assert!(matches!(error, Error::Io { .. }), "{error}");
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

impl FitOptions {
    fn with_logging_steps(mut self, steps: usize) -> Self {
        self.train.logging_steps = steps;
        self
    }
}
