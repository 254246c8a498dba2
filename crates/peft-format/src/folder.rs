//! An adapter folder as one value.

use std::path::{Path, PathBuf};

use burn_peft_files::{Checksum, Error as FileError, StagedFiles, if_exists};

use crate::card::{MARK, ModelCard};
use crate::config::AdapterConfig;
use crate::tensors::AdapterTensors;
use crate::{Error, integrity};

/// The configuration's file name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The model card's file name.
pub const CARD_FILE: &str = "README.md";
/// What PEFT wrote before safetensors.
const PICKLE_FILE: &str = "adapter_model.bin";

/// What an adapter folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFolder {
    /// `adapter_config.json`.
    pub config: AdapterConfig,
    /// `adapter_model.safetensors`.
    pub tensors: AdapterTensors,
}

impl AdapterFolder {
    /// Reads the adapter that lies in `dir` itself.
    ///
    /// Shapes are not judged here: see [`check`](Self::check). Values neither: see
    /// [`check_values`](Self::check_values).
    ///
    /// # Errors
    /// [`Error::NamedAdapters`] if only subfolders hold adapters, and what [`AdapterConfig::load`] and
    /// [`AdapterTensors::load`] find; and a file that is not what the checksum in the configuration says.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        if !dir.join(CONFIG_FILE).is_file() {
            let names = named_adapters(dir)?;
            let path = dir.to_path_buf();
            return Err(if names.is_empty() {
                Error::NotAnAdapter { path }
            } else {
                Error::NamedAdapters { path, names }
            });
        }
        let path = dir.join(CONFIG_FILE);
        let (config, checksum) =
            AdapterConfig::parse_sealed(&burn_peft_files::read(&path)?, &path)?;
        let path = weights_file(dir)?;
        let bytes = burn_peft_files::read(&path)?;
        let tensors = AdapterTensors::parse(&bytes, &path)?;
        if let Some(expected) = checksum {
            integrity::check_weights(&bytes, &expected, &path)?;
        }
        Ok(Self { config, tensors })
    }

    /// Makes sure that every value is a number; `dir` is for the message.
    ///
    /// # Errors
    /// [`Error::NotFinite`] names a tensor with NaN or infinite values. No output of such an adapter means anything.
    pub fn check_values(&self, dir: &Path) -> Result<(), Error> {
        match self.tensors.non_finite().first() {
            None => Ok(()),
            Some((name, count)) => Err(Error::NotFinite {
                path: dir.join(WEIGHTS_FILE),
                name: (*name).to_owned(),
                count: *count,
            }),
        }
    }

    /// Writes the folder, creating it if need be.
    ///
    /// All files are first written in full, and synced, under temporary names in `dir`; then each is renamed into
    /// its place, the configuration last. So a failure to write (a full disk, say) changes nothing, and a fresh
    /// folder that was cut off is not an adapter yet, never half of one. Over an existing adapter, a configuration comes
    /// first that allows the old weights too, so that the folder loads at every moment. A `README.md` that someone else wrote, or that was made their own, is left alone.
    ///
    /// # Errors
    /// If a file cannot be written, or the configuration is one that PEFT refuses to load.
    pub fn save(&self, dir: &Path, card: &ModelCard) -> Result<(), Error> {
        if let Some(field) = self.config.method.missing_field() {
            let path = dir.join(CONFIG_FILE);
            return Err(Error::MissingField { path, field });
        }
        let mut staged = StagedFiles::new(dir)?;
        if owns_card(&dir.join(CARD_FILE))? {
            staged.add(CARD_FILE, card.render(self).as_bytes())?;
        }
        for (name, bytes) in self.files(dir) {
            staged.add(name, &bytes)?;
        }
        Ok(staged.commit()?)
    }

    /// Writes the card alone, for a folder that is saved already. A `README.md` of somebody else's is left alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_card(&self, dir: &Path, card: &ModelCard) -> Result<(), Error> {
        let path = dir.join(CARD_FILE);
        if owns_card(&path)? {
            burn_peft_files::write(&path, card.render(self).as_bytes())?;
        }
        Ok(())
    }

    /// The adapter's files in the order in which they get their places in `dir`.
    pub(crate) fn files(&self, dir: &Path) -> Vec<(&'static str, Vec<u8>)> {
        let config = |weights: &[Checksum]| {
            let text = self.config.to_sealed_json(weights);
            (CONFIG_FILE, text.into_bytes())
        };
        let weights = self.tensors.to_safetensors();
        let new = Checksum::of(&weights);
        let mut files = Vec::new();
        if let Ok(old) = Checksum::of_file(&dir.join(WEIGHTS_FILE)) {
            files.push(config(&[new, old]));
        }
        files.push((WEIGHTS_FILE, weights));
        files.push(config(&[new]));
        files
    }
}

