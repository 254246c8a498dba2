//! A model's tokenizer: vocabulary, special tokens and chat template.

mod bounds;
mod chat;
mod config;
mod facts;
mod files;
mod jinja;
mod marks;
mod specials;
mod stack;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Encoding, PostProcessorWrapper, Tokenizer};

use crate::conversation::Message;
use crate::error::{Error, Result};
use crate::panics::caught;
use crate::tokenize::TurnFrame;
use chat::ChatTemplate;
use config::SpecialToken;
use facts::Named;
pub use facts::{NamedToken, TokenEntry, TokenKind, TokenizerFacts};
use files::Files;
pub(crate) use marks::Rendered;
pub(crate) use specials::Specials;
pub(crate) use stack::on_deep_stack;

/// The tokenizer of a model, with its special tokens and chat template. A copy shares them.
#[derive(Clone)]
pub struct TextTokenizer {
    tokenizer: Arc<Tokenizer>,
    special_ids: Arc<HashSet<u32>>,
    /// The ids that the tokenizer puts around texts: a BOS in front of one in Llama, nothing in Qwen2.
    specials: Arc<Specials>,
    eos_id: Option<u32>,
    pad_id: Option<u32>,
    vocab_size: usize,
    /// The rows of the model's embedding table, if known.
    table_rows: Option<usize>,
    chat: Option<Arc<ChatTemplate>>,
    /// What the files beside it name.
    named: Arc<Named>,
    /// How the chat template begins and ends a turn of the assistant; found at its first use.
    frame: Arc<OnceLock<Option<TurnFrame>>>,
}

impl TextTokenizer {
    /// Loads the tokenizer of a model folder in Hugging Face layout. It reads `tokenizer.json`, and if they exist
    /// `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja`. The template file takes
    /// precedence over a template in the configuration. Where none of these names an eos, the first `eos_token_id` of
    /// `config.json` is it, or of `generation_config.json`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or unreadable, or the configuration is malformed or names an
    /// `eos_token` that is not in the vocabulary. The chat template is compiled at its
    /// first use, so a faulty one is reported by [`render_chat`](Self::render_chat).
    pub fn load(dir: &Path) -> Result<Self> {
        Self::parse(dir, Files::read(dir)?)
    }

