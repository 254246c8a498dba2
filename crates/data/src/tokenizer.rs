//! A model's tokenizer: vocabulary, special tokens and chat template.

mod chat;
mod config;
mod jinja;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tokenizers::{Encoding, PostProcessorWrapper, Tokenizer};

use crate::error::{Error, Result};
use crate::row::Message;
use chat::ChatTemplate;
use config::{SpecialToken, Templates, TokenizerConfig};

/// The tokenizer of a model, with its special tokens and chat template.
#[derive(Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    special_ids: HashSet<u32>,
    /// The ids that the tokenizer puts in front of a text: a BOS in Llama, nothing in Qwen2.
    start_ids: Vec<u32>,
    eos_id: Option<u32>,
    pad_id: Option<u32>,
    vocab_size: usize,
    chat: Option<ChatTemplate>,
}

impl TextTokenizer {
    /// Loads the tokenizer of a model folder in Hugging Face layout. It reads `tokenizer.json`, and
    /// `tokenizer_config.json` and `chat_template.jinja` if they exist. The template file takes precedence
    /// over a template in the configuration.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or unreadable, or the configuration is malformed or names an
    /// `eos_token` or `pad_token` that is not in the vocabulary. The chat template is compiled at its
    /// first use, so a faulty one is reported by [`render_chat`](Self::render_chat).
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let tokenizer_json = read_if_present(&path)?.ok_or(Error::MissingTokenizer { path })?;
        let config_json = read_if_present(&dir.join("tokenizer_config.json"))?;
        let path = dir.join("chat_template.jinja");
        let chat_template = match read_if_present(&path)? {
            Some(bytes) => Some(String::from_utf8(bytes).map_err(|error| Error::Read {
                path,
                source: std::io::Error::new(ErrorKind::InvalidData, error),
            })?),
            None => None,
        };
        Self::parse(
            dir,
            &tokenizer_json,
            config_json.as_deref().unwrap_or(b"{}"),
            chat_template,
        )
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
        Self::parse(
            Path::new(""),
            tokenizer_json,
            config_json,
            chat_template.map(str::to_owned),
        )
    }

    fn parse(
        dir: &Path,
        tokenizer_json: &[u8],
        config_json: &[u8],
        chat_template: Option<String>,
    ) -> Result<Self> {
        let malformed = |source| Error::Tokenizer {
            path: dir.join("tokenizer.json"),
            source,
        };
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json).map_err(malformed)?;
        // A saved tokenizer may contain the truncation and padding of the run that saved it. A post-processor
        // adds special tokens, of which those in front are kept, and trims offsets, which would move the
        // boundaries of assistant turns.
        tokenizer.with_truncation(None).map_err(malformed)?;
        tokenizer.with_padding(None);
        let start_ids = start_ids(&tokenizer).map_err(malformed)?;
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);

        let path = dir.join("tokenizer_config.json");
        let config: TokenizerConfig =
            serde_json::from_slice(config_json).map_err(|source| Error::TokenizerConfig {
                path: path.clone(),
                source,
            })?;
        let id_of = |key: &'static str, token: &Option<SpecialToken>| match token {
            None => Ok(None),
            Some(token) => tokenizer
                .token_to_id(token.text())
                .map(Some)
                .ok_or_else(|| Error::UnknownSpecialToken {
                    path: path.clone(),
                    key,
                    token: token.text().to_owned(),
                }),
        };
        let eos_id = id_of("eos_token", &config.eos_token)?;
        let pad_id = id_of("pad_token", &config.pad_token)?;

        let added = tokenizer.get_added_tokens_decoder();
        let special = added
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id);
        let special_tokens = config.special_tokens();
        Ok(Self {
            special_ids: special.chain(eos_id).collect(),
            start_ids,
            eos_id,
            pad_id,
            // The ids may have gaps, so the number of entries is not enough.
            vocab_size: tokenizer
                .get_vocab(true)
                .into_values()
                .max()
                .map_or(0, |id| id as usize + 1),
            chat: chat_template
                .or_else(|| config.chat_template.and_then(Templates::chosen))
                .map(|source| ChatTemplate::new(source, special_tokens)),
            tokenizer,
        })
    }

    /// Returns the token ids of `text`. It adds no special tokens, and recognises those in the text.
    ///
    /// # Errors
    /// The tokenizer rejects the text. A byte-level tokenizer never does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|source| Error::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the token ids of a text at the start of a row: behind the BOS, if the tokenizer adds one and the
    /// text does not begin with it.
    ///
    /// # Errors
    /// See [`encode`](Self::encode).
    pub fn encode_start(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        Ok([self.start_before(&ids), &ids].concat())
    }

    /// The ids that go in front of `ids` at the start of a row.
    pub(crate) fn start_before(&self, ids: &[u32]) -> &[u32] {
        match ids.starts_with(&self.start_ids) {
            true => &[],
            false => &self.start_ids,
        }
    }

    /// Encodes texts in parallel, with byte offsets.
    pub(crate) fn encode_batch(&self, texts: Vec<&str>) -> Result<Vec<Encoding>> {
        self.tokenizer
            .encode_batch(texts, false)
            .map_err(|source| Error::Encode { source })
    }

    /// Returns the text of `ids`, without special tokens if `skip_special` is set. Ids outside the
    /// vocabulary are ignored, and bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// The tokenizer's decoder fails. A byte-level decoder never does.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.tokenizer
            .decode(ids, skip_special)
            .map_err(|source| Error::Decode { source })
    }

    /// The id of the `eos_token` in `tokenizer_config.json`.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// The id of the `pad_token` in `tokenizer_config.json`.
    pub(crate) fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// The largest id plus one. The embedding table of a model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether `id` is a special token of the vocabulary or the eos.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// Renders a conversation with the model's own Jinja template, in the environment that transformers
    /// provides. With `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// The model has no template, or the template does not compile or rejects the conversation.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.chat
            .as_ref()
            .ok_or(Error::NoChatTemplate)?
            .render(messages, add_generation_prompt)
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

