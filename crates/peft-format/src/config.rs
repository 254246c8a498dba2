//! `adapter_config.json`: PEFT's field names, its defaults, its layout.

use std::path::Path;

use burn_peft_files::Checksum;
use serde_json::{Map, Value};

use crate::fields::{Fields, shortened};
use crate::method::MethodOptions;
use crate::peft_type::Landing;
use crate::task::{TASK, TaskOptions, TaskType};
use crate::{Error, integrity};

/// The `peft_version` written for a new adapter: the release whose folders the tests compare with.
pub const PEFT_VERSION: &str = "0.21.2";

/// The key of [`AdapterConfig::template`].
const TEMPLATE: &str = "burn_peft_template";
/// The key of [`AdapterConfig::base_fingerprint`].
const BASE_FINGERPRINT: &str = "burn_peft_base_fingerprint";

/// An adapter's configuration.
///
/// Always written with `inference_mode: true`, as PEFT does, whatever was read.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Path or hub id of the base model.
    pub base_model_name_or_path: Option<String>,
    /// The base model's revision.
    pub revision: Option<String>,
    /// The task. None is written as null, and taken for language modelling, as is every task without a
    /// head: so PEFT does where such an adapter is put on a language model.
    pub task_type: Option<TaskType>,
    /// Names of base modules trained and saved whole, as they stand in the file: PEFT repeats names.
    pub modules_to_save: Option<Vec<String>>,
    /// PEFT's hint for models outside transformers. Kept, not used.
    pub auto_mapping: Option<Value>,
    /// The PEFT release that wrote the folder; older ones did not say.
    pub peft_version: Option<String>,
    /// Where the virtual tokens stand, as burn-peft's `[data] template` has it; `None`: in front. PEFT
    /// has no such key: it warns, and puts them in front.
    pub template: Option<String>,
    /// A fingerprint of the base's weights ([`Checkpoint::fingerprint`](burn_peft_decoder::Checkpoint::fingerprint));
    /// `None` where nobody took one, as in PEFT's folders.
    pub base_fingerprint: Option<Checksum>,
    /// What is known of the task besides; `None` in PEFT's folders.
    pub task: Option<TaskOptions>,
    /// The method and its own fields.
    pub method: MethodOptions,
    /// Keys of the file that are not known here. To be reported; not written again (PEFT drops them too).
    pub unknown_keys: Vec<String>,
    /// Keys of the file whose values mean nothing here, and which only training needs. They have PEFT's defaults
    /// instead. To be reported.
    pub odd_keys: Vec<&'static str>,
}

impl AdapterConfig {
    /// The configuration of a new language-modelling adapter.
    pub fn new(method: MethodOptions, base_model_name_or_path: Option<&str>) -> Self {
        Self {
            base_model_name_or_path: base_model_name_or_path.map(Into::into),
            revision: None,
            task_type: Some(TaskType::CausalLm),
            modules_to_save: None,
            auto_mapping: None,
            peft_version: Some(PEFT_VERSION.into()),
            template: None,
            base_fingerprint: None,
            task: None,
            method,
            unknown_keys: Vec::new(),
            odd_keys: Vec::new(),
        }
    }

    /// The configuration for another task, with the modules to save that PEFT adds for it: once for a method that
    /// wraps layers, twice for one with virtual tokens.
    #[must_use]
    pub fn with_task(self, task: TaskType) -> Self {
        let times = match self.method.landing() {
            Landing::Prompt(_) | Landing::Prefix(_) => 2,
            Landing::Biases(_) => 1,
        };
        let modules = task.head().map(|head| head.modules_to_save.repeat(times));
        Self {
            task_type: Some(task),
            modules_to_save: modules.map(|modules| modules.into_iter().map(Into::into).collect()),
            ..self
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), or if the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::parse(&burn_peft_files::read(path)?, path)
    }

