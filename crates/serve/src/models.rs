//! What is served: the base, and the adapters by their names.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use burn_peft_data::{
    Labels, Message, Prompt, Row, Rows, Targets, Template, TextTokenizer, TokenizeOptions,
    tokenize_rows,
};
use burn_peft_decoder::GenerationOptions;

use crate::{
    api::ApiError,
    engine::{AdapterId, BASE, Ids},
};

/// The name that the bare base always has.
pub const BASE_NAME: &str = "base";

/// The longest name of an adapter, in bytes.
const LONGEST_NAME: usize = 128;

/// The frozen base, as far as texts need it.
#[derive(Debug)]
pub struct BaseModel {
    /// Its own name, under which it is served beside [`BASE_NAME`].
    pub name: String,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// How it goes on where a request does not say.
    pub options: GenerationOptions,
    /// The ids that its table has.
    pub vocab_size: usize,
}

/// An adapter, as far as texts need it.
#[derive(Debug, Clone, Default)]
pub struct AdapterTexts {
    /// The template that it was trained with.
    pub template: Option<Template>,
    /// Number of its virtual tokens.
    pub virtual_tokens: usize,
    /// Whether they are embeddings, which predict a first token without a text.
    pub has_prompt: bool,
    /// The classes that its head tells apart, where it has one in place of texts.
    pub labels: Option<Labels>,
}

/// What a request is answered by.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) id: AdapterId,
    texts: Arc<AdapterTexts>,
}

impl Model {
    /// The classes of its head.
    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.texts.labels.as_ref()
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Models {
    pub(crate) base: BaseModel,
    /// Tokens of a row, virtual and new ones included.
    pub(crate) max_context: usize,
    adapters: RwLock<BTreeMap<String, Model>>,
    next_id: AtomicU64,
}

impl Models {
    /// `adapters` are those that the engine was started with, in that order.
    pub(crate) fn new(
        base: BaseModel,
        max_context: usize,
        adapters: Vec<(String, AdapterTexts)>,
    ) -> Self {
        let next_id = AtomicU64::new(1 + adapters.len() as u64);
        let adapters = adapters.into_iter().zip(1..).map(|((name, texts), id)| {
            let texts = Arc::new(texts);
            let id = AdapterId(id);
            (name, Model { id, texts })
        });
        Self {
            base,
            max_context,
            adapters: RwLock::new(adapters.collect()),
            next_id,
        }
    }

    /// What answers to a name.
    pub(crate) fn find(&self, name: &str) -> Option<Model> {
        if name == BASE_NAME || name == self.base.name {
            return Some(Model {
                id: BASE,
                texts: Arc::default(),
            });
        }
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.get(name).cloned()
    }

    /// What a request for a text names.
    pub(crate) fn of_request(&self, name: &str) -> Result<Model, ApiError> {
        let model = self
            .find(name)
            .ok_or_else(|| ApiError::no_such_model(name))?;
        match model.texts.labels {
            None => Ok(model),
            Some(_) => Err(ApiError::field(
                "model",
                "the adapter has a head and writes no text; ask it at /classify",
            )),
        }
    }

    /// What a request for classes names.
    pub(crate) fn of_classes(&self, name: &str) -> Result<Model, ApiError> {
        let model = self
            .find(name)
            .ok_or_else(|| ApiError::no_such_model(name))?;
        match model.texts.labels {
            Some(_) => Ok(model),
            None => Err(ApiError::field(
                "model",
                "the model has no head that tells classes apart; ask it for a text",
            )),
        }
    }

    /// The names of the adapters.
    pub(crate) fn adapters(&self) -> Vec<String> {
        let adapters = self.adapters.read().unwrap_or_else(PoisonError::into_inner);
        adapters.keys().cloned().collect()
    }