    /// Loads a tokenizer from the contents of these files, for a model that is built into the binary.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_bytes(
        tokenizer_json: &[u8],
        config_json: &[u8],
        chat_template: Option<&str>,
    ) -> Result<Self> {
        let files = Files {
            tokenizer: tokenizer_json.to_vec(),
            config: config_json.to_vec(),
            chat_template: chat_template.map(str::to_owned),
            ..Files::default()
        };
        Self::parse(Path::new(""), files)
    }

    fn parse(dir: &Path, files: Files) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let malformed = |source| Error::Tokenizer {
            path: path.clone(),
            source,
        };
        bounds::check(&files.tokenizer).map_err(|reason| malformed(reason.into()))?;
        let config = files.config(dir)?;
        let special = config.special;
        let (tokenizer, specials) = caught(|| tokenizer(&files.tokenizer, &config.added_tokens))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(malformed)?;

        let path = dir.join("tokenizer_config.json");
        let id_of = |token: &Option<SpecialToken>| tokenizer.token_to_id(token.as_ref()?.text());
        let eos_id = match (id_of(&special.eos_token), &special.eos_token) {
            (None, Some(token)) => {
                return Err(Error::UnknownSpecialToken {
                    path,
                    key: "eos_token",
                    token: token.text().to_owned(),
                });
            }
            (None, None) => config
                .eos_id
                .filter(|id| tokenizer.id_to_token(*id).is_some()),
            (Some(id), _) => Some(id),
        };
        let named = Named::new(&special, &tokenizer, config.ends.ids(&tokenizer));
        let beside = tokenizer.get_added_tokens_decoder().into_iter();
        let beside = beside.filter(|(_, token)| token.special || !token.content.trim().is_empty());
        let special_ids = beside.map(|(id, _)| id).chain(eos_id);
        let chat = config.templates.and_then(|templates| {
            let chat = ChatTemplate::new(templates, special.by_name())?;
            Some(Arc::new(chat))
        });
        Ok(Self {
            special_ids: Arc::new(special_ids.collect()),
            specials: Arc::new(specials),
            eos_id,
            // A pad token that the tokenizer does not know would be added by transformers. Any id will do to pad.
            pad_id: id_of(&special.pad_token),
            // The ids may have gaps, so the number of entries is not enough.
            vocab_size: tokenizer
                .get_vocab(true)
                .into_values()
                .max()
                .map_or(0, |id| id as usize + 1),
            table_rows: None,
            chat,
            named: Arc::new(named),
            frame: Arc::default(),
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// Returns the tokenizer for a model whose embedding table has `rows` rows. A tokenizer may have more ids than
    /// the table. It then refuses a text that has one of those, instead of giving an id that the model does not have.
    #[must_use]
    pub fn for_table(mut self, rows: usize) -> Self {
        self.table_rows = Some(rows);
        self
    }

    /// Returns the token ids of `text`. It adds no special tokens, and recognises those in the text.
    ///
    /// # Errors
    /// The tokenizer rejects the text, which a byte-level one never does, or it has a token that is
    /// [outside the model's table](Self::for_table).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = caught(|| self.tokenizer.encode_fast(text, false))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|source| Error::Encode { source })?;
        self.check_ids(encoding.get_ids())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Checks that ids are in the model's table.
    pub(crate) fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let Some(rows) = self.table_rows else {
            return Ok(());
        };
        match ids.iter().find(|&&id| id as usize >= rows) {
            None => Ok(()),
            Some(&id) => Err(Error::OutsideTable {
                token: self.tokenizer.id_to_token(id).unwrap_or_default(),
                id,
                rows,
            }),
        }
    }

    /// Returns the token ids of a text at the start of a row: behind the BOS, if the tokenizer adds one and the
    /// text does not begin with it.
    ///
    /// # Errors
    /// See [`encode`](Self::encode).
    pub fn encode_start(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        let start = self.start_before(&ids);
        self.check_ids(start)?;
        Ok([start, &ids].concat())
    }

    /// The ids that go in front of `ids` at the start of a row.
    pub(crate) fn start_before(&self, ids: &[u32]) -> &[u32] {
        match ids.starts_with(self.start_ids()) {
            true => &[],
            false => self.start_ids(),
        }
    }

    /// The ids that the tokenizer's post-processor puts in front of a text and behind it: a BOS in front in Llama,
    /// nothing in Qwen2.
    pub fn ids_around_text(&self) -> [&[u32]; 2] {
        self.specials.single.each_ref().map(Vec::as_slice)
    }

    /// The ids that the tokenizer puts in front of a text.
    pub(crate) fn start_ids(&self) -> &[u32] {
        &self.specials.single[0]
    }

    /// The ids that the tokenizer puts around texts.
    pub(crate) fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Encodes texts in parallel, with offsets in characters.
    pub(crate) fn encode_batch_by_character(&self, texts: Vec<&str>) -> Result<Vec<Encoding>> {
        caught(|| self.tokenizer.encode_batch_char_offsets(texts, false))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|source| Error::Encode { source })
    }

    /// Encodes texts in parallel, with byte offsets.
    pub(crate) fn encode_batch(&self, texts: Vec<&str>) -> Result<Vec<Encoding>> {
        caught(|| self.tokenizer.encode_batch(texts, false))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|source| Error::Encode { source })
    }

    /// Returns the text of `ids`, without special tokens if `skip_special` is set. Ids outside the
    /// vocabulary are ignored, and bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// The tokenizer's decoder fails. A byte-level decoder never does.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        caught(|| self.tokenizer.decode(ids, skip_special))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|source| Error::Decode { source })
    }

    /// The id of the eos: of the `eos_token` in `tokenizer_config.json`, or what [`load`](Self::load) found instead.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Returns the id of the token with which the chat template ends a turn of the assistant. A model that was
    /// trained on conversations learns to end its turn with it. `None` if there is no chat template, or none that
    /// renders an ordinary conversation, or if no special token ends a turn.
    pub fn end_of_turn_id(&self) -> Option<u32> {
        let frame = self.turn_frame()?;
        let ids = self.encode(&frame.footer).ok()?;
        ids.into_iter().find(|&id| self.is_special(id))
    }

    /// The id of the `pad_token` in `tokenizer_config.json`, if the model has it.
    pub(crate) fn pad_id(&self) -> Option<u32> {
        let is_in_table = |id: &u32| self.table_rows.is_none_or(|rows| (*id as usize) < rows);
        self.pad_id.filter(is_in_table)
    }

    /// The number of ids that a text can have: the largest id plus one, or the rows of the
    /// [table](Self::for_table) if these are fewer. The table of a model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size.min(self.table_rows.unwrap_or(usize::MAX))
    }

    /// Whether `id` is the eos, a special token, or another token beside the vocabulary that is not white space: some
    /// models' ends of turns are not called special.
    pub fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// Whether the model has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// Renders a conversation with the model's own Jinja template, in the environment that transformers
    /// provides. With `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// The model has no template, or the template does not compile or rejects the conversation.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let rendered = self.render(messages, &Map::new(), add_generation_prompt)?;
        Ok(rendered.text)
    }

    /// Renders turns with the variables of a conversation, and returns what the template marks, too.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        variables: &Map<String, Value>,
        add_generation_prompt: bool,
    ) -> Result<Rendered> {
        let chat = self.chat.as_ref().ok_or(Error::NoChatTemplate)?;
        chat.render(messages, variables, add_generation_prompt)
    }

    /// Whether the chat template reads a variable of that name.
    pub(crate) fn reads_variable(&self, name: &str) -> bool {
        self.chat.as_ref().is_some_and(|chat| chat.reads(name))
    }

    /// How the chat template begins and ends a turn of the assistant.
    pub(crate) fn turn_frame(&self) -> Option<&TurnFrame> {
        let frame = self.frame.get_or_init(|| TurnFrame::find(self));
        frame.as_ref()
    }
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("eos_id", &self.eos_id)
            .field("pad_id", &self.pad_id)
            .field("has_chat_template", &self.chat.is_some())
            .finish_non_exhaustive()
    }
}

/// A `tokenizer.json` with the tokens that `tokenizer_config.json` has beside it, and the ids that its post-processor
/// puts around texts.
fn tokenizer(
    json: &[u8],
    added_tokens: &[(u32, AddedToken)],
) -> std::result::Result<(Tokenizer, Specials), tokenizers::Error> {
    let mut tokenizer = Tokenizer::from_bytes(json)?;
    // transformers adds what `added_tokens_decoder` has and tokenizer.json has not.
    for (id, token) in added_tokens {
        let is_next = tokenizer.get_vocab_size(true) == *id as usize;
        if is_next && tokenizer.token_to_id(&token.content).is_none() {
            tokenizer.add_tokens(std::slice::from_ref(token));
        }
    }
    // A saved tokenizer may contain the truncation and padding of the run that saved it. A post-processor
    // adds special tokens, which are kept, and trims offsets, which would move the
    // boundaries of assistant turns.
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    let specials = Specials::find(&tokenizer)?;
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    Ok((tokenizer, specials))
}
