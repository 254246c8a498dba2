//! What a run takes of memory, disk and time.

use burn_peft_train::{DiskNeed, MemoryCheck, Rehearsal};
use indicatif::HumanDuration;

use crate::commands::doctor::{
    Report,
    lengths::{bytes, count, several},
    page::Page,
};

impl Report {
    pub(super) fn needs(&self, page: &mut Page, memory: &MemoryCheck, disk: &DiskNeed) {
        page.heading("Memory and disk", "");
        let (needed, other) = match memory.recompute {
            true => (memory.recomputing, memory.keeping),
            false => (memory.keeping, memory.recomputing),
        };
        let there = match (memory.available, self.machine.free_memory) {
            (Some(all), Some(free)) => {
                format!("there are {}, {} of them free now", bytes(all), bytes(free))
            }
            (Some(all), None) => format!("there are {}", bytes(all)),
            (None, _) => "what the device has is not known".to_owned(),
        };
        page.fact(
            "a step",
            &format!(
                "about {} ({} of them weights) for {} rows of up to {} tokens; {there}",
                bytes(needed),
                bytes(memory.weights),
                count(memory.batch),
                count(memory.seq)
            ),
        );
        let why = match (memory.recompute, memory.decided) {
            (true, true) => "on: a step would not fit otherwise",
            (true, false) => "on, as asked",
            (false, true) => "off: a step fits without it",
            (false, false) => "off, as asked",
        };
        let would = match memory.recompute {
            true => "without it, a step takes",
            false => "with it, a step takes",
        };
        page.fact(
            "recompute",
            &format!("{why}; {would} about {}", bytes(other)),
        );
        if let (Some(rows), Some(most)) = (memory.largest_batch, memory.largest_batch_recomputing) {
            let mut fits = format!("{} in a micro-batch", few(rows));
            if rows <= MANY && !memory.recompute {
                fits += &format!(", {} with --recompute", few(most));
            }
            page.fact("fits", &fits);
        }
        if let Some(peak) = self.machine.peak_memory {
            page.fact(
                "seen",
                &format!("{} at most, while the steps below ran", bytes(peak)),
            );
        }
        let free = self.machine.free_disk;
        let free = free.map_or(String::new(), |free| format!("; {} are free", bytes(free)));
        page.fact(
            "disk",
            &format!(
                "about {} for {}{free}",
                bytes(disk.total),
                several(disk.checkpoints, "checkpoint")
            ),
        );
    }
}

/// More rows than anybody puts into a batch.
const MANY: usize = 4096;

fn few(rows: usize) -> String {
    match rows > MANY {
        true => format!("more than {} rows", count(MANY)),
        false => several(rows, "row"),
    }
}

pub(super) fn steps(page: &mut Page, found: &Rehearsal) {
    page.heading("First steps", "measured, not kept");
    if let Some(loss) = found.first_loss {
        let guess = found.loss_of_a_guess;
        let guess = guess.map_or(String::new(), |guess| {
            format!("; a guess among all has {guess:.2}")
        });
        page.fact("loss", &format!("{loss:.4} at the first step{guess}"));
    }
    let norm = found.grad_norm;
    let norm = norm.map_or("nothing has a gradient".to_owned(), |norm| {
        format!("{norm:.3}")
    });
    page.fact("gradient", &format!("norm {norm}"));
    let each: Vec<String> = found.step_s.iter().map(|step| seconds(*step)).collect();
    page.fact(
        "a step",
        &format!(
            "{}; {} tokens/s",
            each.join(" and "),
            count(found.tokens_per_s.round() as usize)
        ),
    );
    let longest = found.longest;
    page.fact(
        "longest",
        &format!(
            "{} rows of {} tokens: {}",
            count(longest.rows),
            count(longest.tokens),
            seconds(longest.seconds)
        ),
    );
    let run = found.estimate;
    let mut whole = format!(
        "{} for {}",
        about(run.training_s),
        several(run.steps, "step")
    );
    if run.evaluating_s > 0.0 {
        whole += &format!(
            ", and {} for {} and the scores before and after",
            about(run.evaluating_s),
            several(run.evaluations, "evaluation")
        );
    }
    page.fact("the run", &whole);
    page.fact(
        "in all",
        &format!("{}, without texts that are generated", about(run.total_s)),
    );
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.0} ms", 1000.0 * s),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// A duration that is an estimate.
fn about(seconds: f64) -> String {
    let rounded = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e12).ceil());
    format!("about {}", HumanDuration(rounded))
}
