//! The adapters of a conversation, by name.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{
    commands::{
        adapter::{AdapterFiles, OpenAdapter},
        shared::{OpenBase, display},
    },
    hub::HubName,
};

/// Stands for no adapter.
pub(super) const NONE: &str = "none";

/// An adapter that can be switched to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// Its folder or hub id.
    pub(super) dir: PathBuf,
}

/// An adapter that was read and not yet put on a base.
pub(super) struct ReadAdapter {
    named: Named,
    files: AdapterFiles,
}

/// An adapter that fits the base and writes text.
pub(super) struct Current {
    pub(super) named: Named,
    pub(super) adapter: OpenAdapter,
}

impl Named {
    /// Reads its files.
    pub(super) fn read(self) -> Result<ReadAdapter> {
        let files = AdapterFiles::read(&self.dir)?;
        Ok(ReadAdapter { named: self, files })
    }
}

impl ReadAdapter {
    /// Refuses one that does not fit the base or writes no text.
    pub(super) fn on(self, base: &OpenBase) -> Result<Current> {
        let adapter = self.files.on(base)?;
        adapter.check_writes_text()?;
        Ok(Current {
            named: self.named,
            adapter,
        })
    }
}

/// The adapters that were named so far.
#[derive(Debug, Default)]
pub(super) struct Adapters(Vec<Named>);

impl Adapters {
    /// Reads `--adapter NAME=DIR` and `--adapter DIR`. Without a NAME, an adapter has that of its folder.
    pub(super) fn parse(given: &[String]) -> Result<Self> {
        let mut adapters = Self::default();
        for text in given {
            let (name, dir) = match text.split_once('=') {
                Some((name, dir)) if !name.contains(['/', '\\']) && !Path::new(text).exists() => {
                    (name.to_owned(), dir)
                }
                _ => (adapters.name_for(Path::new(text)), text.as_str()),
            };
            if name.is_empty() || name == NONE || name.contains(char::is_whitespace) {
                bail!("--adapter {text}: an adapter cannot be called `{name}`");
            }
            if adapters.named(&name).is_some() {
                bail!("--adapter {text}: there are two adapters called `{name}`");
            }
            if !Path::new(dir).exists()
                && let Err(reason) = HubName::parse(dir)
            {
                bail!("--adapter {text}: no such folder, {reason}");
            }
            let dir = PathBuf::from(dir);
            adapters.0.push(Named { name, dir });
        }
        Ok(adapters)
    }

    /// All of them, in the order in which they were named.
    pub(super) fn all(&self) -> &[Named] {
        &self.0
    }

    /// The adapter that a text means: one that was named, or a folder or hub id.
    pub(super) fn find(&self, text: &str) -> Named {
        let same = |named: &&Named| named.dir == Path::new(text);
        match self.named(text).or_else(|| self.0.iter().find(same)) {
            Some(named) => named.clone(),
            None => Named {
                name: self.name_for(Path::new(text)),
                dir: text.into(),
            },
        }
    }

    /// Remembers an adapter.
    pub(super) fn add(&mut self, adapter: &Named) {
        if !self.0.contains(adapter) {
            self.0.push(adapter.clone());
        }
    }

    fn named(&self, name: &str) -> Option<&Named> {
        self.0.iter().find(|named| named.name == name)
    }

    /// The last part of a path, or all of it where that is another's name.
    fn name_for(&self, dir: &Path) -> String {
        let last = dir.file_name().map(|name| display(Path::new(name)));
        let free = |name: &String| {
            self.named(name).is_none() && name != NONE && !name.contains(char::is_whitespace)
        };
        last.filter(free).unwrap_or_else(|| display(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Adapters> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        Adapters::parse(&given)
    }

    #[test]
    fn an_adapter_has_a_name_or_that_of_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).expect("a folder");
            path.display().to_string()
        };
        let (a, again, odd) = (path("a"), path("b/a"), path("x=y"));
        let adapters = parse(&[&a, &again, &odd, &format!("z={a}"), "owner/hub"]).expect("five");
        let names: Vec<&str> = adapters.all().iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["a", &again, "x=y", "z", "hub"]);
        assert_eq!(adapters.find("z").dir, Path::new(&a));
        assert_eq!(adapters.find(&again).name, again);
        assert_eq!(adapters.find("other/c").name, "c");
    }

    #[test]
    fn names_that_would_mean_two_things_are_refused() {
        for (given, said) in [
            (&["none=owner/x"][..], "cannot be called `none`"),
            (&["=owner/x"], "cannot be called ``"),
            (&["a=owner/x", "a=owner/y"], "two adapters called `a`"),
            (&["no-such-folder"], "no such folder"),
        ] {
            let error = parse(given).expect_err("refused").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
