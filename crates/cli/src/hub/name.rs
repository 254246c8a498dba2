//! Whether a name that is no folder here is that of a repository of the hub.

use std::path::Path;

use burn_peft_format::is_hub_id;

/// A repository of the hub, as in `owner/name` or `owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubName {
    /// `owner/name`.
    pub(crate) id: String,
    /// Branch, tag or commit.
    pub(crate) revision: Option<String>,
}

impl HubName {
    /// The repository that `name` can only be; else why it is a path, as the end of a sentence about it.
    ///
    /// A mistyped path must not be asked for on the network. So what looks like one, or begins with a folder that is
    /// here, is none of the hub's.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let (id, revision) = match name.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (name, None),
        };
        if !is_hub_id(id) || revision.is_some_and(|name| !is_revision(name)) {
            return Err("and it is no hub id (`owner/name`)".to_owned());
        }
        let owner = id.split('/').next().unwrap_or_default();
        if Path::new(owner).is_dir() {
            return Err(format!(
                "and the hub is not asked, because a folder `{owner}` is here"
            ));
        }
        Ok(Self {
            id: id.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

/// Whether `name` can be that of a branch, a tag or a commit, also as part of a path.
pub(super) fn is_revision(name: &str) -> bool {
    name.split('/').all(is_plain_name)
}

/// Whether `name` can be the name of a file or folder of the cache: commits and etags are such.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_id_is_owner_slash_name_and_perhaps_a_revision() {
        for (name, id, revision) in [
            (
                "Qwen/Qwen2.5-1.5B-Instruct",
                "Qwen/Qwen2.5-1.5B-Instruct",
                None,
            ),
            ("some_one/some-prompt", "some_one/some-prompt", None),
            (
                "someone/some.prompt@v1.0",
                "someone/some.prompt",
                Some("v1.0"),
            ),
            ("someone/x@refs/pr/3", "someone/x", Some("refs/pr/3")),
        ] {
            let found = HubName::parse(name).unwrap();
            assert_eq!((&*found.id, found.revision.as_deref()), (id, revision));
        }
    }

    #[test]
    fn what_looks_like_a_path_is_not_asked_for_on_the_network() {
        for path in [
            "model",
            "./runs/x",
            "../x",
            "/abs",
            "/abs/x",
            "~/x",
            "a/b/c",
            "a\\b",
            "runz\\x",
            "runz/",
            "adapters/final.safetensors",
            "adapters/run.toml",
            "someone/x@../y",
            "someone/x@",
            "a b/c",
            "a--b/c",
        ] {
            let error = HubName::parse(path).expect_err(path);
            assert!(error.contains("no hub id"), "{path}: {error}");
        }
        // The folder of this crate's sources.
        let error = HubName::parse("src/no-such-run").unwrap_err();
        assert!(error.contains("a folder `src` is here"), "{error}");
    }
}
