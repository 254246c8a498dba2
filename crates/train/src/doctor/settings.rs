//! What is known to make a run worse.

use burn::tensor::DType;
use burn_peft_data::{ProblemType, Task};
use burn_peft_decoder::Family;

use super::{FileCheck, MemoryCheck, Rehearsal};
use crate::{RunInputs, run::Ready};

/// A class of so large a share of the rows lets a model look good that always names it.
const COMMON: f64 = 0.8;
/// Fewer steps than any figure in docs/results.md comes from.
const FEW_STEPS: usize = 20;
/// A first loss below this leaves nothing to learn.
const KNOWN_ALREADY: f64 = 0.01;

/// What the settings say.
pub(super) fn warnings_of_settings(ready: &Ready, inputs: &RunInputs) -> Vec<String> {
    let (rows, config, base) = (&ready.rows, &ready.config, inputs.checkpoint.config());
    let (plan, train) = (rows.plan, &config.train);
    let mut warnings = Vec::new();
    // docs/backends.md
    if rows.size.dtype == DType::F16 && base.family == Family::Qwen2 {
        warnings.push(
            "the base is computed in f16, whose range the activations of Qwen2 leave; take --dtype bf16 or f32"
                .to_owned(),
        );
    }
    if plan.warmup_steps >= plan.total_steps {
        warnings.push(format!(
            "the learning rate rises over {} steps and the run has {}: it never reaches {:e}",
            plan.warmup_steps, plan.total_steps, rows.learning_rate
        ));
    }
    if plan.total_steps < FEW_STEPS {
        warnings.push(format!(
            "the run has {} steps; adapters of so few parameters were seen to need more to leave where they start",
            plan.total_steps
        ));
    }
    if plan.total_steps < plan.steps_per_epoch {
        let seen = plan.total_steps
            * train.per_device_train_batch_size
            * train.gradient_accumulation_steps;
        warnings.push(format!(
            "the run ends after {seen} of {} training rows; the others are not seen",
            rows.mix.len()
        ));
    }
    if rows.mix.len() < train.per_device_train_batch_size {
        warnings.push(format!(
            "train.per_device_train_batch_size is {}, and there are {} training rows: every step has all of them",
            train.per_device_train_batch_size,
            rows.mix.len()
        ));
    }
    if rows.valid.is_none() {
        warnings.push(
            "there are no rows to evaluate on (data.valid), so nothing shows when the run learns its rows by heart"
                .to_owned(),
        );
    }
    warnings
}

/// What the rows say.
pub(super) fn warnings_of_rows(files: &[FileCheck], ready: &Ready) -> Vec<String> {
    let mut warnings = Vec::new();
    for file in files {
        warnings.extend(lost(file, ready.config.data.max_length));
        warnings.extend(repeats(file));
        if file.only_end > 0 {
            warnings.push(format!(
                "{}: {} of {} rows have no text to learn, and teach the model to write nothing",
                file.path, file.only_end, file.examples
            ));
        }
        if file.split == "train" {
            warnings.extend(labels(file, ready));
        }
    }
    warnings
}

fn lost(file: &FileCheck, max_length: usize) -> Option<String> {
    let lost = file.lost?;
    let share = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
    let mut text = format!(
        "{}: data.max_length = {max_length} cuts {} of {} rows",
        file.path, file.truncated, file.rows
    );
    if file.dropped > 0 {
        text += &format!(" and leaves out {}", file.dropped);
    }
    text += &format!(
        ": {:.1} % of the tokens are lost",
        share(lost.tokens, lost.all_tokens)
    );
    if lost.all_supervised > 0 {
        let share = share(lost.supervised, lost.all_supervised);
        text += &format!(", and {share:.1} % of those that are learned");
    }
    Some(text)
}

fn repeats(file: &FileCheck) -> Vec<String> {
    let (found, all, path) = (file.repeats, file.examples, &file.path);
    let what = match file.task {
        Task::Qa => "windows",
        _ => "rows",
    };
    let mut warnings = Vec::new();
    if found.in_train > 0 {
        let share = match found.in_train == all {
            true => format!("all {all} {what} are"),
            false => format!("{} of {all} {what} are", found.in_train),
        };
        warnings.push(format!(
            "{path}: {share} also among the training rows, so scores on them say little about new rows"
        ));
    }
    if found.repeated > 0 {
        warnings.push(format!(
            "{path}: {} of {all} {what} repeat an earlier one",
            found.repeated
        ));
    }
    if found.conflicting > 0 {
        warnings.push(format!(
            "{path}: {} of {all} {what} have the text of an earlier one and another label",
            found.conflicting
        ));
    }
    warnings
}

/// Classes that are hardly there, and such as are nearly everything.
fn labels(file: &FileCheck, ready: &Ready) -> Vec<String> {
    let task = &ready.rows.task;
    let labels = task.labels.as_ref();
    let single = labels.is_some_and(|labels| labels.problem_type == ProblemType::SingleLabel);
    let all: usize = file.labels.iter().map(|label| label.count).sum();
    let mut warnings = Vec::new();
    if task.task == Task::SeqCls && single && all > 0 {
        let common = file.labels.iter().max_by_key(|label| label.count);
        let share = |count: usize| count as f64 / all as f64;
        if let Some(common) = common.filter(|common| share(common.count) >= COMMON) {
            warnings.push(format!(
                "{}: {:.0} % of the rows are {:?}; a model that always says so has that accuracy",
                file.path,
                100.0 * share(common.count),
                common.label
            ));
        }
    }
    let missing = file.labels.iter().filter(|label| label.count == 0);
    let missing: Vec<&str> = missing.map(|label| label.label.as_str()).collect();
    if task.task != Task::Qa && !missing.is_empty() {
        warnings.push(format!(
            "{}: no row has the class {}; a model cannot learn it",
            file.path,
            missing.join(", ")
        ));
    }
    warnings
}

/// A step that does not fit. The estimate may be too high, so it is no error.
pub(super) fn warning_of_memory(memory: &MemoryCheck) -> Option<String> {
    if memory.fits? {
        return None;
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let needed = if memory.recompute {
        memory.recomputing
    } else {
        memory.keeping
    };
    let mut text = format!(
        "a step needs about {:.1} GiB of memory, and there are {:.1} GiB",
        gib(needed),
        gib(memory.available?)
    );
    text += &match memory.largest_batch_recomputing {
        Some(rows @ 1..) if rows < memory.batch => format!(
            "; with train.per_device_train_batch_size = {rows} and gradient checkpointing it fits"
        ),
        Some(1..) => "; with train.gradient_checkpointing = true it fits".to_owned(),
        _ => "; even one row does not fit: take a smaller model or --dtype bf16".to_owned(),
    };
    Some(text)
}

/// What the first steps say.
pub(super) fn warnings_of_rehearsal(found: &Rehearsal, ready: &Ready) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_text = ready.rows.task.head_kind().is_none();
    if let (true, Some(loss), Some(guess)) = (is_text, found.first_loss, found.loss_of_a_guess) {
        if loss > guess {
            warnings.push(format!(
                "the first loss is {loss:.2}, worse than a guess among all tokens ({guess:.2}): \
                 model and tokenizer may not belong together, or the rows are not made for this model"
            ));
        }
        if loss < KNOWN_ALREADY {
            warnings.push(format!(
                "the first loss is {loss:.4}: the model writes these texts already, so there is nothing to learn"
            ));
        }
    }
    if found.first_loss.is_some() && found.grad_norm.is_none_or(|norm| norm == 0.0) {
        warnings.push("the first step has no gradient, so nothing trains".to_owned());
    }
    warnings
}
