//! The base that is served, and the adapters on it: at the start, and those that are added later.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Result, bail};
use burn_peft::{Adapter, HeadKind};
use burn_peft_decoder::DecoderConfig;
use burn_peft_ops::Ops;
use burn_peft_serve::{AdapterTexts, AdapterValues, Inspect, check_name};

use super::super::{
    adapter::{AdapterFiles, OpenAdapter},
    shared::OpenBase,
};
use crate::{builtin, output, source::ModelSource};

/// `--adapter NAME=DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedFolder {
    name: String,
    dir: PathBuf,
}

impl FromStr for NamedFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, dir) = text
            .split_once('=')
            .ok_or("expected NAME=DIR, a name for requests and an adapter folder")?;
        check_name(name)?;
        if dir.is_empty() {
            return Err("there is no folder behind the `=`".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            dir: dir.into(),
        })
    }
}

/// Refuses a name that two adapters have.
pub(super) fn check_names(adapters: &[NamedFolder]) -> Result<()> {
    for (index, adapter) in adapters.iter().enumerate() {
        if adapters[..index]
            .iter()
            .any(|other| other.name == adapter.name)
        {
            bail!("--adapter {}: there are two of that name", adapter.name);
        }
    }
    Ok(())
}

/// The base, as adapters are put on it.
pub(super) struct ServedBase {
    open: OpenBase,
    /// Tokens of a row, virtual ones included.
    max_context: usize,
}

/// Adapters that were found and checked, their values not yet on a device.
pub(super) struct Opened(Vec<(String, OpenAdapter, AdapterTexts)>);

impl Opened {
    /// The values of all of them.
    pub(super) fn values<B: Ops>(
        &self,
        base: &DecoderConfig,
        device: &B::Device,
    ) -> Result<Vec<AdapterValues<B>>> {
        let adapters = self.0.iter();
        adapters
            .map(|(_, adapter, _)| values(adapter, base, device))
            .collect()
    }

    /// Their names, and what texts need of them.
    pub(super) fn into_texts(self) -> Vec<(String, AdapterTexts)> {
        let adapters = self.0.into_iter();
        adapters.map(|(name, _, texts)| (name, texts)).collect()
    }
}

impl ServedBase {
    pub(super) fn new(open: OpenBase, max_context: usize) -> Self {
        Self { open, max_context }
    }

    pub(super) fn open(&self) -> &OpenBase {
        &self.open
    }

    /// The name that the base was asked for by.
    pub(super) fn name(&self) -> String {
        match &self.open.source {
            ModelSource::BuiltIn => builtin::MODEL_NAME.to_owned(),
            ModelSource::Folder { name, .. } => name.clone(),
        }
    }

    /// Reads an adapter, and refuses one that is not for this base or whose head is for more than texts as a whole.
    fn adapter(&self, dir: &Path) -> Result<(OpenAdapter, AdapterTexts)> {
        let adapter = AdapterFiles::read(dir)?.on(&self.open)?;
        let task = adapter.task();
        let has_head = match task.head_kind() {
            None => false,
            Some(HeadKind::Sequence) => true,
            Some(HeadKind::Token | HeadKind::Span) => bail!(
                "{}: its head is for {}, which is not served; use predict",
                dir.display(),
                task.task
            ),
        };
        let virtual_tokens = adapter.num_virtual_tokens();
        if virtual_tokens >= self.max_context {
            bail!(
                "{}: its {virtual_tokens} virtual tokens leave no room in a context of {} (--max-context)",
                dir.display(),
                self.max_context
            );
        }
        let texts = AdapterTexts {
            template: adapter.template().cloned(),
            virtual_tokens,
            has_prompt: adapter.has_prompt(),
            labels: task.labels.filter(|_| has_head),
        };
        Ok((adapter, texts))
    }

    /// An adapter that is added while the server runs: a folder of this machine, and nothing that would be fetched.
    fn added(&self, dir: &Path) -> Result<(OpenAdapter, AdapterTexts), String> {
        if !dir.is_dir() {
            return Err(format!("{}: no such folder", dir.display()));
        }
        self.adapter(dir).map_err(|error| output::one_line(&error))
    }

    /// Looks at the folder of an adapter that is added.
    pub(super) fn inspector(self: &Arc<Self>) -> Inspect {
        let base = Arc::clone(self);
        Box::new(move |dir| Ok(base.added(dir)?.1))
    }

    /// Reads an adapter that is added.
    pub(super) fn loader<B: Ops>(
        self: Arc<Self>,
        device: B::Device,
    ) -> impl FnMut(&Path) -> Result<AdapterValues<B>, String> + Send + 'static {
        move |dir| {
            let (adapter, _) = self.added(dir)?;
            let values = values(&adapter, self.open.checkpoint.config(), &device);
            values.map_err(|error| output::one_line(&error))
        }
    }
}

fn values<B: Ops>(
    adapter: &OpenAdapter,
    base: &DecoderConfig,
    device: &B::Device,
) -> Result<AdapterValues<B>> {
    let (adapter, head) = adapter.values::<B>(base, device)?;
    Ok(AdapterValues {
        injection: adapter.inject(),
        head,
    })
}

/// Finds and checks all adapters.
pub(super) fn open(base: &ServedBase, adapters: &[NamedFolder]) -> Result<Opened> {
    let opened = adapters.iter().map(|NamedFolder { name, dir }| {
        if *name == base.name() {
            bail!("--adapter {name}: the base has that name");
        }
        let (adapter, texts) = base.adapter(dir)?;
        Ok((name.clone(), adapter, texts))
    });
    Ok(Opened(opened.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_has_a_name_and_a_folder() {
        let named: NamedFolder = "a=b=c/d".parse().expect("a name and a folder");
        assert_eq!(
            (named.name.as_str(), named.dir),
            ("a", PathBuf::from("b=c/d"))
        );
        for text in ["a", "=b", "a=", "base=b", "a b=c", "a\u{1b}=c"] {
            assert!(text.parse::<NamedFolder>().is_err(), "{text}");
        }
    }
}
