//! `README.md`, the model card.

use burn_peft_decoder::DecoderConfig;

use crate::config::AdapterConfig;
use crate::folder::AdapterFolder;
use crate::peft_type::Landing;

/// The line that says a card is ours to overwrite.
pub(crate) const MARK: &str =
    "<!-- burn-peft rewrites this file; without this line it stays as it is -->";

/// What a model card says beyond the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelCard {
    /// The heading. Default: the method and the base model.
    pub title: Option<String>,
    /// Rows of a table, such as `("training loss", "1.52")`.
    pub facts: Vec<(String, String)>,
    /// Why PEFT does not load the folder, as a sentence ([`AdapterFolder::refused_by_peft`]); `None` if it does.
    pub refused_by_peft: Option<String>,
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
    pub(crate) fn render(&self, config: &AdapterConfig) -> String {
        let method = config.method.name();
        let base = config.base_model_name_or_path.as_deref().map(one_line);
        let mut text = String::from("---\n");
        if let Some(base) = &base {
            text += &format!("base_model: {}\n", scalar(base));
        }
        text += "library_name: peft\npipeline_tag: text-generation\ntags:\n";
        if let Some(base) = &base {
            text += &format!("- {}\n", scalar(&format!("base_model:adapter:{base}")));
        }
        text += &format!("- burn\n- {method}\n- transformers\n---\n\n{MARK}\n\n");
        text += &match (&self.title, &base) {
            (Some(title), _) => format!("# {}\n", one_line(title)),
            (None, Some(base)) => format!("# {method} for {base}\n"),
            (None, None) => format!("# {method}\n"),
        };
        let what = config.method.peft_type();
        text += &format!(
            "\nAn adapter in Hugging Face PEFT's format (`{what}`), trained with burn-peft.\n\n"
        );
        text += "| | |\n|---|---|\n";
        let mut rows = vec![("method".to_string(), method.to_string())];
        rows.extend(
            base.as_ref()
                .map(|base| ("base model".to_string(), base.clone())),
        );
        let tokens = config.method.virtual_tokens();
        rows.extend(tokens.map(|tokens| {
            (
                "virtual tokens".to_string(),
                tokens.num_virtual_tokens.to_string(),
            )
        }));
        rows.extend(config.template.as_ref().map(|template| {
            (
                "template (PEFT puts virtual tokens in front)".to_string(),
                format!("`{template}`"),
            )
        }));
        for (name, value) in rows.iter().chain(&self.facts) {
            text += &format!("| {} | {} |\n", cell(name), cell(value));
        }
        let refused = || biases_beyond_peft(config);
        if let Some(reason) = self.refused_by_peft.clone().or_else(refused) {
            text += &format!("\n{reason} PEFT does not load this folder; burn-peft does.\n");
        } else if let Some(base) = &base {
            let (base, name) = (python(base), python("path/of/this/folder"));
            text += &format!(
                "\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
                 base = AutoModelForCausalLM.from_pretrained({base})\n\
                 model = PeftModel.from_pretrained(base, {name})\n```\n"
            );
        }
        text
    }
}

/// A YAML scalar: plain where that is safe, else quoted as JSON is, which YAML reads.
fn scalar(value: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
    if value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.contains('/')
        && value.chars().all(safe)
    {
        value.into()
    } else {
        python(value)
    }
}

fn python(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn cell(value: &str) -> String {
    one_line(value).replace('|', "\\|")
}

fn one_line(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use burn_peft::LayerModule;

    use super::*;
    use crate::test_support::{base, folder};
    use crate::{
        BeftOptions, MethodOptions, PrefixTuningOptions, TargetModules, VirtualTokenOptions,
    };

    /// Of biases at one module.
    fn config(module: LayerModule, base: Option<&str>) -> AdapterConfig {
        let targets = TargetModules::Names(vec![module.name().into()]);
        AdapterConfig::new(MethodOptions::Beft(BeftOptions::new(targets)), base)
    }

    fn render(base: Option<&str>, card: &ModelCard) -> String {
        card.render(&config(LayerModule::QProj, base))
    }

    #[test]
    fn the_front_matter_names_base_library_and_tags() {
        let text = render(Some("Qwen/Qwen2.5-0.5B"), &ModelCard::default());
        let front = text.split("---\n").nth(1).unwrap();
        assert_eq!(
            front,
            "base_model: Qwen/Qwen2.5-0.5B\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n\
             - base_model:adapter:Qwen/Qwen2.5-0.5B\n- burn\n- bitfit\n- transformers\n"
        );
        assert!(text.contains("# bitfit for Qwen/Qwen2.5-0.5B\n"));
        assert!(!render(None, &ModelCard::default()).contains("base_model"));
    }

    #[test]
    fn a_template_is_shown() {
        let mut config = config(LayerModule::QProj, None);
        let card = ModelCard::default();
        assert!(!card.render(&config).contains("template"));
        config.template = Some("{prompt:3}\n{input}{completion}".into());
        assert!(
            card.render(&config)
                .contains("| `{prompt:3} {input}{completion}` |\n")
        );
    }

    #[test]
    fn odd_names_cannot_break_the_card() {
        let facts = vec![("a|b".to_string(), "c\nd".to_string())];
        let text = render(
            Some("true: \"x\"\n---\ntags: [y]"),
            &ModelCard {
                title: Some("t\n---".into()),
                facts,
                ..ModelCard::default()
            },
        );
        assert!(
            text.starts_with("---\nbase_model: \"true: \\\"x\\\" --- tags: [y]\"\n"),
            "{text}"
        );
        assert!(text.contains("\n# t ---\n"));
        assert!(text.contains("\n| a\\|b | c d |\n"));
    }

    #[test]
    fn a_card_shows_pefts_code_only_where_peft_loads_the_folder() {
        let base = base();
        let biases = |module| config(module, Some("a/b")).method;
        let prefix = |tokens| MethodOptions::PrefixTuning(PrefixTuningOptions::new(tokens));
        for (method, refused) in [
            (biases(LayerModule::OProj), None),
            (
                biases(LayerModule::InputLayernorm),
                Some("`input_layernorm`"),
            ),
            (prefix(VirtualTokenOptions::prefix(3, &base)), None),
            (
                prefix(VirtualTokenOptions::attention_prefix(3, &base)),
                Some("each query head"),
            ),
        ] {
            let folder = folder(method, &[]);
            let card = ModelCard {
                refused_by_peft: folder.refused_by_peft(&base),
                ..ModelCard::default()
            };
            let text = card.render(&folder.config);
            assert_eq!(
                text.contains("PeftModel.from_pretrained"),
                refused.is_none(),
                "{text}"
            );
            assert!(text.contains(refused.unwrap_or_default()), "{text}");
        }
    }
}
