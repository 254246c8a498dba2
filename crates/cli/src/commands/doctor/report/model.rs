//! What the files of the model say.

use crate::{
    commands::doctor::{
        Report,
        lengths::{bytes, count},
        model::{ModelFacts, Token, TokenizerFacts},
        page::Page,
    },
    output::escaped,
};

impl Report {
    pub(super) fn model(&self, page: &mut Page, model: &ModelFacts) {
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
            let files = files.map(|(name, size)| format!("{name} ({})", bytes(*size)));
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
}

fn named(token: &Token) -> String {
    match token.id {
        Some(id) => format!("{} ({id})", token.token),
        None => format!("{} (not in the vocabulary)", token.token),
    }
}