    /// Reads the bytes of an `adapter_config.json`; `path` is for messages.
    ///
    /// Absent keys and nulls take PEFT's defaults. Unknown keys are noted in `unknown_keys`, and odd values of keys
    /// that only training needs in `odd_keys`.
    ///
    /// # Errors
    /// If it is no JSON object, is not what its checksum says, a value that matters has the wrong type, or the method
    /// or task is not known here.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, Error> {
        Ok(Self::parse_sealed(json, path)?.0)
    }

    /// [`parse`](Self::parse), and the checksums that the weights may have where the configuration has them.
    pub(crate) fn parse_sealed(
        json: &[u8],
        path: &Path,
    ) -> Result<(Self, Option<Vec<Checksum>>), Error> {
        let mut map = parse_object(json, path)?;
        let weights = integrity::unseal(&mut map, path)?;
        let mut fields = Fields::new(map, path);
        // The method first: of a LoRA folder, that it is LoRA is the only thing worth saying.
        let method = MethodOptions::read(&mut fields)?;
        let task_type = match fields.optional::<String>("task_type")? {
            None => None,
            Some(name) => {
                let known = TaskType::ALL.into_iter().find(|task| task.name() == name);
                let names = || TaskType::ALL.map(TaskType::name).join(", ");
                Some(known.ok_or_else(|| fields.unsupported("task_type", &name, &names()))?)
            }
        };
        let _: bool = fields.lenient("inference_mode", true);
        let config = Self {
            base_model_name_or_path: fields.lenient("base_model_name_or_path", None),
            revision: fields.lenient("revision", None),
            task_type,
            modules_to_save: fields.lenient("modules_to_save", None),
            auto_mapping: fields.lenient("auto_mapping", None),
            peft_version: fields.lenient("peft_version", None),
            template: fields.optional(TEMPLATE)?,
            base_fingerprint: fields.lenient(BASE_FINGERPRINT, None),
            task: TaskOptions::read(&mut fields)?,
            method,
            unknown_keys: Vec::new(),
            odd_keys: Vec::new(),
        };
        let (unknown_keys, odd_keys) = fields.finish();
        let config = Self {
            unknown_keys,
            odd_keys,
            ..config
        };
        Ok((config, weights))
    }

    /// What somebody who uses the adapter should hear of keys that were read and not used; sentences.
    pub fn notes(&self) -> Vec<String> {
        const MOST: usize = 10;
        let list = |keys: &[&str]| {
            let names = keys
                .iter()
                .take(MOST)
                .map(|key| format!("`{}`", shortened(key)));
            let more = match keys.len().saturating_sub(MOST) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            names.collect::<Vec<_>>().join(", ") + &more
        };
        let unknown: Vec<_> = self.unknown_keys.iter().map(String::as_str).collect();
        let head = self.task_type.and_then(TaskType::head);
        let known = head.map_or(&[][..], |head| head.modules_to_save);
        let modules = self.modules_to_save.iter().flatten().map(String::as_str);
        let modules: Vec<_> = modules.filter(|name| !known.contains(name)).collect();
        let mut notes = Vec::new();
        let is_used = |task: &TaskType| *task == TaskType::CausalLm || task.head_kind().is_some();
        if let Some(task) = self.task_type.filter(|task| !is_used(task)) {
            notes.push(format!(
                "`task_type` is `{}`; the adapter is used as one of `{}`",
                task.name(),
                TaskType::CausalLm.name()
            ));
        }
        // Tensors of theirs are refused where the adapter is used; without them they are the base's own.
        if !modules.is_empty() {
            notes.push(format!(
                "`modules_to_save` names modules that are not read here: {}",
                list(&modules)
            ));
        }
        if !unknown.is_empty() {
            notes.push(format!("unknown keys are ignored: {}", list(&unknown)));
        }
        if !self.odd_keys.is_empty() {
            notes.push(format!(
                "values that are not understood are ignored, as only training needs them: {}",
                list(&self.odd_keys)
            ));
        }
        notes
    }

    /// The text of `adapter_config.json` as PEFT writes it: indent 2, sorted keys, ASCII, no newline at the end. It has
    /// no checksums: those are a folder's.
    pub fn to_json(&self) -> String {
        to_text(self.to_map())
    }

    /// The text of `adapter_config.json` beside a file of weights that has one of these checksums.
    pub(crate) fn to_sealed_json(&self, weights: &[Checksum]) -> String {
        to_text(integrity::seal(self.to_map(), weights))
    }

    fn to_map(&self) -> Map<String, Value> {
        let task_type = self.task_type.map(TaskType::name);
        let mut map = self.method.to_map();
        map.insert("auto_mapping".into(), self.auto_mapping.clone().into());
        map.insert(
            "base_model_name_or_path".into(),
            self.base_model_name_or_path.clone().into(),
        );
        map.insert("inference_mode".into(), true.into());
        map.insert(
            "modules_to_save".into(),
            self.modules_to_save.clone().into(),
        );
        map.insert("peft_type".into(), self.method.peft_type().into());
        map.insert("peft_version".into(), self.peft_version.clone().into());
        map.insert("revision".into(), self.revision.clone().into());
        map.insert("task_type".into(), task_type.into());
        if let Some(template) = &self.template {
            map.insert(TEMPLATE.into(), template.as_str().into());
        }
        if let Some(fingerprint) = &self.base_fingerprint {
            map.insert(BASE_FINGERPRINT.into(), fingerprint.to_string().into());
        }
        if let Some(task) = &self.task {
            map.insert(TASK.into(), task.to_map().into());
        }
        map
    }
}

