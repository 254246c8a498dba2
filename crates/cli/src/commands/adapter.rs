//! An adapter folder and the base that it is put on.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use burn_peft::{AnyAdapter, Head, PeftModel};
use burn_peft_data::Template;
use burn_peft_decoder::{Checkpoint, Decoder, DecoderConfig};
use burn_peft_files::Checksum;
use burn_peft_format::{
    AdapterFolder, BaseIdentity, CONFIG_FILE, Error, Landing, adapter_from_folder, head_from_folder,
};
use burn_peft_ops::Ops;
use burn_peft_train::TaskSetup;

use super::shared::{OpenBase, display};
use crate::{
    builtin,
    hub::{self, Contents},
    output,
    source::ModelSource,
};

/// The folder of an adapter: `name` itself, or as a hub id (`owner/name`, `owner/name@revision`) the one in the hub's
/// cache.
pub(crate) fn locate(name: &Path) -> Result<Cow<'_, Path>> {
    match name.to_str() {
        _ if name.is_dir() => Ok(name.into()),
        _ if name.exists() => bail!("{}: an adapter is a folder, this is a file", display(name)),
        Some(text) => Ok(hub::folder(text, None, Contents::Adapter)?.into()),
        None => bail!("{}: no such folder", display(name)),
    }
}

/// Reads an adapter by its folder or hub id, and says what of its configuration is ignored.
pub(crate) fn load(dir: &Path) -> Result<AdapterFolder> {
    let folder = AdapterFolder::load(&locate(dir)?)?;
    for note in folder.config.notes() {
        output::warn(&format!("{}: {note}", display(&dir.join(CONFIG_FILE))));
    }
    Ok(folder)
}

/// Refuses an adapter that does not fit its base, and warns of one that fits and was trained on another.
pub(crate) fn check_base(
    folder: &AdapterFolder,
    dir: &Path,
    source: &ModelSource,
    revision: Option<&str>,
    checkpoint: &Checkpoint,
) -> Result<()> {
    // Only an adapter that has a fingerprint is worth reading the weights for.
    let fingerprint = match &folder.config.base_fingerprint {
        Some(_) => Some(checkpoint.fingerprint()?),
        None => None,
    };
    let given = BaseIdentity {
        name: Some(match source {
            ModelSource::BuiltIn => builtin::MODEL_NAME,
            ModelSource::Folder { name, .. } => name,
        }),
        revision,
        fingerprint,
    };
    let other = folder.config.other_base(given);
    let mend = match (&other, &folder.config.base_model_name_or_path) {
        (None, _) => "",
        (Some(_), Some(_)) => "; name its own base with --model",
        (Some(_), None) if is_built_in(folder)? => {
            "; it is the built-in model's: leave out --model"
        }
        (Some(_), None) => "; name its own base with --model",
    };
    match (folder.check(checkpoint.config(), dir), other) {
        (Err(error @ Error::DoesNotFit { .. }), _) => Err(anyhow!("{error}{mend}")),
        (fits, None) => Ok(fits?),
        (fits, Some(other)) => {
            fits?;
            output::warn(&format!("{}: {other}{mend}", display(dir)));
            Ok(())
        }
    }
}

/// The files of an adapter, read and whole.
pub(crate) struct AdapterFiles {
    dir: PathBuf,
    folder: AdapterFolder,
}

impl AdapterFiles {
    /// Reads an adapter, and says what of its configuration is ignored.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let folder = load(dir)?;
        folder.check_values(dir)?;
        let dir = dir.to_owned();
        Ok(Self { dir, folder })
    }

    /// The adapter on a base, if it fits.
    pub(crate) fn on(self, base: &OpenBase) -> Result<OpenAdapter> {
        let Self { dir, folder } = self;
        let revision = base.revision.as_deref();
        check_base(&folder, &dir, &base.source, revision, &base.checkpoint)?;
        Ok(OpenAdapter {
            template: template_of(&dir, &folder)?,
            dir,
            folder,
        })
    }
}

/// An adapter that fits its base.
pub(crate) struct OpenAdapter {
    dir: PathBuf,
    folder: AdapterFolder,
    template: Option<Template>,
}

impl OpenAdapter {
    /// What it was trained for.
    pub(crate) fn task(&self) -> TaskSetup {
        TaskSetup::of_folder(&self.folder)
    }

    /// A checksum of its configuration and its tensors.
    pub(crate) fn checksum(&self) -> String {
        Checksum::of(format!("{:?}", self.folder).as_bytes()).to_string()
    }

    /// What it was trained with.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// The name of its method.
    pub(crate) fn method(&self) -> &'static str {
        self.folder.config.method.name()
    }

    /// Its virtual tokens, each of which takes one of the base's positions.
    pub(crate) fn num_virtual_tokens(&self) -> usize {
        let tokens = self.folder.config.method.virtual_tokens();
        tokens.map_or(0, |tokens| tokens.num_virtual_tokens)
    }

    /// Whether its virtual tokens stand among the embeddings.
    pub(crate) fn has_prompt(&self) -> bool {
        matches!(self.folder.config.method.landing(), Landing::Prompt(_))
    }

    /// Refuses an adapter with a head, which writes no text.
    pub(crate) fn check_writes_text(&self) -> Result<()> {
        let task = self.task();
        match task.head_kind() {
            None => Ok(()),
            Some(_) => bail!(
                "{}: its head is for {}, and writes no text; use predict",
                display(&self.dir),
                task.task
            ),
        }
    }

    /// Its values for a base, and those of its head.
    pub(crate) fn values<B: Ops>(
        &self,
        base: &DecoderConfig,
        device: &B::Device,
    ) -> Result<(AnyAdapter<B>, Option<Head<B>>)> {
        let (folder, dir) = (&self.folder, &self.dir);
        Ok((
            adapter_from_folder(folder, base, dir, device)?,
            head_from_folder(folder, base, dir, device)?,
        ))
    }

    /// Puts it on its base.
    pub(crate) fn put_on<B: Ops>(&self, base: Decoder<B>) -> Result<PeftModel<B, AnyAdapter<B>>> {
        let (adapter, head) = self.values(base.config(), &base.device())?;
        Ok(PeftModel::new(base, adapter).with_head(head))
    }
}

/// The template of an adapter folder, whose virtual tokens must be the adapter's.
fn template_of(dir: &Path, folder: &AdapterFolder) -> Result<Option<Template>> {
    let path = dir.join(CONFIG_FILE);
    let Some(template) = &folder.config.template else {
        return Ok(None);
    };
    let template = Template::parse(template).with_context(|| display(&path))?;
    let placed = template.num_virtual_tokens();
    let tokens = folder.config.method.virtual_tokens();
    let own = tokens.map_or(0, |tokens| tokens.num_virtual_tokens);
    if placed != 0 && placed != own {
        bail!(
            "{}: `burn_peft_template` places {placed} virtual tokens, the adapter has {own}",
            display(&path)
        );
    }
    Ok(Some(template))
}

/// Whether it was trained on the built-in model, which has no name.
fn is_built_in(folder: &AdapterFolder) -> Result<bool> {
    let own = builtin::checkpoint()?.fingerprint()?;
    Ok(folder.config.base_fingerprint == Some(own))
}
