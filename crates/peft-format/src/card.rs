//! `README.md`, the model card.

mod front_matter;
#[cfg(test)]
mod tests;
mod usage;

use std::path::Path;

use burn_peft_decoder::DecoderConfig;

use crate::config::AdapterConfig;
use crate::folder::AdapterFolder;
use crate::hub_id::is_hub_id;
use crate::peft_type::Landing;
use crate::task::TaskType;

/// The line that says a card is ours to overwrite.
pub(crate) const MARK: &str =
    "<!-- burn-peft rewrites this file; without this line it stays as it is -->";

/// What a model card says beyond the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelCard {
    /// The heading. Default: the method and the base model.
    pub title: Option<String>,
    /// Rows of a table, such as `("steps", "400")`.
    pub facts: Vec<(String, String)>,
    /// The files it was trained on and measured with.
    pub data: Vec<CardData>,
    /// How good it is.
    pub scores: Vec<CardScore>,
    /// The rows that the scores are of, as the end of a sentence, such as `100 rows of test.jsonl`.
    pub scored_on: Option<String>,
    /// The settings of the run, as TOML.
    pub settings: Option<String>,
    /// Why PEFT does not load the folder, as a sentence ([`AdapterFolder::refused_by_peft`]); `None` if it does.
    pub refused_by_peft: Option<String>,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardData {
    /// What it was for, such as `training`.
    pub purpose: String,
    /// Its name, without its folder.
    pub file: String,
    /// Its rows.
    pub rows: usize,
}

/// A score of the base alone and with the adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardScore {
    /// What is measured.
    pub name: String,
    /// Without the adapter, where that is known.
    pub before: Option<String>,
    /// With it.
    pub after: String,
}

/// The base model as a card can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base<'a> {
    /// On the hub.
    Hub(&'a str),
    /// In a folder of somebody's machine, by its last part.
    Folder(&'a str),
    /// The name of none is known.
    Unknown,
}

impl<'a> Base<'a> {
    fn of(config: &'a AdapterConfig) -> Self {
        match config.base_name() {
            // A folder goes before the hub wherever models are named.
            Some(name) if is_hub_id(name) && !Path::new(name).is_dir() => Self::Hub(name),
            Some(name) => {
                let mut parts = name.split(['/', '\\']);
                let last = parts.rfind(|part| !["", ".", ".."].contains(part));
                last.map_or(Self::Unknown, Self::Folder)
            }
            None => Self::Unknown,
        }
    }

    fn name(self) -> Option<&'a str> {
        match self {
            Self::Hub(name) | Self::Folder(name) => Some(name),
            Self::Unknown => None,
        }
    }
}

impl AdapterFolder {
    /// Why PEFT does not load the folder for this base, as a sentence; `None` if it does.
    pub fn refused_by_peft(&self, base: &DecoderConfig) -> Option<String> {
        if let Some(reason) = biases_beyond_peft(&self.config) {
            return Some(reason);
        }
        let Landing::Prefix(tokens) = self.config.method.landing() else {
            return None;
        };
        (tokens.token_dim != Some(base.kv_width())).then(|| {
            "It has a key and a value for each query head, and PEFT expects one for each key/value head.".into()
        })
    }
}

fn biases_beyond_peft(config: &AdapterConfig) -> Option<String> {
    let beyond = config.method.beyond_peft();
    let names: Vec<_> = beyond.iter().map(|module| format!("`{module}`")).collect();
    (!names.is_empty()).then(|| {
        let names = names.join(" and ");
        format!("It has biases on {names}, and PEFT knows biases of linear layers only.")
    })
}

impl ModelCard {
    /// The text: front matter that the Hugging Face hub reads, then a summary.
    pub(crate) fn render(&self, folder: &AdapterFolder) -> String {
        let base = Base::of(&folder.config);
        let method = folder.method_name();
        let mut text = front_matter::of(folder, base);
        text += &format!("\n{MARK}\n\n");
        text += &match (&self.title, base.name()) {
            (Some(title), _) => format!("# {}\n", one_line(title)),
            (None, Some(base)) => format!("# {method} for {}\n", one_line(base)),
            (None, None) => format!("# {method}\n"),
        };
        let what = folder.config.method.peft_type();
        text += &format!(
            "\nAn adapter in Hugging Face PEFT's format (`{what}`), trained with burn-peft.\n\n"
        );
        text += &table(["", ""], self.facts_of(folder, base));
        text += &self.measured();
        text += &usage::here(folder, base);
        let refused = || biases_beyond_peft(&folder.config);
        text += &match self.refused_by_peft.clone().or_else(refused) {
            Some(reason) => {
                format!("\n{reason} PEFT does not load this folder; burn-peft does.\n")
            }
            None => usage::in_peft(folder, base),
        };
        text + &self.training()
    }

