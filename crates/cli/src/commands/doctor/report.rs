//! A check as text.

mod data;
mod machine;
mod model;

use burn_peft_train::Learning;

use self::{
    data::{data, preview},
    machine::steps,
};
use super::{
    Report,
    lengths::{count, several},
    page::Page,
    paint::{Look, Paint},
};
use crate::output::escaped;

impl Report {
    pub(super) fn to_text(&self, paint: &Paint) -> String {
        let mut page = Page {
            paint: *paint,
            text: String::new(),
        };
        if let Some(model) = &self.model {
            self.model(&mut page, model);
        }
        let run = &self.run;
        if let Some(learning) = &run.learning {
            self.run(&mut page, learning);
        }
        preview(&mut page, run);
        for file in &run.files {
            data(&mut page, file);
        }
        if let (Some(memory), Some(disk)) = (&run.memory, &run.disk) {
            self.needs(&mut page, memory, disk);
        }
        if let Some(rehearsal) = &run.rehearsal {
            steps(&mut page, rehearsal);
        }
        self.verdict(&mut page);
        page.text
    }

    fn run(&self, page: &mut Page, run: &Learning) {
        let config = self.config.as_ref();
        let config = config.map_or(String::new(), |path| path.display().to_string());
        page.heading("Run", &escaped(&config));
        let task = run.task_line.as_deref();
        let task = task.map_or("text to write", |line| {
            line.strip_prefix("task: ").unwrap_or(line)
        });
        page.fact("task", task);
        let mut method = run.method.clone();
        if run.virtual_tokens > 0 {
            method += &format!(", {} virtual tokens", count(run.virtual_tokens));
        }
        let trains = self.run.rehearsal.as_ref();
        let trains = trains.map_or(run.adapter_params, |rehearsal| rehearsal.trainable_params);
        page.fact(
            "method",
            &format!("{method}; {} parameters train", count(trains)),
        );
        let mut rate = format!("{:e}", run.learning_rate);
        if run.suited_rate {
            rate += ", which suits method and base";
        }
        if let Some(head) = run.head_learning_rate {
            rate += &format!("; the head's {head:e}");
        }
        if run.warmup_steps > 0 {
            rate += &format!("; it rises over {} steps", count(run.warmup_steps));
        }
        page.fact("rate", &format!("{rate} ({})", run.optim));
        let epochs = run.total_steps as f64 / run.steps_per_epoch.max(1) as f64;
        let done = match run.done_steps {
            0 => String::new(),
            done => format!("; {} are done", count(done)),
        };
        page.fact(
            "steps",
            &format!(
                "{} of {} rows each, {epochs:.2} epochs{done}",
                count(run.total_steps),
                count(run.rows_per_step)
            ),
        );
        if let Some(dir) = &self.run.output_dir {
            page.fact("output", &dir.display().to_string());
        }
    }

    fn verdict(&self, page: &mut Page) {
        let summary = match (self.errors.len(), self.warnings.len()) {
            (0, 0) => String::new(),
            (0, warnings) => several(warnings, "warning"),
            (errors, 0) => several(errors, "error"),
            (errors, warnings) => {
                format!(
                    "{}, {}",
                    several(errors, "error"),
                    several(warnings, "warning")
                )
            }
        };
        page.heading("Result", &summary);
        for error in &self.errors {
            page.marked("✗", Look::Bad, error);
        }
        for warning in &self.warnings {
            page.marked("!", Look::Warning, warning);
        }
        match self.errors.is_empty() {
            true => page.marked("✓", Look::Good, "the run can start; nothing was written"),
            false => page.marked(
                "✗",
                Look::Bad,
                "the run would not start; nothing was written",
            ),
        }
    }
}