    /// An id that no adapter had.
    pub(crate) fn new_id(&self) -> AdapterId {
        AdapterId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn add(&self, name: String, id: AdapterId, texts: AdapterTexts) {
        let texts = Arc::new(texts);
        let mut adapters = self
            .adapters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        adapters.insert(name, Model { id, texts });
    }

    pub(crate) fn remove(&self, name: &str) -> Option<AdapterId> {
        let mut adapters = self
            .adapters
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        adapters.remove(name).map(|model| model.id)
    }

    /// The ids of a text.
    pub(crate) fn text_ids(&self, model: &Model, text: &str) -> Result<Ids, ApiError> {
        let wrong = |error: burn_peft_data::Error| ApiError::field("prompt", error.to_string());
        let tokenizer = &self.base.tokenizer;
        let prompt = match &model.texts.template {
            Some(template) => template
                .prompt_ids_of_text(text, tokenizer)
                .map_err(wrong)?,
            None => tokenizer.encode_start(text).map_err(wrong)?.into(),
        };
        self.checked(model, "prompt", prompt)
    }

    /// The ids of a conversation, up to where the answer begins.
    pub(crate) fn chat_ids(&self, model: &Model, messages: &[Message]) -> Result<Ids, ApiError> {
        let wrong = |error: burn_peft_data::Error| ApiError::field("messages", error.to_string());
        let tokenizer = &self.base.tokenizer;
        let text = tokenizer.render_chat(messages, true).map_err(wrong)?;
        let prompt = match &model.texts.template {
            Some(template) => template
                .prompt_ids_of_text(&text, tokenizer)
                .map_err(wrong)?,
            // A chat template writes its own BOS, if there is one.
            None => tokenizer.encode(&text).map_err(wrong)?.into(),
        };
        self.checked(model, "messages", prompt)
    }

    /// The ids of a row to classify.
    pub(crate) fn row_ids(&self, model: &Model, row: Row) -> Result<Ids, ApiError> {
        let wrong = |error: burn_peft_data::Error| ApiError::field("input", error.to_string());
        let options = TokenizeOptions {
            template: model.texts.template.as_ref(),
            targets: model.labels().map(Targets::Class).unwrap_or_default(),
            ..TokenizeOptions::default()
        };
        let rows = Rows::single("input", row);
        let tokenized = tokenize_rows(&rows, &self.base.tokenizer, options, &mut |_, _| {});
        let example = tokenized.map_err(wrong)?.examples.into_iter().next();
        match example.filter(|example| !example.input_ids.is_empty()) {
            None => Err(ApiError::field("input", "`input` has no token in it")),
            Some(example) => Ok(Ids {
                input_ids: example.input_ids,
                placement: example.placement,
            }),
        }
    }

    /// Ids as they are. The virtual tokens stand in front.
    pub(crate) fn given_ids(&self, model: &Model, ids: Vec<u32>) -> Result<Ids, ApiError> {
        let rows = self.base.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
            let message = format!("`prompt` has the token {id}; the model has those below {rows}");
            return Err(ApiError::field("prompt", message));
        }
        self.checked(model, "prompt", ids.into())
    }

    fn checked(&self, model: &Model, param: &str, prompt: Prompt) -> Result<Ids, ApiError> {
        // Virtual tokens of a prompt predict a first token by themselves; keys and values do not.
        if prompt.input_ids.is_empty() && !model.texts.has_prompt {
            let message =
                format!("`{param}` has no token in it; there has to be something to go on from");
            return Err(ApiError::field(param, message));
        }
        Ok(Ids {
            input_ids: prompt.input_ids,
            placement: prompt.placement,
        })
    }

    /// New tokens that a prompt gets: those that are asked for, or `default`, as far as there is room.
    pub(crate) fn new_tokens(
        &self,
        model: &Model,
        param: &str,
        prompt: &Ids,
        asked: Option<usize>,
        default: usize,
    ) -> Result<usize, ApiError> {
        let placed = prompt.placement.as_ref().map(Vec::len);
        let virtual_tokens = placed.unwrap_or(model.texts.virtual_tokens);
        let given = prompt.input_ids.len();
        let room = self.max_context.saturating_sub(virtual_tokens);
        let least = asked.unwrap_or(1);
        if given.saturating_add(least) > room {
            let virtual_tokens = match virtual_tokens {
                0 => String::new(),
                count => format!(" beside the adapter's {count}"),
            };
            return Err(ApiError::too_long(
                param,
                format!(
                    "the context has room for {room} tokens{virtual_tokens}; `{param}` has {given}, and {least} new \
                     ones are asked for"
                ),
            ));
        }
        Ok(asked.unwrap_or_else(|| default.min(room - given)))
    }
}

/// Refuses what cannot be the name of an adapter.
///
/// # Errors
/// A name that is empty, long, not printable, or the base's.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_good = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    match name {
        BASE_NAME => Err(format!("`{BASE_NAME}` is the bare base's name")),
        _ if is_good => Ok(()),
        _ => Err(format!(
            "a name has 1 to {LONGEST_NAME} bytes and no spaces"
        )),
    }
}