/// The subfolders that hold an adapter, sorted.
fn named_adapters(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(FileError::to("read", dir))? {
        let entry = entry.map_err(FileError::to("read", dir))?;
        if entry.path().join(CONFIG_FILE).is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn weights_file(dir: &Path) -> Result<PathBuf, Error> {
    let (weights, pickle) = (dir.join(WEIGHTS_FILE), dir.join(PICKLE_FILE));
    if weights.is_file() {
        Ok(weights)
    } else if pickle.is_file() {
        Err(Error::Pickle { path: pickle })
    } else {
        Err(Error::NoWeights { path: dir.into() })
    }
}

/// Whether the card at `path` is ours to write: there is none, or one that this crate wrote.
fn owns_card(path: &Path) -> Result<bool, Error> {
    let found = if_exists(path.symlink_metadata()).map_err(FileError::to("read", path))?;
    match found {
        None => return Ok(true),
        Some(data) if !data.is_file() => return Ok(false),
        Some(_) => {}
    }
    let text = burn_peft_files::read(path)?;
    Ok(String::from_utf8_lossy(&text).contains(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{base, folder};
    use crate::{
        MethodOptions, PROMPT_EMBEDDINGS, PromptTuningInit, PromptTuningOptions,
        VirtualTokenOptions, tensors::AdapterTensor,
    };

    fn sample(value: f32) -> AdapterFolder {
        let base = base();
        let tokens = VirtualTokenOptions::prompt(2, &base);
        let method = MethodOptions::PromptTuning(PromptTuningOptions::new(tokens));
        let mut folder = folder(method, &[]);
        let shape = [2, base.hidden_size];
        let table = AdapterTensor::new(shape, vec![value; shape.iter().product()]);
        folder.tensors.insert(PROMPT_EMBEDDINGS, table);
        folder
    }

    fn save(folder: &AdapterFolder, dir: &Path) {
        folder.save(dir, &ModelCard::default()).unwrap();
    }

    fn message(dir: &Path) -> String {
        let message = AdapterFolder::load(dir).unwrap_err().to_string();
        message.replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn what_is_saved_is_loaded_and_can_be_saved_over() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/folder");
        for value in [0.5, -1.0] {
            save(&sample(value), &dir);
            assert_eq!(AdapterFolder::load(&dir).unwrap(), sample(value));
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
    }

    #[test]
    fn values_that_are_no_numbers_are_named_by_tensor() {
        let root = tempfile::tempdir().unwrap();
        save(&sample(f32::NAN), root.path());
        let folder = AdapterFolder::load(root.path()).unwrap();
        let error = folder.check_values(Path::new("a")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a/adapter_model.safetensors: tensor `prompt_embeddings` has 48 values that are NaN or infinite"
        );
        sample(f32::MAX).check_values(Path::new("a")).unwrap();
    }

    #[test]
    fn a_failed_save_leaves_the_old_adapter() {
        let root = tempfile::tempdir().unwrap();
        save(&sample(0.5), root.path());
        let mut wrong = sample(9.0);
        if let MethodOptions::PromptTuning(options) = &mut wrong.config.method {
            options.prompt_tuning_init = PromptTuningInit::Text;
            options.prompt_tuning_init_text = Some("text".into());
        }
        let error = wrong.save(root.path(), &ModelCard::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("adapter_config.json: `tokenizer_name_or_path` is missing"),
            "{error}"
        );
        assert_eq!(AdapterFolder::load(root.path()).unwrap(), sample(0.5));
    }

    #[test]
    fn a_fresh_folder_whose_save_was_cut_off_is_no_adapter() {
        let root = tempfile::tempdir().unwrap();
        // Stands in the way of the last rename.
        std::fs::create_dir_all(root.path().join(CONFIG_FILE).join("x")).unwrap();
        sample(0.5)
            .save(root.path(), &ModelCard::default())
            .unwrap_err();
        assert!(root.path().join(WEIGHTS_FILE).is_file());
        assert!(message(root.path()).starts_with("DIR: no `adapter_config.json` there"));
    }

    #[test]
    fn a_readme_of_the_users_own_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let readme = root.path().join(CARD_FILE);
        std::fs::write(&readme, "mine").unwrap();
        save(&sample(0.5), root.path());
        assert_eq!(std::fs::read_to_string(&readme).unwrap(), "mine");
        std::fs::remove_file(&readme).unwrap();
        save(&sample(0.5), root.path());
        let card = ModelCard {
            title: Some("Again".into()),
            ..ModelCard::default()
        };
        sample(0.5).save(root.path(), &card).unwrap();
        assert!(
            std::fs::read_to_string(&readme)
                .unwrap()
                .contains("# Again")
        );
    }

    #[test]
    fn subfolders_of_named_adapters_are_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("other")).unwrap();
        assert!(message(root.path()).starts_with("DIR: no `adapter_config.json` there"));
        let named = root.path().join("poet");
        save(&sample(0.5), &named);
        assert_eq!(
            message(root.path()),
            "DIR: no adapter of its own there; its subfolders hold `poet`: give one of those"
        );
        assert_eq!(AdapterFolder::load(&named).unwrap(), sample(0.5));
    }

    #[test]
    fn missing_files_say_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        save(&sample(0.5), root.path());
        std::fs::rename(
            root.path().join(WEIGHTS_FILE),
            root.path().join(PICKLE_FILE),
        )
        .unwrap();
        assert!(
            message(root.path())
                .starts_with("DIR/adapter_model.bin: a pickle, which is not read here; load")
        );
        std::fs::remove_file(root.path().join(PICKLE_FILE)).unwrap();
        assert!(
            message(root.path()).contains("`adapter_model.safetensors` is not; copy that file")
        );
        let gone = root.path().join("gone");
        assert!(message(&gone).starts_with("DIR: cannot read: "));
    }
}
