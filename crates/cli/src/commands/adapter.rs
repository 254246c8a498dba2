//! An adapter folder and the base that it is put on.

use std::{borrow::Cow, path::Path};

use anyhow::{Result, anyhow, bail};
use burn_peft_decoder::Checkpoint;
use burn_peft_format::{AdapterFolder, BaseIdentity, CONFIG_FILE, Error};

use super::shared::display;
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

/// Whether it was trained on the built-in model, which has no name.
fn is_built_in(folder: &AdapterFolder) -> Result<bool> {
    let own = builtin::checkpoint()?.fingerprint()?;
    Ok(folder.config.base_fingerprint == Some(own))
}
