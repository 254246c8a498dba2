//! Checks of a run of which a part is missing or wrong.

use burn_peft_data::{Rows, TextTokenizer, tokenize_rows};

use super::{FileCheck, RunCheck, preview::preview};
use crate::{
    Error, RunConfig, TaskSetup,
    run::{look, tokenize_options},
};

/// Checks what can be checked of a run of which a part cannot be opened: where it would write, and its files, one error
/// each. Without a tokenizer or rows to learn from, no rows are shown.
#[must_use]
pub fn check_parts(
    config: &RunConfig,
    tokenizer: Option<&TextTokenizer>,
    files: &[(&'static str, &Rows)],
    resume: bool,
    shown: usize,
) -> RunCheck {
    let mut found = RunCheck::default();
    let dir = look(config.output.dir.as_deref(), config.method.name(), resume);
    found.output_dir = found.kept(dir);
    found.check_rows(config, tokenizer, files, shown);
    found
}

impl RunCheck {
    /// Checks each file by itself.
    pub(super) fn check_rows(
        &mut self,
        config: &RunConfig,
        tokenizer: Option<&TextTokenizer>,
        files: &[(&'static str, &Rows)],
        shown: usize,
    ) {
        let whole = files
            .iter()
            .map(|(split, rows)| FileCheck::of_rows(split, rows));
        self.files = whole.collect();
        let train = files.iter().find(|(split, _)| *split == "train");
        let (Some((_, train)), Some(tokenizer)) = (train, tokenizer) else {
            return;
        };
        let Some(task) = self.kept(TaskSetup::settle(&config.task, train)) else {
            return;
        };
        let longest = Some(config.data.max_length);
        let options = |scored| tokenize_options(config, &task, longest, scored);
        for (split, file) in files {
            let scored = *split != "train";
            let tokenized = tokenize_rows(file, tokenizer, options(scored), &mut |_, _| ());
            let tokenized = self.kept(tokenized.map_err(Error::from));
            if scored || shown == 0 {
                continue;
            }
            let examples = match tokenized {
                Some(tokenized) => tokenized.examples,
                // Perhaps it is a later row that is wrong.
                None => {
                    let part = file.part(0..shown.min(file.rows().len()));
                    let part = tokenize_rows(&part, tokenizer, options(false), &mut |_, _| ());
                    part.map_or(Vec::new(), |part| part.examples)
                }
            };
            let tokens = config.method.num_virtual_tokens();
            self.preview = preview(file, &examples, &task, tokenizer, tokens, shown);
        }
    }
}
