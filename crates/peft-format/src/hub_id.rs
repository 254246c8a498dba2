//! Names of models and adapters on the Hugging Face hub.

/// Endings of files. Names of models have dots too, as in `Qwen2.5-0.5B`.
const FILE_ENDINGS: [&str; 18] = [
    "bin",
    "ckpt",
    "csv",
    "gguf",
    "git",
    "gz",
    "json",
    "jsonl",
    "md",
    "parquet",
    "pt",
    "pth",
    "safetensors",
    "tar",
    "toml",
    "txt",
    "yaml",
    "zip",
];

/// Whether the hub allows `name` as that of a repository, `owner/name`, and it is not the name of a file.
///
/// A relative path of two parts is such a name, too: whoever can should look whether there is a folder.
pub fn is_hub_id(name: &str) -> bool {
    let Some((owner, repository)) = name.split_once('/') else {
        return false;
    };
    let ending = repository.rsplit_once('.').map(|(_, ending)| ending);
    let is_file = ending.is_some_and(|ending| FILE_ENDINGS.contains(&ending));
    is_legal(owner) && is_legal(repository) && name.len() <= 96 && !is_file
}

/// Whether the hub allows `part` as the name of an owner or of a repository.
fn is_legal(part: &str) -> bool {
    let ends_well = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.starts_with(ends_well)
        && part.ends_with(ends_well)
        && part.chars().all(|c| ends_well(c) || "-.".contains(c))
        && !part.contains("--")
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::is_hub_id;

    #[test]
    fn a_hub_id_is_owner_slash_name() {
        for id in ["Qwen/Qwen2.5-1.5B-Instruct", "some_one/some.prompt"] {
            assert!(is_hub_id(id), "{id}");
        }
        for path in [
            "model",
            "./x",
            "../x",
            "/abs",
            "~/x",
            "a/b/c",
            "a\\b",
            "a/",
            "a/final.safetensors",
            "a b/c",
            "a--b/c",
        ] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
