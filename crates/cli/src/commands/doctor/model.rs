//! What the files of a model say.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use burn_peft_data::{NamedToken, RowFormat, TextTokenizer};
use burn_peft_decoder::Checkpoint;
use serde::Serialize;

use crate::{builtin, source::ModelSource};

/// Files of a model folder that are read where they are there.
const FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
];

/// A model, as far as it can be opened.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ModelFacts {
    /// The name it was asked for by.
    pub(super) name: String,
    /// The files that are read, with their sizes in bytes.
    pub(super) files: BTreeMap<String, u64>,
    /// Where it can be opened.
    #[serde(flatten)]
    pub(super) shape: Option<Shape>,
}

/// The sizes of a model.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Shape {
    pub(super) family: String,
    pub(super) parameters: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) hidden_size: usize,
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    /// The type that it is stored in.
    pub(super) stored_as: Option<String>,
    /// Bytes of the weights.
    pub(super) weights: u64,
}

/// Opens a checkpoint. Its notes are part of the report, and not said beforehand.
pub(super) fn open(source: &ModelSource) -> Result<Checkpoint> {
    match source {
        ModelSource::BuiltIn => builtin::checkpoint(),
        ModelSource::Folder { folder, .. } => Ok(Checkpoint::open(folder)?),
    }
}

impl ModelFacts {
    pub(super) fn of(source: &ModelSource, checkpoint: Option<&Checkpoint>) -> Self {
        let (name, files) = match source {
            ModelSource::BuiltIn => (builtin::MODEL_NAME.to_owned(), BTreeMap::new()),
            ModelSource::Folder { name, folder } => (name.clone(), files(folder)),
        };
        let shape = checkpoint.map(|checkpoint| {
            let config = checkpoint.config();
            Shape {
                family: config.family.model_type().to_owned(),
                parameters: config.num_parameters(),
                num_hidden_layers: config.num_hidden_layers,
                hidden_size: config.hidden_size,
                vocab_size: config.vocab_size,
                max_position_embeddings: config.max_position_embeddings,
                stored_as: config.dtype.map(|dtype| dtype.name().to_owned()),
                weights: checkpoint.size(),
            }
        });
        Self { name, files, shape }
    }
}

/// The files of a folder that are read.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let size = |name: &str| folder.join(name).metadata().ok().map(|data| data.len());
    let known = FILES.iter().map(|name| (*name).to_owned());
    let shards = folder.read_dir().into_iter().flatten().flatten();
    let shards = shards.filter_map(|entry| entry.file_name().into_string().ok());
    let shards = shards.filter(|name| name.starts_with("model-") && name.ends_with(".safetensors"));
    let named = known.chain(shards);
    named
        .filter_map(|name| Some((name.clone(), size(&name)?)))
        .collect()
}

/// A tokenizer beside the model's table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TokenizerFacts {
    /// The number of ids.
    pub(super) ids: usize,
    /// Rows of the model's table, where the model can be opened.
    pub(super) table_rows: Option<usize>,
    /// Rows of the table behind the largest id.
    pub(super) unused_rows: Option<usize>,
    /// Tokens whose ids are beyond the table.
    pub(super) outside_table: Vec<Token>,
    pub(super) bos: Option<Token>,
    pub(super) adds_bos: bool,
    pub(super) eos: Option<Token>,
    pub(super) pad: Option<Token>,
    pub(super) end_of_turn: Option<Token>,
    pub(super) chat_template: bool,
    /// Whether the rows are conversations.
    pub(super) needs_chat_template: bool,
    /// What each file names as the end of a text.
    pub(super) ends: Vec<End>,
    /// Ids that end a text that is generated.
    pub(super) stop_ids: Vec<Token>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) id: Option<u32>,
}

/// The ends of texts that a file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) file: String,
    pub(super) ids: Vec<u32>,
}

impl From<NamedToken> for Token {
    fn from(NamedToken { text, id }: NamedToken) -> Self {
        Self { token: text, id }
    }
}

impl TokenizerFacts {
    pub(super) fn of(
        tokenizer: &TextTokenizer,
        checkpoint: Option<&Checkpoint>,
        format: Option<RowFormat>,
    ) -> Self {
        let rows = checkpoint.map(|checkpoint| checkpoint.config().vocab_size);
        let fitted = match rows {
            Some(rows) => tokenizer.clone().for_table(rows),
            None => tokenizer.clone(),
        };
        let facts = fitted.facts();
        let generation = "generation_config.json";
        let mut ends = facts.ends;
        if let Some(checkpoint) = checkpoint
            && !ends.iter().any(|(file, _)| *file == generation)
            && !checkpoint.generation_config().stop_ids.is_empty()
        {
            ends.push((generation, checkpoint.generation_config().stop_ids.clone()));
        }
        let end = |(file, ids): (&str, Vec<u32>)| End {
            file: file.to_owned(),
            ids,
        };
        let token = |id: u32| Token {
            token: fitted.piece(id),
            id: Some(id),
        };
        let stops = checkpoint.map(|checkpoint| burn_peft_train::stop_ids(checkpoint, &fitted));
        let outside = facts.outside_table.into_iter();
        Self {
            ids: facts.ids,
            table_rows: rows,
            unused_rows: rows.map(|rows| rows.saturating_sub(facts.largest_id as usize + 1)),
            outside_table: outside
                .map(|(id, token)| Token {
                    token,
                    id: Some(id),
                })
                .collect(),
            bos: facts.bos.map(Token::from),
            adds_bos: facts.adds_bos,
            eos: facts.eos.map(Token::from),
            pad: facts.pad.map(Token::from),
            end_of_turn: facts.end_of_turn.map(Token::from),
            chat_template: facts.has_chat_template,
            needs_chat_template: format == Some(RowFormat::Messages),
            ends: ends.into_iter().map(end).collect(),
            stop_ids: stops.unwrap_or_default().into_iter().map(token).collect(),
        }
    }

    /// Whether the end of a text that rows have is one of those that each file names.
    pub(super) fn ends_agree(&self) -> bool {
        let eos = self.eos.as_ref().and_then(|eos| eos.id);
        eos.is_none_or(|eos| self.ends.iter().all(|end| end.ids.contains(&eos)))
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let ([first, ..], Some(rows)) = (&self.outside_table[..], self.table_rows) {
            warnings.push(format!(
                "{} tokens have ids beyond the {rows} rows of the model's table, the first is {:?} ({}): texts with them are refused",
                self.outside_table.len(),
                first.token,
                first.id.unwrap_or_default()
            ));
        }
        if !self.ends_agree() {
            let named = self
                .ends
                .iter()
                .map(|end| format!("{} {:?}", end.file, end.ids));
            let named: Vec<String> = named.collect();
            warnings.push(format!(
                "the files name different ends of a text: {}; other programs may stop at one of them only",
                named.join(", ")
            ));
        }
        let generation = self
            .ends
            .iter()
            .find(|end| end.file == "generation_config.json");
        if let (true, Some(turn), Some(generation)) =
            (self.needs_chat_template, &self.end_of_turn, generation)
            && turn.id.is_some_and(|id| !generation.ids.contains(&id))
        {
            warnings.push(format!(
                "the rows end turns with {:?}, and generation_config.json does not stop there; other programs will go on writing",
                turn.token
            ));
        }
        warnings
    }
}
