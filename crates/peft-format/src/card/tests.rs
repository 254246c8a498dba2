//! What a card says.

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
            settings: Some("x = \"\"\"\n```\n\"\"\"".into()),
            ..ModelCard::default()
        },
    );
    assert!(text.starts_with("---\nlibrary_name: peft\n"), "{text}");
    assert!(text.contains("\n# t ---\n"));
    assert!(text.contains("\n| a\\|b | c d |\n"));
    assert!(text.contains("\n````toml\nx"), "{text}");
}

#[test]
fn only_a_base_on_the_hub_is_in_the_front_matter_and_no_path_is_told() {
    for path in [
        "/home/me/models/Qwen2.5-0.5B",
        "../Qwen2.5-0.5B/",
        "src/Qwen2.5-0.5B/.",
    ] {
        let text = render(Some(path), &ModelCard::default());
        assert!(
            !text.contains("base_model") && !text.contains(path),
            "{text}"
        );
        assert!(text.contains("| base model | Qwen2.5-0.5B |\n"), "{text}");
        assert!(text.contains("from_pretrained(\"path/of/the/base/model\")"));
        assert!(text.contains(" --model path/of/the/base/model "), "{text}");
    }
    // A folder of this crate, which looks like a hub id.
    let text = render(Some("src/card"), &ModelCard::default());
    assert!(!text.contains("base_model"), "{text}");
}

#[test]
fn a_card_says_how_burn_peft_uses_the_folder() {
    let text = render(Some("a/base"), &ModelCard::default());
    let command =
        "burn-peft generate --prompt \"…\" --model a/base --adapter path/of/this/folder\n";
    assert!(text.contains(command), "{text}");
    let biases = of_biases(LayerModule::QProj, None).config.method;
    let text = with_head(biases, HeadKind::Sequence, 2);
    assert!(text.contains("burn-peft predict --text "), "{text}");
    let mut folder = of_biases(LayerModule::QProj, Some("a/base"));
    folder.config.revision = Some("v1".into());
    let text = ModelCard::default().render(&folder);
    assert!(text.contains(" --revision v1 "), "{text}");
    assert!(text.contains("(\"a/base\", revision=\"v1\")"), "{text}");
}

#[test]
fn of_virtual_tokens_it_says_what_pefts_cache_does() {
    let prefix = VirtualTokenOptions::prefix(3, &base());
    let prefix = MethodOptions::PrefixTuning(PrefixTuningOptions::new(prefix));
    let prompt = VirtualTokenOptions::prompt(3, &base());
    let prompt = MethodOptions::PromptTuning(PromptTuningOptions::new(prompt));
    let biases = of_biases(LayerModule::QProj, None).config.method;
    let told = |text: String| text.contains("`use_cache=False`");
    for (method, expected) in [(prefix.clone(), true), (prompt, true), (biases, false)] {
        let text = ModelCard::default().render(&folder(method, &[]));
        assert_eq!(told(text), expected);
    }
    assert!(!told(with_head(prefix, HeadKind::Sequence, 2)));
}

#[test]
fn data_scores_and_settings_are_told() {
    let card = ModelCard {
        data: vec![CardData {
            purpose: "training".into(),
            file: "train.jsonl".into(),
            rows: 2000,
        }],
        scores: vec![CardScore {
            name: "loss".into(),
            before: None,
            after: "0.1".into(),
        }],
        scored_on: Some("5 rows of test.jsonl".into()),
        settings: Some("[train]\nseed = 1\n".into()),
        ..ModelCard::default()
    };
    let text = render(Some("a/base"), &card);
    for part in [
        "\n| training | train.jsonl | 2000 |\n",
        "\nOn 5 rows of test.jsonl:\n",
        "\n| loss | – | 0.1 |\n",
        "\n```toml\n[train]\nseed = 1\n```\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let bare = render(Some("a/base"), &ModelCard::default());
    assert!(!bare.contains("Results") && !bare.contains("Training"));
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
