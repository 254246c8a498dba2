//! An adapter that another one starts from, by name and by place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::OptionType;

/// An adapter folder by the name that a user has for it: its path, or another name, such as a hub id, for a folder that
/// lies elsewhere.
///
/// This crate reads no folders and knows no hub. Whoever does says with [`found_in`](Self::found_in) where the folder
/// is; until then its name is its path. In files it is the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct AdapterPath {
    name: PathBuf,
    folder: PathBuf,
}

impl AdapterPath {
    /// As the user wrote it.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes where it lies.
    pub fn found_in(&mut self, folder: PathBuf) {
        self.folder = folder;
    }
}

impl From<String> for AdapterPath {
    fn from(name: String) -> Self {
        Self {
            folder: name.clone().into(),
            name: name.into(),
        }
    }
}

impl From<&str> for AdapterPath {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<AdapterPath> for String {
    fn from(path: AdapterPath) -> Self {
        path.name.to_string_lossy().into_owned()
    }
}

impl OptionType for AdapterPath {
    fn kind() -> String {
        "path or hub id".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_the_name_whatever_the_folder_is() {
        let mut path: AdapterPath = serde_json::from_str("\"someone/prompt\"").unwrap();
        assert_eq!(path.folder(), Path::new("someone/prompt"));
        path.found_in("/cache/1".into());
        assert_eq!(path.folder(), Path::new("/cache/1"));
        assert_eq!(serde_json::to_string(&path).unwrap(), "\"someone/prompt\"");
    }
}
