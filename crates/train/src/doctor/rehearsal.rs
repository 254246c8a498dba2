//! The first steps of a run, measured and not kept.

use std::time::Instant;

use burn::{
    data::dataloader::DataLoader,
    module::AutodiffModule,
    optim::Optimizer,
    tensor::backend::{AutodiffBackend, Backend},
};
use burn_peft::HeadKind;
use burn_peft_data::{Batch, Example, Mix, ProblemType, StepLoader};
use burn_peft_decoder::{Checkpoint as Base, Decoder};
use burn_peft_ops::Ops;
use burn_train::TrainStep;
use serde::Serialize;

use crate::{
    Error, Method, Ranks, RunOptimizer, Schedule, Stage, StepSeed, TaskSetup, Trainee,
    bench::wait_for,
    clip_grad_norm, evaluate,
    evaluate::eval_loader,
    init_optimizer,
    intervals::Intervals,
    run::{Ready, new_model, step_loader},
    strategy::{advice, step_seed},
};

/// Steps that are measured, behind one that is not.
const STEPS: usize = 2;

/// What the first steps of a run showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rehearsal {
    /// Parameters that train.
    pub trainable_params: usize,
    /// The loss of the run's first step.
    pub first_loss: Option<f64>,
    /// The loss of a guess that takes everything for equally likely: ln of the vocabulary or of the classes.
    pub loss_of_a_guess: Option<f64>,
    /// The norm of the first step's gradients before they are clipped. `None` where nothing has a gradient.
    pub grad_norm: Option<f64>,
    /// Seconds of each measured step.
    pub step_s: Vec<f64>,
    /// Tokens that these computed in a second, padding not counted.
    pub tokens_per_s: f64,
    /// The largest micro-batch that the run can have.
    pub longest: LongestBatch,
    /// The run as a whole.
    pub estimate: Estimate,
}

/// The largest micro-batch that a run can have: its longest rows together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LongestBatch {
    /// Its rows.
    pub rows: usize,
    /// Tokens of each with padding, virtual ones not counted.
    pub tokens: usize,
    /// Seconds that it took. It is computed first, and so has what a first step costs beside its own work.
    pub seconds: f64,
}

/// How long a run takes, going by its first steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Steps that are left.
    pub steps: usize,
    /// Seconds of them.
    pub training_s: f64,
    /// Evaluations while training.
    pub evaluations: usize,
    /// Seconds of these, and of scoring the held-out rows before and after. Without texts that are generated.
    pub evaluating_s: f64,
    /// All of it.
    pub total_s: f64,
}