fn parse_object(json: &[u8], path: &Path) -> Result<Map<String, Value>, Error> {
    let wrong = |reason: String| Error::Json {
        path: path.into(),
        reason,
    };
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(wrong("it holds no JSON object".into())),
        Err(error) if error.is_eof() => Err(wrong(format!(
            "it breaks off at line {}, column {}",
            error.line(),
            error.column()
        ))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// PEFT's layout.
fn to_text(map: Map<String, Value>) -> String {
    let mut value = Value::Object(map);
    value.sort_all_objects();
    to_ascii(&format!("{value:#}"))
}

/// Escapes what Python's `json.dumps` escapes: in JSON text, only strings can hold a character beyond `~`.
pub(crate) fn to_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c <= '~' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<AdapterConfig, Error> {
        AdapterConfig::parse(json.as_bytes(), Path::new("a/adapter_config.json"))
    }

    fn message(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    #[test]
    fn absent_keys_and_nulls_take_pefts_defaults() {
        let config = parse(
            r#"{"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_num_layers": null}"#,
        )
        .unwrap();
        let MethodOptions::PTuning(options) = &config.method else {
            panic!("{config:?}")
        };
        assert_eq!(options.encoder_num_layers, 2);
        assert_eq!(options.encoder_hidden_size, None);
        assert_eq!(config.task_type, None);
        assert_eq!(config.peft_version, None);
    }

    #[test]
    fn unknown_keys_are_tolerated_and_named() {
        let config = parse(
            r#"{"peft_type": "BEFT", "from_the_future": {"a": 1}, "task_type": "CAUSAL_LM"}"#,
        )
        .unwrap();
        assert_eq!(config.unknown_keys, ["from_the_future"]);
        assert!(!config.to_json().contains("from_the_future"));
    }

    #[test]
    fn a_template_is_a_key_of_its_own_and_only_there_when_needed() {
        let plain = parse(r#"{"peft_type": "BEFT", "burn_peft_template": null}"#).unwrap();
        assert_eq!(plain.template, None);
        assert!(!plain.to_json().contains("burn_peft_template"));
        let template = "{prompt:3} {input}\n{completion}";
        let placed = AdapterConfig {
            template: Some(template.into()),
            ..plain
        };
        let again = parse(&placed.to_json()).unwrap();
        assert_eq!(again.template.as_deref(), Some(template));
        assert!(again.unknown_keys.is_empty());
        let message = message(r#"{"peft_type": "BEFT", "burn_peft_template": 3}"#);
        assert!(message.contains("`burn_peft_template`"), "{message}");
    }

    #[test]
    fn what_only_training_needs_never_stops_a_trained_adapter() {
        for peft_type in MethodOptions::PEFT_TYPES {
            for value in ["-3", "1e30", "\"x\"", "null", "[[]]", "{}"] {
                let keys = [
                    "prompt_tuning_init",
                    "prompt_tuning_init_text",
                    "tokenizer_name_or_path",
                    "tokenizer_kwargs",
                    "encoder_reparameterization_type",
                    "encoder_hidden_size",
                    "encoder_num_layers",
                    "encoder_dropout",
                    "prefix_projection",
                    "init_weights",
                    "inference_mode",
                    "peft_version",
                    "auto_mapping",
                    "revision",
                    "base_model_name_or_path",
                    "modules_to_save",
                ];
                let odd: String = keys.map(|key| format!(", \"{key}\": {value}")).concat();
                let text =
                    format!(r#"{{"peft_type": "{peft_type}", "num_virtual_tokens": 3{odd}}}"#);
                let odd = parse(&text).unwrap().odd_keys;
                assert_eq!(odd.is_empty(), value == "null", "{text}: {odd:?}");
            }
        }
        let text = r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "prompt_tuning_init": "TEXT"}"#;
        assert!(parse(text).unwrap().notes().is_empty());
        // Defaults are PEFT's.
        let text =
            r#"{"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_num_layers": -1}"#;
        let MethodOptions::PTuning(options) = parse(text).unwrap().method else {
            panic!("{text}")
        };
        assert_eq!(options.encoder_num_layers, 2);
    }

    #[test]
    fn ignored_keys_are_listed_on_one_line() {
        let keys: String = (0..12).map(|i| format!(", \"k\\n{i}\": 0")).collect();
        let text = format!(r#"{{"peft_type": "BEFT", "init_weights": 7{keys}}}"#);
        let notes = parse(&text).unwrap().notes();
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].starts_with("unknown keys are ignored: `k 0`, `k 1`"),
            "{notes:?}"
        );
        assert!(notes[0].ends_with("`k 9` and 2 more"), "{notes:?}");
        assert!(notes[1].ends_with(": `init_weights`"), "{notes:?}");
    }

    #[test]
    fn repeated_modules_to_save_are_kept() {
        let config =
            parse(r#"{"peft_type": "BEFT", "modules_to_save": ["classifier", "score", "classifier", "score"]}"#).unwrap();
        assert_eq!(config.to_json().matches("score").count(), 2);
        let notes = config.notes();
        assert!(
            notes[0].contains("`modules_to_save` names modules"),
            "{notes:?}"
        );
        let config = parse(r#"{"peft_type": "BEFT", "task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score", "embed_tokens"]}"#).unwrap();
        let notes = config.notes();
        assert!(notes[0].ends_with(": `embed_tokens`"), "{notes:?}");
    }

    #[test]
    fn an_unsupported_method_is_refused_by_name() {
        let message = message(r#"{"peft_type": "LORA", "r": 8, "task_type": "SEQ_CLS"}"#);
        assert_eq!(
            message,
            "a/adapter_config.json: `peft_type` is `LORA`, which is not supported; \
             supported: PROMPT_TUNING, P_TUNING, PREFIX_TUNING, BEFT"
        );
    }

    #[test]
    fn an_adapter_of_a_task_without_a_head_is_taken_and_noted() {
        for task in TaskType::ALL {
            let name = task.name();
            let config = parse(&format!(
                r#"{{"peft_type": "BEFT", "task_type": "{name}"}}"#
            ));
            let config = config.unwrap();
            assert_eq!(config.task_type, Some(task));
            let notes = config.notes();
            match task {
                TaskType::CausalLm
                | TaskType::SeqCls
                | TaskType::TokenCls
                | TaskType::QuestionAns => assert!(notes.is_empty(), "{notes:?}"),
                _ => assert!(
                    notes.len() == 1 && notes[0].starts_with(&format!("`task_type` is `{name}`;"))
                ),
            }
            assert!(
                config
                    .to_json()
                    .contains(&format!("\"task_type\": \"{name}\""))
            );
        }
    }

    #[test]
    fn an_unknown_task_is_refused_by_name() {
        let message = message(r#"{"peft_type": "BEFT", "task_type": "SEQ_2_SEQ"}"#);
        assert!(message.contains("`task_type` is `SEQ_2_SEQ`"), "{message}");
        assert!(
            message.contains("supported: CAUSAL_LM, SEQ_2_SEQ_LM"),
            "{message}"
        );
    }

    #[test]
    fn wrong_types_name_their_key() {
        let message = message(r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": "ten"}"#);
        assert_eq!(
            message,
            "a/adapter_config.json: `num_virtual_tokens` is \"ten\", expected a whole number, 0 or more"
        );
    }

    #[test]
    fn missing_keys_are_named() {
        assert_eq!(
            message("{}"),
            "a/adapter_config.json: `peft_type` is missing"
        );
        assert_eq!(
            message(r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": null}"#),
            "a/adapter_config.json: `num_virtual_tokens` is missing"
        );
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for text in ["", "[]", "{\"peft_type\":", "null", "\u{feff}{}"] {
            assert!(matches!(parse(text), Err(Error::Json { .. })), "{text:?}");
        }
        assert!(matches!(
            AdapterConfig::parse(b"\xff\xfe", Path::new("x")),
            Err(Error::Json { .. })
        ));
    }

    #[test]
    fn target_modules_are_names_or_a_pattern() {
        for targets in [r#"".*v_proj""#, r#"["v_proj", "k_proj", "v_proj"]"#] {
            let config = parse(&format!(
                r#"{{"peft_type": "BEFT", "target_modules": {targets}}}"#
            ));
            let written = config.unwrap().to_json();
            let written: Value = serde_json::from_str(&written).unwrap();
            let given: Value = serde_json::from_str(targets).unwrap();
            assert_eq!(written["target_modules"], given);
        }
        let message = message(r#"{"peft_type": "BEFT", "target_modules": {"v_proj": 1}}"#);
        assert!(
            message.ends_with(
                "`target_modules` is {\"v_proj\":1}, expected a list of module names or a regular expression"
            ),
            "{message}"
        );
    }

    #[test]
    fn strings_are_escaped_as_python_does() {
        assert_eq!(
            to_ascii("\"é\u{7f}🙂~\""),
            "\"\\u00e9\\u007f\\ud83d\\ude42~\""
        );
    }
}