/// The ids that the tokenizer's post-processor puts in front of a text.
fn start_ids(tokenizer: &Tokenizer) -> std::result::Result<Vec<u32>, tokenizers::Error> {
    let plain = tokenizer.encode_fast("a", false)?;
    let with_specials = tokenizer.encode_fast("a", true)?;
    let (plain, with_specials) = (plain.get_ids(), with_specials.get_ids());
    let mut windows = with_specials.windows(plain.len().max(1));
    let start = windows.position(|window| window == plain).unwrap_or(0);
    Ok(with_specials[..start].to_vec())
}

fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{CONFIG, EOS, IM_END, IM_START, tokenizer, tokenizer_json};

    #[test]
    fn special_tokens_in_text_are_recognised_and_none_is_added() {
        let tokenizer = tokenizer();
        let ids = tokenizer
            .encode("<|im_start|>hi<|im_end|>")
            .expect("byte-level");
        assert_eq!(ids.first(), Some(&IM_START));
        assert_eq!(ids.last(), Some(&IM_END));
        assert_eq!(tokenizer.decode(&ids, true).expect("byte-level"), "hi");
        assert_eq!(
            tokenizer.decode(&ids, false).expect("byte-level"),
            "<|im_start|>hi<|im_end|>"
        );
    }

    #[test]
    fn eos_is_read_as_a_string_or_as_an_object() {
        let json = tokenizer_json();
        for config in [
            r#"{"eos_token":"<|im_end|>"}"#,
            r#"{"eos_token":{"content":"<|im_end|>","lstrip":false}}"#,
        ] {
            let tokenizer = TextTokenizer::from_bytes(json.as_bytes(), config.as_bytes(), None)
                .expect("a good config");
            assert_eq!(tokenizer.eos_id(), Some(IM_END));
            assert_eq!(tokenizer.pad_id(), None);
        }
        assert_eq!(tokenizer().pad_id(), Some(EOS));
        assert_eq!(tokenizer().vocab_size(), IM_END as usize + 1);
    }

    #[test]
    fn an_eos_outside_the_vocabulary_is_named() {
        let error = TextTokenizer::from_bytes(
            tokenizer_json().as_bytes(),
            br#"{"eos_token":"</s>"}"#,
            None,
        );
        let message = error.expect_err("there is no such token").to_string();
        assert!(
            message.contains("eos_token") && message.contains("</s>"),
            "{message}"
        );
    }

    #[test]
    fn a_template_file_wins_over_the_configuration() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).expect("a temporary file")
        };
        let message = [Message::new("user", "x")];
        write("tokenizer.json", &tokenizer_json());
        write(
            "tokenizer_config.json",
            r#"{"chat_template":[{"name":"tool","template":"t"},{"name":"default","template":"d"}]}"#,
        );
        let render = || {
            TextTokenizer::load(dir.path())
                .expect("a good folder")
                .render_chat(&message, false)
        };
        assert_eq!(render().expect("a good template"), "d");
        write("chat_template.jinja", "file");
        assert_eq!(render().expect("a good template"), "file");
    }

    #[test]
    fn a_folder_without_a_tokenizer_is_one_clear_error() {
        let error =
            TextTokenizer::load(Path::new("no/such/model")).expect_err("there is no such folder");
        assert!(matches!(error, Error::MissingTokenizer { .. }), "{error}");
        assert!(error.to_string().starts_with("no/such/model"), "{error}");
    }

    #[test]
    fn a_saved_truncation_does_not_apply() {
        let mut saved: Tokenizer = tokenizer_json().parse().expect("a tokenizer");
        let limit = tokenizers::TruncationParams {
            max_length: 2,
            ..Default::default()
        };
        saved.with_truncation(Some(limit)).expect("a good limit");
        let json = saved.to_string(false).expect("a tokenizer");
        let tokenizer = TextTokenizer::from_bytes(json.as_bytes(), CONFIG.as_bytes(), None)
            .expect("a tokenizer");
        assert_eq!(tokenizer.encode("abcdef").expect("byte-level").len(), 6);
    }

    #[test]
    fn a_chat_without_a_template_says_so() {
        let tokenizer = TextTokenizer::from_bytes(tokenizer_json().as_bytes(), b"{}", None)
            .expect("a tokenizer");
        assert!(matches!(
            tokenizer.render_chat(&[], true),
            Err(Error::NoChatTemplate)
        ));
    }
}
