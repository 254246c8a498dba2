//! What can be wrong with an adapter folder.

use std::path::PathBuf;

/// An error of this crate. Each says where it was met and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    File(#[from] burn_peft_files::Error),
    /// The folder has no `adapter_config.json`, nor has a subfolder of it.
    #[error(
        "{path}: no `adapter_config.json` there; give the folder of an adapter saved by PEFT or burn-peft"
    )]
    NotAnAdapter {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds named adapters in subfolders, and none of its own under the name asked for.
    #[error(
        "{path}: no adapter of its own there; its subfolders hold {}: give one of those",
        list(names)
    )]
    NamedAdapters {
        /// The folder.
        path: PathBuf,
        /// The subfolders that hold an adapter, sorted.
        names: Vec<String>,
    },
    /// The weights exist only as a pickle, which can run code when it is loaded.
    #[error(
        "{path}: a pickle, which is not read here; load the adapter with PEFT and save it again with \
         `save_pretrained(…)`, which writes adapter_model.safetensors"
    )]
    Pickle {
        /// The `.bin` file.
        path: PathBuf,
    },
    /// The folder has a configuration and no weights.
    #[error(
        "{path}: `adapter_config.json` is there and `adapter_model.safetensors` is not; copy that file too"
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A configuration is not a JSON object.
    #[error("{path}: not an adapter configuration: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        reason: String,
    },
    /// A key that the method needs is absent or null.
    #[error("{path}: `{field}` is missing")]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The key.
        field: &'static str,
    },
    /// A key has a value of the wrong type, or none of those it may have.
    #[error("{path}: `{field}` is {found}, expected {expected}")]
    InvalidField {
        /// The file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// The value, shortened.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A key has a value that PEFT knows and this project does not.
    #[error("{path}: `{field}` is `{found}`, which is not supported; supported: {supported}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key, such as `peft_type` or `task_type`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        supported: String,
    },
    /// The weights are not a whole safetensors file; most often a copy that broke off.
    #[error("{path}: not a whole safetensors file ({reason}); copy it again")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor has values that are no numbers.
    #[error(
        "{path}: tensor `{name}` has {count} {} NaN or infinite",
        if *count == 1 { "value that is" } else { "values that are" }
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How many of its values.
        count: usize,
    },
    /// A tensor is stored in a type that adapters do not come in.
    #[error("{path}: tensor `{name}` is stored as {dtype}; F64, F32, BF16 or F16 is expected")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type, in safetensors' name.
        dtype: String,
    },
    /// The adapter injects nothing and has no head, so a folder of it would hold nothing.
    #[error("an adapter that injects nothing and has no head cannot be saved")]
    NothingToSave,
    /// The adapter cannot become part of a checkpoint.
    #[error("{path}: cannot be merged: {reason}")]
    CannotMerge {
        /// The adapter's folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The adapter has a head, and the form asked for has no place for one.
    #[error(
        "{path}: the adapter has a head for {task}, and {form} has no place for it yet; use the folder as it is"
    )]
    HasHead {
        /// The adapter's folder.
        path: PathBuf,
        /// PEFT's name of the task.
        task: &'static str,
        /// What was to be written.
        form: &'static str,
    },
    /// The adapter has no virtual tokens among the embeddings.
    #[error(
        "{path}: an adapter of type {peft_type} has no prompt, no embeddings of virtual tokens"
    )]
    NoPrompt {
        /// The adapter's folder.
        path: PathBuf,
        /// PEFT's name of the method.
        peft_type: &'static str,
    },
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] burn_peft_decoder::Error),
    /// The adapter does not fit the base model. Every problem at once.
    #[error(
        "{path}: the adapter does not fit the base model{}: {}",
        trained_on.as_ref().map_or_else(String::new, |name| format!("; it was trained on `{name}`")),
        sentences(problems)
    )]
    DoesNotFit {
        /// The adapter's folder.
        path: PathBuf,
        /// The name of the base that it was trained on, where its configuration has one.
        trained_on: Option<String>,
        /// All that is wrong with it.
        problems: Vec<Problem>,
    },
}

/// One reason why an adapter does not fit a base model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The configuration was made for another base.
    #[error("`{field}` is {found}, expected {expected}")]
    Field {
        /// The key of `adapter_config.json`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What the base asks for.
        expected: String,
    },
    /// A tensor of the method is absent.
    #[error("tensor `{name}` is missing, expected with shape {}", one_of(expected))]
    Missing {
        /// The tensor.
        name: String,
        /// The shapes it may have.
        expected: Vec<Vec<usize>>,
    },
    /// A tensor has none of the shapes it may have.
    #[error("tensor `{name}` has shape {found:?}, expected {}", one_of(expected))]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shapes it may have.
        expected: Vec<Vec<usize>>,
    },
    /// A tensor that the method does not have.
    #[error("tensor `{name}` {found:?} is unexpected")]
    Unexpected {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },
}

fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn one_of(shapes: &[Vec<usize>]) -> String {
    shapes
        .iter()
        .map(|shape| format!("{shape:?}"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The first problems; the message is one line.
fn sentences(problems: &[Problem]) -> String {
    const MOST: usize = 5;
    let first = problems.iter().take(MOST).map(Problem::to_string);
    let text = first.collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(MOST) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}
