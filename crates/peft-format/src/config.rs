//! `adapter_config.json`: PEFT's field names, its defaults, its layout.

use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::fields::Fields;
use crate::method::MethodOptions;

/// The `peft_version` written for a new adapter: the release whose folders the tests compare with.
pub const PEFT_VERSION: &str = "0.21.2";

/// The key of [`AdapterConfig::template`].
const TEMPLATE: &str = "burn_peft_template";

/// An adapter's configuration.
///
/// Always written with `inference_mode: true`, as PEFT does, whatever was read.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Path or hub id of the base model.
    pub base_model_name_or_path: Option<String>,
    /// The base model's revision.
    pub revision: Option<String>,
    /// The task. None is written as null and taken for language modelling.
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
    /// The method and its own fields.
    pub method: MethodOptions,
    /// Keys of the file that are not known here. To be reported; not written again (PEFT drops them too).
    pub unknown_keys: Vec<String>,
}

/// What a base model is adapted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskType {
    /// `CAUSAL_LM`: language modelling.
    CausalLm,
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
            method,
            unknown_keys: Vec::new(),
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
    /// Absent keys and nulls take PEFT's defaults; unknown keys are noted in `unknown_keys`.
    ///
    /// # Errors
    /// If it is no JSON object, a value has the wrong type, or the method or task is not supported here.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self, Error> {
        let mut fields = Fields::parse(json, path)?;
        // The method first: of a LoRA folder, that it is LoRA is the only thing worth saying.
        let method = MethodOptions::read(&mut fields)?;
        let task_type = match fields.optional::<String>("task_type")?.as_deref() {
            None => None,
            Some("CAUSAL_LM") => Some(TaskType::CausalLm),
            Some(other) => return Err(fields.unsupported("task_type", other, "CAUSAL_LM")),
        };
        let _: Option<bool> = fields.optional("inference_mode")?;
        Ok(Self {
            base_model_name_or_path: fields.optional("base_model_name_or_path")?,
            revision: fields.optional("revision")?,
            task_type,
            modules_to_save: fields.optional("modules_to_save")?,
            auto_mapping: fields.optional("auto_mapping")?,
            peft_version: fields.optional("peft_version")?,
            template: fields.optional(TEMPLATE)?,
            method,
            unknown_keys: fields.unread(),
        })
    }

    /// The text of `adapter_config.json` as PEFT writes it: indent 2, sorted keys, ASCII, no newline at the end.
    pub fn to_json(&self) -> String {
        let task_type = self.task_type.map(|task| match task {
            TaskType::CausalLm => "CAUSAL_LM",
        });
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
        let mut value = Value::Object(map);
        value.sort_all_objects();
        ascii(&format!("{value:#}"))
    }
}

/// Escapes what Python's `json.dumps` escapes: in JSON text, only strings can hold a character beyond `~`.
fn ascii(json: &str) -> String {
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
    fn repeated_modules_to_save_are_kept() {
        let config =
            parse(r#"{"peft_type": "BEFT", "modules_to_save": ["classifier", "score", "classifier", "score"]}"#).unwrap();
        assert_eq!(config.to_json().matches("score").count(), 2);
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
    fn an_unsupported_task_is_refused_by_name() {
        let message = message(r#"{"peft_type": "BEFT", "task_type": "SEQ_2_SEQ_LM"}"#);
        assert!(
            message.contains("`task_type` is `SEQ_2_SEQ_LM`"),
            "{message}"
        );
        assert!(message.contains("supported: CAUSAL_LM"), "{message}");
    }

    #[test]
    fn wrong_types_name_their_key() {
        let message = message(r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": "ten"}"#);
        assert!(
            message
                .starts_with("a/adapter_config.json: `num_virtual_tokens`: invalid type: string"),
            "{message}"
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
                "`target_modules`: neither a list of module names nor a regular expression"
            ),
            "{message}"
        );
    }

    #[test]
    fn strings_are_escaped_as_python_does() {
        assert_eq!(ascii("\"é\u{7f}🙂~\""), "\"\\u00e9\\u007f\\ud83d\\ude42~\"");
    }
}
