//! A check as text.

use burn_peft_data::Task;
use burn_peft_train::{DiskNeed, FileCheck, Learning, MemoryCheck, Rehearsal, RunCheck};
use indicatif::{BinaryBytes, HumanDuration};

use super::{
    Report, lengths,
    lengths::count,
    model::{ModelFacts, Token, TokenizerFacts},
    paint::{Look, Paint, column, columns, wrapped},
    rows, tokens,
};
use crate::output::escaped;

/// Columns of the name of a fact.
const NAME: usize = 12;

/// Lines under headings.
struct Page {
    paint: Paint,
    text: String,
}

impl Page {
    fn heading(&mut self, title: &str, beside: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &self.paint.paint(Look::Heading, title);
        if !beside.is_empty() {
            let room = self.paint.width - columns(title) - 2;
            let beside = ending(beside, room);
            let gap = self.paint.width - columns(title) - columns(&beside);
            self.text += &" ".repeat(gap);
            self.text += &self.paint.paint(Look::Dim, &beside);
        }
        self.text.push('\n');
    }

    /// A line that is drawn already.
    fn line(&mut self, line: &str) {
        self.text += &format!("  {line}\n");
    }

    /// A fact, on as many lines as it takes.
    fn fact(&mut self, name: &str, value: &str) {
        let value = escaped(&value.replace('\n', " "));
        let lines = wrapped(&value, self.paint.width - NAME - 2);
        for (index, line) in lines.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            let name = super::paint::padded(name, NAME);
            self.line(&format!("{}{line}", self.paint.paint(Look::Dim, &name)));
        }
    }

    /// A sentence behind a mark.
    fn marked(&mut self, mark: &str, look: Look, text: &str) {
        let text = escaped(&text.replace('\n', " "));
        for (index, line) in wrapped(&text, self.paint.width - 4).iter().enumerate() {
            let mark = if index == 0 { mark } else { " " };
            self.line(&format!("{} {line}", self.paint.paint(look, mark)));
        }
    }
}

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

    fn model(&self, page: &mut Page, model: &ModelFacts) {
        page.heading("Model", &escaped(&model.name));
        if let Some(shape) = &model.shape {
            let stored = shape.stored_as.as_ref();
            let stored = stored.map_or(String::new(), |stored| format!("stored as {stored}, "));
            page.fact(
                "weights",
                &format!(
                    "{}, {} parameters, {} layers of width {}; {stored}computed in {} on {}",
                    shape.family,
                    count(shape.parameters),
                    shape.num_hidden_layers,
                    shape.hidden_size,
                    self.dtype,
                    self.backend
                ),
            );
        }
        if !model.files.is_empty() {
            let files = model.files.iter();
            let files = files.map(|(name, bytes)| format!("{name} ({})", BinaryBytes(*bytes)));
            page.fact("files", &files.collect::<Vec<_>>().join(", "));
        }
        if let Some(tokenizer) = &self.tokenizer {
            self.tokenizer(page, tokenizer);
        }
    }

    fn tokenizer(&self, page: &mut Page, found: &TokenizerFacts) {
        let mut ids = format!("{} ids", count(found.ids));
        if let Some(rows) = found.table_rows {
            ids += &format!(" for a table of {} rows", count(rows));
        }
        ids += &match (found.outside_table.len(), found.unused_rows) {
            (0, None | Some(0)) => String::new(),
            (0, Some(unused)) => format!("; {} rows are not used", count(unused)),
            (outside, _) => format!("; {} ids are beyond it", count(outside)),
        };
        page.fact("tokenizer", &ids);
        let template = match (found.chat_template, found.needs_chat_template) {
            (true, true) => "there is one, and the rows are written with it",
            (true, false) => "there is one; the rows do not use it",
            (false, true) => "there is none, and the rows need one",
            (false, false) => "there is none; the rows do not need one",
        };
        let turn = found.end_of_turn.as_ref();
        let turn = turn.map_or(String::new(), |turn| {
            format!("; a turn ends with {}", named(turn))
        });
        page.fact("template", &format!("{template}{turn}"));
        let eos = found.eos.as_ref().map_or("no token".to_owned(), named);
        let files = found.ends.iter().map(|end| end.file.as_str());
        let files: Vec<&str> = files.collect();
        let agree = match (found.ends_agree(), &files[..]) {
            (_, []) => String::new(),
            (_, [file]) => format!(", as {file} says"),
            (true, files) => format!(", and {} agree", files.join(", ")),
            (false, files) => format!(", but {} do not agree", files.join(", ")),
        };
        page.fact("end of text", &format!("{eos}{agree}"));
        if !found.stop_ids.is_empty() {
            let stops: Vec<String> = found.stop_ids.iter().map(named).collect();
            page.fact("stops at", &stops.join(", "));
        }
        let bos = match (&found.bos, found.adds_bos) {
            (Some(bos), true) => format!("{}, put in front of a row", named(bos)),
            (Some(bos), false) => format!("{}, not put in front of a row", named(bos)),
            (None, true) => "put in front of a row".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let pad = found.pad.as_ref().map_or("none".to_owned(), named);
        page.fact("bos · pad", &format!("{bos} · {pad}"));
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

    fn needs(&self, page: &mut Page, memory: &MemoryCheck, disk: &DiskNeed) {
        page.heading("Memory and disk", "");
        let (needed, other) = match memory.recompute {
            true => (memory.recomputing, memory.keeping),
            false => (memory.keeping, memory.recomputing),
        };
        let there = match (memory.available, self.machine.free_memory) {
            (Some(all), Some(free)) => {
                format!(
                    "there are {}, {} of them free now",
                    BinaryBytes(all),
                    BinaryBytes(free)
                )
            }
            (Some(all), None) => format!("there are {}", BinaryBytes(all)),
            (None, _) => "what the device has is not known".to_owned(),
        };
        page.fact(
            "a step",
            &format!(
                "about {} ({} of them weights) for {} rows of up to {} tokens; {there}",
                BinaryBytes(needed),
                BinaryBytes(memory.weights),
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
            &format!("{why}; {would} about {}", BinaryBytes(other)),
        );
        if let (Some(rows), Some(most)) = (memory.largest_batch, memory.largest_batch_recomputing) {
            let so = match memory.recompute {
                true => String::new(),
                false => format!(", or {} with checkpointing", few(most)),
            };
            page.fact(
                "fits",
                &format!("per_device_train_batch_size up to {}{so}", few(rows)),
            );
        }
        if let Some(peak) = self.machine.peak_memory {
            page.fact(
                "seen",
                &format!("{} at most, while the steps below ran", BinaryBytes(peak)),
            );
        }
        let free = self.machine.free_disk;
        let free = free.map_or(String::new(), |free| {
            format!("; {} are free", BinaryBytes(free))
        });
        page.fact(
            "disk",
            &format!(
                "about {} for {} checkpoints{free}",
                BinaryBytes(disk.total),
                count(disk.checkpoints)
            ),
        );
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

/// The end of a text that is too long, as of a path.
fn ending(text: &str, width: usize) -> String {
    let mut length = columns(text);
    if length <= width {
        return text.to_owned();
    }
    let rest = text.chars().skip_while(|c| {
        let skipped = length >= width;
        length -= if skipped { column(*c) } else { 0 };
        skipped
    });
    std::iter::once('…').chain(rest).collect()
}

fn several(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// More rows than anybody puts into a batch.
fn few(rows: usize) -> String {
    const MANY: usize = 4096;
    match rows > MANY {
        true => format!("more than {}", count(MANY)),
        false => count(rows),
    }
}

fn named(token: &Token) -> String {
    match token.id {
        Some(id) => format!("{} ({id})", token.token),
        None => format!("{} (not in the vocabulary)", token.token),
    }
}

fn preview(page: &mut Page, run: &RunCheck) {
    let Some(first) = run.preview.first() else {
        return;
    };
    let learned = match page.paint.has_colour() {
        true => "learned in green",
        false => "learned between ⟦ and ⟧",
    };
    page.heading("First rows", learned);
    for (index, row) in run.preview.iter().enumerate() {
        if index > 0 {
            page.text.push('\n');
        }
        for line in rows::lines(row, page.paint) {
            page.line(&line);
        }
    }
    page.heading("Tokens of the first row", "");
    for line in tokens::listing(&first.tokens, page.paint) {
        page.line(&line);
    }
}

fn data(page: &mut Page, file: &FileCheck) {
    page.heading(&format!("Rows: {}", file.split), &escaped(&file.path));
    let mut rows = format!("{} of the form {}", count(file.rows), file.format);
    if file.task == Task::Qa {
        rows += &format!(", in {} windows", count(file.examples));
    }
    page.fact("rows", &rows);
    let Some(tokens) = &file.tokens else {
        page.fact("tokens", "not counted, because of an error below");
        return;
    };
    let mut cut = match (file.truncated, file.dropped) {
        (0, 0) => "none".to_owned(),
        (cut, 0) => count(cut),
        (cut, dropped) => format!("{}, and {} left out", count(cut), count(dropped)),
    };
    if let Some(lost) = file.lost {
        let share = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
        cut += &format!(
            "; {:.1} % of the tokens are lost",
            share(lost.tokens, lost.all_tokens)
        );
    }
    page.fact("cut", &cut);
    let repeats = file.repeats;
    let mut twice = count(repeats.repeated);
    if file.split != "train" {
        twice += &format!(
            "; {} are also in the training rows",
            count(repeats.in_train)
        );
    }
    page.fact("repeated", &twice);
    page.fact("tokens", &lengths::summary(tokens));
    if file.split == "train" {
        for line in lengths::histogram(tokens, page.paint) {
            page.line(&format!("{}{line}", " ".repeat(NAME)));
        }
    }
    if let Some(supervised) = &file.supervised {
        let bars = lengths::sparkline(supervised);
        page.fact(
            "learned",
            &format!("{}  {bars}", lengths::summary(supervised)),
        );
    }
    if !file.labels.is_empty() {
        page.fact("labels", "");
        for line in lengths::labels(&file.labels, page.paint) {
            page.line(&format!("{}{line}", " ".repeat(NAME)));
        }
    }
}

fn steps(page: &mut Page, found: &Rehearsal) {
    page.heading("First steps", "measured, not kept");
    if let Some(loss) = found.first_loss {
        let guess = found.loss_of_a_guess;
        let guess = guess.map_or(String::new(), |guess| {
            format!("; a blind guess has {guess:.2}")
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
    let mut whole = format!("{} for {} steps", about(run.training_s), count(run.steps));
    if run.evaluating_s > 0.0 {
        whole += &format!(
            ", and {} for {} evaluations and the scores before and after",
            about(run.evaluating_s),
            count(run.evaluations)
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
