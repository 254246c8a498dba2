//! What the model card of a run says.

use std::path::Path;

use burn_peft_data::Rows;
use burn_peft_format::{AdapterFolder, CardData, CardScore, ModelCard, is_hub_id};
use toml::{Table, Value};

use crate::{Error, FitSummary, HeldOut, Method, RunConfig, RunInputs, comparison};

/// Keys of run.toml that say where files are on the machine of the run.
const PLACES: [(&str, &str); 4] = [
    ("data", "train"),
    ("data", "valid"),
    ("data", "test"),
    ("output", "dir"),
];

/// Keys that hold a path or a hub id.
const NAMES: [(&str, &str); 2] = [("model", "path"), ("method", "init_from")];

/// The card of a run with these scores before and after, where it has any.
pub(super) fn card<M: Method>(
    method: &M,
    config: &RunConfig,
    inputs: &RunInputs,
    folder: &AdapterFolder,
    summary: &FitSummary,
    scores: Option<(Option<&HeldOut>, &HeldOut)>,
) -> Result<ModelCard, Error> {
    let base = inputs.checkpoint.config();
    let mut facts = Vec::new();
    if method.name() != folder.config.method.name() {
        facts.push(("trained as".to_owned(), method.name().to_owned()));
    }
    if inputs.base_name.is_none() {
        let built_in = "the one built into burn-peft";
        facts.push(("base model".to_owned(), built_in.to_owned()));
    }
    facts.push(("steps".to_owned(), summary.steps.to_string()));
    if let Some(loss) = summary.train_loss {
        facts.push(("mean training loss".to_owned(), format!("{loss:.4}")));
    }
    if let Some(best) = &summary.best_eval
        && best.step == summary.adapter_step
    {
        let value = format!(
            "{} {:.4}, after step {}",
            best.metric, best.value, best.step
        );
        facts.push(("best evaluation".to_owned(), value));
    }
    let eval = summary.eval.as_ref();
    if let Some(eval) = eval.filter(|eval| eval.step == summary.adapter_step) {
        facts.push((
            "validation loss".to_owned(),
            format!("{:.4}", eval.eval_loss),
        ));
    }
    let held_out = inputs.test.as_ref().or(inputs.valid.as_ref());
    let scored_on = scores.zip(held_out).map(|((_, after), rows)| {
        format!("{} rows of {}", after.evaluation.examples, names_of(rows))
    });
    let lines = scores.map(|(before, after)| comparison(before, after));
    let lines = lines.into_iter().flatten().map(|line| CardScore {
        name: line.name.to_owned(),
        before: line.before,
        after: line.after,
    });
    Ok(ModelCard {
        facts,
        data: data_of(inputs),
        scores: lines.collect(),
        scored_on,
        settings: Some(settings(&config.to_toml_of(&method.settings(base))?)),
        refused_by_peft: folder.refused_by_peft(base),
        ..ModelCard::default()
    })
}

/// The files by what they are for.
fn data_of(inputs: &RunInputs) -> Vec<CardData> {
    let mut data = Vec::new();
    for (purpose, rows) in [
        ("training", Some(&inputs.train)),
        ("validation", inputs.valid.as_ref()),
        ("test", inputs.test.as_ref()),
    ] {
        let files = rows.into_iter().flat_map(Rows::files);
        data.extend(files.map(|file| CardData {
            purpose: match file.weight == 1.0 {
                true => purpose.to_owned(),
                false => format!("{purpose}, weight {}", file.weight),
            },
            file: name_of(file.path).to_owned(),
            rows: file.rows.len(),
        }));
    }
    data
}

/// The names of the files of rows, without their folders.
fn names_of(rows: &Rows) -> String {
    let names: Vec<&str> = rows.files().map(|file| name_of(file.path)).collect();
    names.join(" and ")
}

/// A run.toml without the paths in it. Names of hub repositories stay.
fn settings(run_file: &str) -> String {
    let Ok(mut sections) = run_file.parse::<Table>() else {
        return run_file.to_owned();
    };
    for (section, key) in PLACES {
        let table = sections.get_mut(section).and_then(Value::as_table_mut);
        table.and_then(|table| table.remove(key));
    }
    for (section, key) in NAMES {
        let table = sections.get_mut(section).and_then(Value::as_table_mut);
        let value = table.and_then(|table| table.get_mut(key));
        if let Some(Value::String(name)) = value
            && (!is_hub_id(name) || Path::new(name).is_dir())
        {
            *name = name_of(name).to_owned();
        }
    }
    sections.retain(|_, section| section.as_table().is_none_or(|table| !table.is_empty()));
    sections.to_string()
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    let mut parts = path.split(['/', '\\']);
    parts.rfind(|part| !part.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_are_named_without_their_folders() {
        let rows = |path: &str| burn_peft_data::parse_rows(path, "{\"text\":\"a\"}").unwrap();
        let both = [(rows("/home/me/a.jsonl"), 1.0), (rows("data/b.jsonl"), 1.0)];
        let both = Rows::join(both).unwrap();
        assert_eq!(names_of(&both), "a.jsonl and b.jsonl");
        let (kept, taken) = both.hold_out(1, 0);
        let mut names = [names_of(&kept), names_of(&taken)];
        names.sort();
        assert_eq!(names, ["a.jsonl", "b.jsonl"]);
    }

    #[test]
    fn settings_tell_no_paths() {
        let text = settings(
            "[model]\npath = \"/home/me/Qwen2.5-0.5B\"\n[method]\ntype = \"bitfit\"\n\
             init_from = \"someone/prompt\"\n[data]\ntrain = \"/home/me/x.jsonl\"\nmax_length = 7\n\
             [output]\ndir = \"/home/me/runs\"\n",
        );
        assert!(
            !text.contains("/home") && !text.contains("output"),
            "{text}"
        );
        for kept in [
            "path = \"Qwen2.5-0.5B\"",
            "max_length = 7",
            "someone/prompt",
        ] {
            assert!(text.contains(kept), "{text}");
        }
    }
}
