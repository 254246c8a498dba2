//! `README.md`, the model card.

use burn_peft_decoder::DecoderConfig;

use crate::config::AdapterConfig;
use crate::folder::AdapterFolder;
use crate::peft_type::Landing;
use crate::task::{CAUSAL_BACKBONE, HeadLayout, TaskType};

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
    pub(crate) fn render(&self, folder: &AdapterFolder) -> String {
        let config = &folder.config;
        let task = config.task_type.and_then(TaskType::head);
        let method = match folder.is_linear_probe() {
            true => "linear-probe",
            false => config.method.name(),
        };
        let base = config.base_model_name_or_path.as_deref().map(one_line);
        let mut text = String::from("---\n");
        if let Some(base) = &base {
            text += &format!("base_model: {}\n", scalar(base));
        }
        let pipeline = task.map_or("text-generation", |head| head.pipeline);
        text += &format!("library_name: peft\npipeline_tag: {pipeline}\ntags:\n");
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
        rows.extend(
            config
                .task_type
                .filter(|_| task.is_some())
                .map(|task| ("task".to_string(), format!("`{}`", task.name()))),
        );
        let labels = folder.labels();
        if !labels.is_empty() {
            rows.push(("labels".to_string(), labels.join(", ")));
        }
        let verbalizer = config.task.as_ref().map(|task| &task.verbalizer);
        if let Some(texts) = verbalizer.filter(|texts| !texts.is_empty()) {
            let texts: Vec<_> = texts.iter().map(|text| format!("`{text}`")).collect();
            rows.push(("texts for the labels".to_string(), texts.join(", ")));
        }
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
            text += &usage(folder, task, base);
        }
        text
    }
}