/// Makes the model as the run does, from the checkpoint where it goes on, and runs its first steps. The training rows are
/// taken out of `ready`: there may be millions of them.
pub(super) fn rehearse<B, M>(
    method: &M,
    checkpoint: &Base,
    ready: &mut Ready,
    resumed: Option<&crate::Checkpoint>,
    device: &B::Device,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Rehearsal, Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    M: Method,
    M::Adapter<B>: AutodiffModule<B, InnerModule = M::Adapter<B::InnerBackend>>,
{
    let train = std::mem::take(&mut ready.rows.train);
    let Ready { config, rows, .. } = &*ready;
    let base = checkpoint.load::<B::InnerBackend>(rows.size.dtype, device, &mut |done, all| {
        progress(Stage::Loading, done, all);
    })?;
    let base = Decoder::<B>::from_inner(base);
    let seed = config.train.seed;
    let model = new_model(method, base, &rows.task, &rows.tokenizer, seed)?;
    let trainable_params = model.num_trainable();
    let random = StepSeed::default();
    let mut trainee = Trainee::new(model)
        .recomputing(rows.recompute)
        .seeded(random.clone());
    if let Some(saved) = resumed {
        saved.check_parameters::<B, _>(&trainee)?;
        trainee = saved.load_model(trainee, device)?;
    }
    let all = (STEPS + 1) as u64;
    progress(Stage::Training, 0, all);

    // First, so that the others are not slowed by what a program does once.
    let batch = longest_batch(ready, &train, device)?;
    let shape = [batch.batch, batch.seq];
    B::seed(device, step_seed(seed, 1));
    let began = Instant::now();
    drop(TrainStep::step(&trainee, vec![batch]));
    wait_for::<B>(device);
    let longest = LongestBatch {
        rows: shape[0],
        tokens: shape[1],
        seconds: began.elapsed().as_secs_f64(),
    };
    progress(Stage::Training, 1, all);

    let done = resumed.map_or(0, |saved| saved.state.step);
    let loader = step_loader::<B>(
        config,
        train,
        rows.mix.clone(),
        rows.padding,
        rows.plan,
        &Ranks::alone(),
        device,
    )?;
    let loader = loader.starting_at(done);
    let virtual_tokens = method.num_virtual_tokens();
    let mut measured = Measured::default();
    let mut optimizer: RunOptimizer<_, B> = init_optimizer(&config.train);
    let schedule = Schedule::new(
        config.train.lr_scheduler_type,
        rows.learning_rate,
        rows.plan.warmup_steps,
        rows.plan.total_steps,
    );
    for (index, batches) in loader.iter().take(STEPS).enumerate() {
        let step = done + index + 1;
        let cells = batches
            .iter()
            .map(|batch| cells([batch.batch, batch.seq], virtual_tokens));
        let cells = cells.sum::<usize>();
        // As the run itself does, so that what is random is the same.
        B::seed(device, step_seed(seed, step));
        random.set(step_seed(seed, step));
        let began = Instant::now();
        let output = TrainStep::step(&trainee, batches);
        let (gradients, norm) = clip_grad_norm(&trainee, output.grads, config.train.max_grad_norm);
        if output.item.label_tokens > 0 {
            trainee = optimizer.step(schedule.at(step - 1), trainee, gradients);
        }
        wait_for::<B>(device);
        measured.push(began.elapsed().as_secs_f64(), cells, output.item.tokens);
        if output.item.label_tokens > 0 && measured.first.is_none() {
            let found = [
                ("loss", output.item.loss),
                ("gradient norm", norm.unwrap_or(0.0)),
            ];
            if let Some(&(what, value)) = found.iter().find(|(_, value)| !value.is_finite()) {
                return Err(Error::NotFinite {
                    what,
                    value,
                    step,
                    learning_rate: schedule.at(step - 1),
                    advice: advice(step),
                    checkpoint: "nothing was trained".into(),
                });
            }
            measured.first = Some((output.item.loss, norm));
        }
        progress(Stage::Training, index as u64 + 2, all);
    }
    // Also where a resumed run has no two steps left.
    progress(Stage::Training, all, all);

    let (evaluations, evaluating_s) = evaluation(&trainee, ready, done, device)?;
    let steps = rows.plan.total_steps.saturating_sub(done);
    let training_s = measured.seconds_of(mean_cells(&loader, ready, virtual_tokens)) * steps as f64;
    let (first_loss, grad_norm) = measured.first.unzip();
    Ok(Rehearsal {
        trainable_params,
        first_loss,
        loss_of_a_guess: loss_of_a_guess(&rows.task, checkpoint.config().vocab_size),
        grad_norm: grad_norm.flatten(),
        tokens_per_s: measured.tokens as f64 / measured.seconds(),
        step_s: measured.step_s,
        longest,
        estimate: Estimate {
            steps,
            training_s,
            evaluations,
            evaluating_s,
            total_s: training_s + evaluating_s,
        },
    })
}

/// What the steps showed.
#[derive(Default)]
struct Measured {
    step_s: Vec<f64>,
    cells: usize,
    tokens: usize,
    /// The loss of the first step in which something is learned, and the norm of its gradients.
    first: Option<(f64, Option<f64>)>,
}

impl Measured {
    fn push(&mut self, seconds: f64, cells: usize, tokens: usize) {
        self.step_s.push(seconds);
        self.cells += cells;
        self.tokens += tokens;
    }

    fn seconds(&self) -> f64 {
        self.step_s.iter().sum()
    }

    /// Of so many cells.
    fn seconds_of(&self, cells: f64) -> f64 {
        match self.cells {
            0 => 0.0,
            measured => cells * self.seconds() / measured as f64,
        }
    }
}

/// What a micro-batch computes: its tokens, padding and virtual ones counted.
fn cells([rows, tokens]: [usize; 2], virtual_tokens: usize) -> usize {
    rows * (tokens + virtual_tokens)
}

/// The cells of a step of the first epoch, on average.
fn mean_cells<B: Backend>(loader: &StepLoader<B>, ready: &Ready, virtual_tokens: usize) -> f64 {
    let mut steps = loader.epoch_shapes(0);
    steps.truncate(ready.rows.plan.total_steps.max(1));
    let micro_batches = steps.iter().flatten();
    let all: usize = micro_batches
        .map(|&shape| cells(shape, virtual_tokens))
        .sum();
    all as f64 / steps.len() as f64
}

/// The rows that need the most memory together.
fn longest_batch<B: AutodiffBackend>(
    ready: &Ready,
    train: &[Example],
    device: &B::Device,
) -> Result<Batch<B>, Error> {
    let Ready { config, rows, .. } = ready;
    let mut longest: Vec<&Example> = train.iter().collect();
    longest.sort_by_key(|example| std::cmp::Reverse(example.len()));
    longest.truncate(rows.size.batch);
    let longest: Vec<Example> = longest.into_iter().cloned().collect();
    let mix = Mix::once(longest.len());
    let mut config = config.clone();
    config.train.group_by_length = false;
    let loader = step_loader::<B>(
        &config,
        longest,
        mix,
        rows.padding,
        rows.plan,
        &Ranks::alone(),
        device,
    )?;
    let first = loader
        .iter()
        .next()
        .and_then(|batches| batches.into_iter().next());
    first.ok_or(Error::DataExhausted {
        step: 1,
        total_steps: rows.plan.total_steps,
    })
}

/// How many evaluations a run makes, and the seconds of all of them and of the scores before and after, going by one
/// batch.
fn evaluation<B, A>(
    trainee: &Trainee<B, A>,
    ready: &Ready,
    done: usize,
    device: &B::Device,
) -> Result<(usize, f64), Error>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
    A: burn_peft::Adapter<B> + AutodiffModule<B, InnerModule: burn_peft::Adapter<B::InnerBackend>>,
{
    let Ready { config, rows, .. } = ready;
    let (plan, valid) = (rows.plan, rows.valid.as_deref());
    let Some(scored) = rows.test.as_deref().or(valid) else {
        return Ok((0, 0.0));
    };
    let size = config.train.per_device_eval_batch_size;
    let batch: Vec<Example> = scored.iter().take(size).cloned().collect();
    let tokens = |examples: &[Example]| examples.iter().map(Example::len).sum::<usize>() as f64;
    let batch_tokens = tokens(&batch);
    let model = trainee.valid();
    let loader = eval_loader(batch, size, rows.padding, device)?;
    let began = Instant::now();
    drop(evaluate(model.model(), &loader, &mut |_| ()));
    let per_token = began.elapsed().as_secs_f64() / batch_tokens.max(1.0);

    let evaluations = match valid {
        Some(_) => {
            let [eval_steps, _] = Intervals::new(&config.train, &plan).eval_and_save_steps();
            eval_steps.map_or(0, |every| plan.total_steps.div_ceil(every) - done / every)
        }
        None => 0,
    };
    let before_and_after = if done == 0 { 2.0 } else { 1.0 };
    let all = evaluations as f64 * valid.map_or(0.0, tokens) + before_and_after * tokens(scored);
    Ok((evaluations, all * per_token))
}

/// The loss of a guess that takes every token, or every class, for equally likely.
fn loss_of_a_guess(task: &TaskSetup, vocab: usize) -> Option<f64> {
    let choices = match task.head_kind() {
        None => vocab,
        Some(HeadKind::Span) => return None,
        Some(HeadKind::Sequence | HeadKind::Token) => {
            let labels = task.labels.as_ref()?;
            if labels.problem_type != ProblemType::SingleLabel {
                return None;
            }
            labels.names.len()
        }
    };
    Some((choices as f64).ln())
}
