//! The base that is served, and the adapters on it: at the start, and those that are added later.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use burn_peft::{Adapter, HeadKind};
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::Checkpoint;
use burn_peft_format::{AdapterFolder, Landing, adapter_from_folder, head_from_folder};
use burn_peft_ops::Ops;
use burn_peft_serve::{AdapterTexts, AdapterValues, Inspect, check_name};
use burn_peft_train::TaskSetup;

use super::super::{adapter, shared::template_of};
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

/// A base that was found and checked.
pub(super) struct OpenBase {
    source: ModelSource,
    revision: Option<String>,
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: TextTokenizer,
    /// Tokens of a row, virtual ones included.
    max_context: usize,
}

/// Adapters that were found and checked, their values not yet on a device.
pub(super) struct Opened(Vec<(NamedFolder, AdapterFolder, AdapterTexts)>);

impl Opened {
    /// Their names, and what texts need of them.
    pub(super) fn into_texts(self) -> Vec<(String, AdapterTexts)> {
        let adapters = self.0.into_iter();
        adapters
            .map(|(named, _, texts)| (named.name, texts))
            .collect()
    }
}

impl OpenBase {
    pub(super) fn new(
        source: ModelSource,
        revision: Option<String>,
        checkpoint: Checkpoint,
        max_context: usize,
    ) -> Result<Self> {
        let tokenizer = source.tokenizer()?;
        Ok(Self {
            tokenizer: tokenizer.for_table(checkpoint.config().vocab_size),
            source,
            revision,
            checkpoint,
            max_context,
        })
    }

    /// The name that the base was asked for by.
    pub(super) fn name(&self) -> String {
        match &self.source {
            ModelSource::BuiltIn => builtin::MODEL_NAME.to_owned(),
            ModelSource::Folder { name, .. } => name.clone(),
        }
    }

    /// Reads an adapter folder, and refuses one that is not for this base or whose head is for more than texts as a whole.
    fn adapter(&self, dir: &Path) -> Result<(AdapterFolder, AdapterTexts)> {
        let folder = adapter::load(dir)?;
        folder.check_values(dir)?;
        let revision = self.revision.as_deref();
        adapter::check_base(&folder, dir, &self.source, revision, &self.checkpoint)?;
        let task = TaskSetup::of_folder(&folder);
        let has_head = match task.head_kind() {
            None => false,
            Some(HeadKind::Sequence) => true,
            Some(HeadKind::Token | HeadKind::Span) => bail!(
                "{}: its head is for {}, which is not served; use predict",
                dir.display(),
                task.task
            ),
        };
        let tokens = folder.config.method.virtual_tokens();
        let virtual_tokens = tokens.map_or(0, |tokens| tokens.num_virtual_tokens);
        if virtual_tokens >= self.max_context {
            bail!(
                "{}: its {virtual_tokens} virtual tokens leave no room in a context of {} (--max-context)",
                dir.display(),
                self.max_context
            );
        }
        let texts = AdapterTexts {
            template: template_of(dir, &folder)?,
            virtual_tokens,
            has_prompt: matches!(folder.config.method.landing(), Landing::Prompt(_)),
            labels: task.labels.filter(|_| has_head),
        };
        Ok((folder, texts))
    }

    fn values<B: Ops>(
        &self,
        folder: &AdapterFolder,
        dir: &Path,
        device: &B::Device,
    ) -> Result<AdapterValues<B>> {
        let config = self.checkpoint.config();
        Ok(AdapterValues {
            injection: adapter_from_folder::<B>(folder, config, dir, device)?.inject(),
            head: head_from_folder(folder, config, dir, device)?,
        })
    }

    /// Looks at the folder of an adapter that is added.
    pub(super) fn inspector(self: &Arc<Self>) -> Inspect {
        let open = Arc::clone(self);
        Box::new(move |dir| match open.adapter(dir) {
            Ok((_, texts)) => Ok(texts),
            Err(error) => Err(output::one_line(&error)),
        })
    }

    /// Reads an adapter that is added.
    pub(super) fn loader<B: Ops>(
        self: Arc<Self>,
        device: B::Device,
    ) -> impl FnMut(&Path) -> Result<AdapterValues<B>, String> + Send + 'static {
        move |dir| {
            let folder = self.adapter(dir);
            let values = folder.and_then(|(folder, _)| self.values::<B>(&folder, dir, &device));
            values.map_err(|error| output::one_line(&error))
        }
    }
}

/// Finds and checks all adapters.
pub(super) fn open(base: &OpenBase, adapters: &[NamedFolder]) -> Result<Opened> {
    let opened = adapters.iter().map(|named| {
        if named.name == base.name() {
            return Err(anyhow!("--adapter {}: the base has that name", named.name));
        }
        let (folder, texts) = base.adapter(&named.dir)?;
        Ok((named.clone(), folder, texts))
    });
    Ok(Opened(opened.collect::<Result<_>>()?))
}

/// The values of all adapters.
pub(super) fn values<B: Ops>(
    base: &OpenBase,
    adapters: &Opened,
    device: &B::Device,
) -> Result<Vec<AdapterValues<B>>> {
    let adapters = adapters.0.iter();
    adapters
        .map(|(named, folder, _)| base.values::<B>(folder, &named.dir, device))
        .collect()
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
