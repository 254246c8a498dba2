//! How to use the folder, here and in PEFT.

use super::{Base, head_of};
use crate::folder::AdapterFolder;
use crate::peft_type::Landing;
use crate::task::{CAUSAL_BACKBONE, HeadLayout, TaskType};

/// What stands in for the folder's own path, which is another for every reader.
const THIS_FOLDER: &str = "path/of/this/folder";

/// How to use the folder in burn-peft.
pub(super) fn here(folder: &AdapterFolder, base: Base<'_>) -> String {
    let options = match base {
        Base::Unknown => String::new(),
        base => format!(" --model {}", path_of(base)),
    };
    let revision = folder.config.revision.as_deref().map(shell);
    let revision = revision.map_or_else(String::new, |revision| format!(" --revision {revision}"));
    let says_labels = folder.config.task.as_ref();
    let says_labels = says_labels.is_some_and(|task| !task.verbalizer.is_empty());
    let command = match folder.config.task_type {
        Some(TaskType::QuestionAns) => "predict --data questions.jsonl --output answers.jsonl",
        Some(TaskType::SeqCls | TaskType::TokenCls) => "predict --text \"…\"",
        _ if says_labels => "predict --text \"…\"",
        _ => "generate --prompt \"…\"",
    };
    format!(
        "\n## In burn-peft\n\n\
         ```sh\nburn-peft {command}{options}{revision} --adapter {THIS_FOLDER}\n```\n\n\
         `--adapter` takes the id of a repository of the hub, too, as in `owner/name`.\n"
    )
}

/// How to use the folder in PEFT.
pub(super) fn in_peft(folder: &AdapterFolder, base: Base<'_>) -> String {
    let task = head_of(folder);
    let class = task.map_or("AutoModelForCausalLM", |head| head.class);
    let (base, name) = (python(path_of(base)), python(THIS_FOLDER));
    let mut options = match task {
        Some(head) if head.outputs.is_none() => {
            let outputs = folder.head().map_or(0, |head| head.outputs());
            format!(", num_labels={outputs}")
        }
        // Otherwise transformers leaves all layers at random, with a warning.
        Some(HeadLayout { backbone, .. }) => {
            format!(", key_mapping={{\"^{CAUSAL_BACKBONE}\": \"{backbone}\"}}")
        }
        None => String::new(),
    };
    if let Some(revision) = &folder.config.revision {
        options += &format!(", revision={}", python(revision));
    }
    let mut text = format!(
        "\n## In PEFT\n\n\
         ```python\nfrom peft import PeftModel\nfrom transformers import {class}\n\n\
         base = {class}.from_pretrained({base}{options})\n\
         model = PeftModel.from_pretrained(base, {name})\n```\n"
    );
    for note in notes(folder) {
        text += &format!("\n{note}\n");
    }
    text
}

/// What one has to know of PEFT with such an adapter, a paragraph each.
fn notes(folder: &AdapterFolder) -> Vec<String> {
    let (prompt, is_virtual) = match folder.config.method.landing() {
        Landing::Prompt(tokens) => (Some(tokens.num_virtual_tokens), true),
        Landing::Prefix(_) => (None, true),
        Landing::Biases(_) => (None, false),
    };
    let of_task = match (folder.config.task_type, prompt) {
        (Some(TaskType::SeqCls), Some(_)) => Some(
            "Give PEFT rows of one length: with a prompt it takes the last cell of a row for its last token, padding \
             or not."
                .to_owned(),
        ),
        (Some(TaskType::SeqCls), None) => Some(
            "Set `base.config.pad_token_id` for batches: transformers finds the last token of a row by it.".to_owned(),
        ),
        (Some(TaskType::TokenCls), Some(tokens)) => Some(format!(
            "PEFT gives logits for the {tokens} virtual tokens too, in front of those of a row."
        )),
        (Some(TaskType::QuestionAns), Some(tokens)) => Some(format!(
            "PEFT gives logits for the {tokens} virtual tokens too, so it counts the tokens of an answer from {tokens}."
        )),
        _ => None,
    };
    // Found with both: from the second new token on, the cached texts are others. A forward pass is right.
    let writes_text = head_of(folder).is_none();
    let of_cache = (is_virtual && writes_text).then(|| {
        "PEFT 0.21.2 with transformers 5.24 loses the virtual tokens when `generate` caches. Call it with \
         `use_cache=False` there, or use transformers 5.23."
            .to_owned()
    });
    of_cache.into_iter().chain(of_task).collect()
}

fn path_of(base: Base<'_>) -> &str {
    match base {
        Base::Hub(name) => name,
        Base::Folder(_) | Base::Unknown => "path/of/the/base/model",
    }
}

fn python(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// A word of a shell's command.
fn shell(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,".contains(c);
    match value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', r"'\''")),
    }
}