/// How to use the folder in PEFT.
fn usage(folder: &AdapterFolder, task: Option<HeadLayout>, base: &str) -> String {
    let class = task.map_or("AutoModelForCausalLM", |head| head.class);
    let (base, name) = (python(base), python("path/of/this/folder"));
    let options = match task {
        Some(head) if head.outputs.is_none() => {
            let outputs = folder.head().map_or(0, |head| head.outputs());
            format!(", num_labels={outputs}")
        }
        // Otherwise transformers leaves all layers at random, with a warning.
        Some(head) => format!(
            ", key_mapping={{\"^{CAUSAL_BACKBONE}\": \"{}\"}}",
            head.backbone
        ),
        None => String::new(),
    };
    let mut text = format!(
        "\n```python\nfrom peft import PeftModel\nfrom transformers import {class}\n\n\
         base = {class}.from_pretrained({base}{options})\n\
         model = PeftModel.from_pretrained(base, {name})\n```\n"
    );
    let prompt = match folder.config.method.landing() {
        Landing::Prompt(tokens) => Some(tokens.num_virtual_tokens),
        Landing::Prefix(_) | Landing::Biases(_) => None,
    };
    text += &match (folder.config.task_type, prompt) {
        (Some(TaskType::SeqCls), Some(_)) => {
            "\nGive PEFT rows of one length: with a prompt it takes the last cell of a row for its last token, padding or not.\n"
                .to_owned()
        }
        (Some(TaskType::SeqCls), None) => {
            "\nSet `base.config.pad_token_id` for batches: transformers finds the last token of a row by it.\n"
                .to_owned()
        }
        (Some(TaskType::TokenCls), Some(tokens)) => {
            format!("\nPEFT gives logits for the {tokens} virtual tokens too, in front of those of a row.\n")
        }
        (Some(TaskType::QuestionAns), Some(tokens)) => format!(
            "\nPEFT gives logits for the {tokens} virtual tokens too, so it counts the tokens of an answer from {tokens}.\n"
        ),
        _ => String::new(),
    };
    text
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
    use burn_peft::{HeadKind, LayerModule};

    use super::*;
    use crate::test_support::{base, folder};
    use crate::{
        AdapterTensor, BeftOptions, HeadTensors, MethodOptions, PrefixTuningOptions,
        PromptTuningOptions, TargetModules, TaskOptions, VirtualTokenOptions,
    };

    /// Of biases at one module.
    fn of_biases(module: LayerModule, base: Option<&str>) -> AdapterFolder {
        let targets = TargetModules::Names(vec![module.name().into()]);
        let mut folder = folder(MethodOptions::Beft(BeftOptions::new(targets)), &[]);
        folder.config.base_model_name_or_path = base.map(Into::into);
        folder
    }

    fn render(base: Option<&str>, card: &ModelCard) -> String {
        card.render(&of_biases(LayerModule::QProj, base))
    }

    /// The card of an adapter with a head of this many outputs.
    fn with_head(method: MethodOptions, kind: HeadKind, outputs: usize) -> String {
        let head = HeadTensors {
            kind,
            weight: AdapterTensor::new([outputs, 1], vec![1.0; outputs]),
            bias: None,
        };
        let folder = folder(method, &[]).with_head(head);
        ModelCard::default().render(&folder)
    }

    #[test]
    fn a_card_says_how_peft_loads_a_head() {
        let biases = || of_biases(LayerModule::QProj, None).config.method;
        for (kind, pipeline, call) in [
            (
                HeadKind::Sequence,
                "text-classification",
                "AutoModelForSequenceClassification.from_pretrained(\"some/base\", num_labels=7)",
            ),
            (
                HeadKind::Token,
                "token-classification",
                "AutoModelForTokenClassification.from_pretrained(\"some/base\", num_labels=7)",
            ),
            (
                HeadKind::Span,
                "question-answering",
                "AutoModelForQuestionAnswering.from_pretrained(\"some/base\", \
                 key_mapping={\"^model\": \"transformer\"})",
            ),
        ] {
            let text = with_head(biases(), kind, 7);
            assert!(text.contains(&format!("pipeline_tag: {pipeline}\n")));
            assert!(text.contains(&format!("\nbase = {call}\n")), "{text}");
            let task = TaskType::of(kind).name();
            assert!(text.contains(&format!("| task | `{task}` |\n")));
        }
    }

    #[test]
    fn a_card_says_what_peft_does_with_prompts_and_heads() {
        let tokens = || VirtualTokenOptions::prompt(3, &base());
        let prompt = || MethodOptions::PromptTuning(PromptTuningOptions::new(tokens()));
        let prefix = MethodOptions::PrefixTuning(PrefixTuningOptions::new(tokens()));
        let pooled = "Give PEFT rows of one length";
        assert!(with_head(prompt(), HeadKind::Sequence, 2).contains(pooled));
        let text = with_head(prefix, HeadKind::Sequence, 2);
        assert!(!text.contains(pooled) && text.contains("pad_token_id"));
        assert!(with_head(prompt(), HeadKind::Token, 2).contains("the 3 virtual tokens too"));
        let text = with_head(prompt(), HeadKind::Span, 2);
        assert!(text.contains("an answer from 3"), "{text}");
    }

    #[test]
    fn labels_and_their_texts_are_shown() {
        let mut folder = of_biases(LayerModule::QProj, None);
        folder.config.task = Some(TaskOptions {
            labels: vec!["bad".into(), "good|fine".into()],
            verbalizer: vec![" no".into(), " yes".into()],
            ..TaskOptions::default()
        });
        let text = ModelCard::default().render(&folder);
        assert!(text.contains("| labels | bad, good\\|fine |\n"), "{text}");
        assert!(
            text.contains("| texts for the labels | ` no`, ` yes` |\n"),
            "{text}"
        );
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
        let mut folder = of_biases(LayerModule::QProj, None);
        let card = ModelCard::default();
        assert!(!card.render(&folder).contains("template"));
        folder.config.template = Some("{prompt:3}\n{input}{completion}".into());
        assert!(
            card.render(&folder)
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
        let biases = |module| of_biases(module, Some("a/b")).config.method;
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
            let text = card.render(&folder);
            assert_eq!(
                text.contains("PeftModel.from_pretrained"),
                refused.is_none(),
                "{text}"
            );
            assert!(text.contains(refused.unwrap_or_default()), "{text}");
        }
    }
}