    /// What the configuration says, and what this card adds.
    fn facts_of(&self, folder: &AdapterFolder, base: Base<'_>) -> Vec<[String; 2]> {
        let config = &folder.config;
        let row = |name: &str, value: String| [name.to_owned(), value];
        let mut rows = vec![row("method", folder.method_name().to_owned())];
        let known = base.name().map(|base| row("base model", base.to_owned()));
        rows.extend(known);
        let revision = config.revision.clone();
        rows.extend(revision.map(|revision| row("revision of the base model", revision)));
        let tokens = config.method.virtual_tokens();
        rows.extend(
            tokens.map(|tokens| row("virtual tokens", tokens.num_virtual_tokens.to_string())),
        );
        let task = config.task_type.filter(|task| task.head().is_some());
        rows.extend(task.map(|task| row("task", format!("`{}`", task.name()))));
        let named = config.task.clone().unwrap_or_default();
        if !named.labels.is_empty() {
            rows.push(row("labels", named.labels.join(", ")));
        }
        if !named.verbalizer.is_empty() {
            let texts = named.verbalizer.iter();
            let texts: Vec<_> = texts.map(|text| format!("`{text}`")).collect();
            rows.push(row("texts for the labels", texts.join(", ")));
        }
        let template = config.template.as_ref();
        rows.extend(template.map(|template| {
            let name = "template (PEFT puts virtual tokens in front)";
            row(name, format!("`{template}`"))
        }));
        let facts = self.facts.iter();
        rows.extend(facts.map(|(name, value)| row(name, value.clone())));
        rows
    }

    /// The scores.
    fn measured(&self) -> String {
        if self.scores.is_empty() {
            return String::new();
        }
        let rows = self.scores.iter().map(|score| {
            let before = score.before.clone().unwrap_or_else(|| "–".into());
            [score.name.clone(), before, score.after.clone()]
        });
        let on = self.scored_on.as_ref();
        let on = on.map_or_else(String::new, |on| format!("On {}:\n\n", one_line(on)));
        format!(
            "\n## Results\n\n{on}{}",
            table(["", "base model alone", "with this adapter"], rows)
        )
    }

    /// The data and the settings.
    fn training(&self) -> String {
        let mut text = String::new();
        if !self.data.is_empty() {
            let rows = self.data.iter();
            let rows = rows.map(|data| {
                [
                    data.purpose.clone(),
                    data.file.clone(),
                    data.rows.to_string(),
                ]
            });
            text += "\n## Training data\n\n";
            text += &table(["for", "file", "rows"], rows);
        }
        if let Some(settings) = &self.settings {
            text += "\n## Training settings\n\nAs in burn-peft's run.toml:\n";
            text += &fenced("toml", settings);
        }
        text
    }
}

/// A Markdown table.
fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.join(" | ").replace("|  |", "| |"));
    let mut text = match heads.iter().all(|head| head.is_empty()) {
        true => format!("|{}\n", " |".repeat(N)),
        false => line(heads.map(str::to_owned)),
    };
    text += &format!("|{}\n", "---|".repeat(N));
    for row in rows {
        text += &line(row.map(|value| cell(&value)));
    }
    text
}

/// A block of code whose fence no line of it ends.
fn fenced(language: &str, code: &str) -> String {
    let mut fence = "```".to_owned();
    while code.contains(&fence) {
        fence.push('`');
    }
    format!("\n{fence}{language}\n{}\n{fence}\n", code.trim_end())
}

fn cell(value: &str) -> String {
    one_line(value).replace('|', "\\|")
}

fn one_line(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the folder's task is to PEFT, where it has a head.
fn head_of(folder: &AdapterFolder) -> Option<crate::task::HeadLayout> {
    folder.config.task_type.and_then(TaskType::head)
}
