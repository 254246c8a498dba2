//! Checksums of an adapter folder, which stand in its configuration.
//!
//! They are there, and not in a file of their own, because PEFT writes `adapter_config.json` anew and drops keys that
//! it does not know: a folder that PEFT saved again has no checksums, instead of wrong ones.
//!
//! The key `burn_peft_checksums` holds the XXH3 checksum (128 bits) of the weights' file, and one of the configuration:
//! of its compact JSON with sorted keys and ASCII only, without that one checksum. So every bit of the folder that can
//! matter is covered, the list included.

use std::path::Path;

use burn_peft_files::{Checksum, Error as FileError};
use serde_json::{Map, Value};

use crate::Error;
use crate::config::to_ascii;
use crate::folder::{CONFIG_FILE, WEIGHTS_FILE};

/// The key of the checksums.
const CHECKSUMS: &str = "burn_peft_checksums";

/// Adds the checksums to a configuration. The weights' file may have any of the checksums `weights`.
pub(crate) fn seal(mut config: Map<String, Value>, weights: &[Checksum]) -> Map<String, Value> {
    let mut texts: Vec<Value> = weights.iter().map(|sum| sum.to_string().into()).collect();
    let weights = match texts.len() {
        1 => texts.remove(0),
        _ => Value::Array(texts),
    };
    let mut sums = Map::new();
    sums.insert(WEIGHTS_FILE.into(), weights);
    config.insert(CHECKSUMS.into(), sums.clone().into());
    sums.insert(
        CONFIG_FILE.into(),
        checksum_of(&as_read(&config)).to_string().into(),
    );
    config.insert(CHECKSUMS.into(), sums.into());
    config
}

/// Takes the checksums out of a configuration, makes sure that it is as it was written, and returns the
/// checksums that the weights may have. None where it has no checksums. `path` is for errors.
pub(crate) fn unseal(
    config: &mut Map<String, Value>,
    path: &Path,
) -> Result<Option<Vec<Checksum>>, Error> {
    let Some(value) = config.get_mut(CHECKSUMS) else {
        return Ok(None);
    };
    let damaged = |reason: String| Error::from(FileError::damaged(path, reason));
    let missing = |name: &str| damaged(format!("`{CHECKSUMS}` has no checksum of {name}"));
    let parse = |value: Option<&Value>| value?.as_str()?.parse::<Checksum>().ok();
    let own = value
        .as_object_mut()
        .and_then(|sums| sums.shift_remove(CONFIG_FILE));
    let own = parse(own.as_ref()).ok_or_else(|| missing(CONFIG_FILE))?;
    let weights: Option<Vec<_>> = match value.get(WEIGHTS_FILE) {
        Some(Value::Array(texts)) => texts.iter().map(|text| parse(Some(text))).collect(),
        other => parse(other).map(|sum| vec![sum]),
    };
    let found = checksum_of(config);
    if found != own {
        return Err(damaged(format!(
            "its checksum is {found}, and `{CHECKSUMS}` in it has {own}; copy it again, or remove that key if you \
             changed the file yourself"
        )));
    }
    config.shift_remove(CHECKSUMS);
    weights.map(Some).ok_or_else(|| missing(WEIGHTS_FILE))
}

/// Makes sure that the weights have one of the checksums `expected`. `path` is for errors.
pub(crate) fn check_weights(
    weights: &[u8],
    expected: &[Checksum],
    path: &Path,
) -> Result<(), Error> {
    let found = Checksum::of(weights);
    if expected.contains(&found) {
        return Ok(());
    }
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    let expected = expected.join(" or ");
    Err(FileError::damaged(
        path,
        format!(
            "its checksum is {found}, and {CONFIG_FILE} has {expected}; copy the folder again, or remove \
             `{CHECKSUMS}` from {CONFIG_FILE} if you changed the weights yourself"
        ),
    )
    .into())
}

fn checksum_of(config: &Map<String, Value>) -> Checksum {
    let mut value = Value::Object(config.clone());
    value.sort_all_objects();
    Checksum::of(to_ascii(&value.to_string()).as_bytes())
}

/// What a reader of the file will find: a number need not come back as it was.
fn as_read(config: &Map<String, Value>) -> Map<String, Value> {
    let text = Value::Object(config.clone()).to_string();
    serde_json::from_str(&text).expect("JSON that was just written")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::test_support::{base, folder};
    use crate::{
        AdapterFolder, MethodOptions, ModelCard, PROMPT_EMBEDDINGS, PTuningOptions,
        VirtualTokenOptions,
    };

    fn saved() -> (tempfile::TempDir, AdapterFolder) {
        let tokens = VirtualTokenOptions::prompt(2, &base());
        let mut options = PTuningOptions::new(tokens);
        // A number of many digits.
        options.encoder_dropout = 0.1 + 0.2;
        let mut made = folder(
            MethodOptions::PTuning(options),
            &[(PROMPT_EMBEDDINGS, &[2, 24])],
        );
        made.config.base_fingerprint = Some(Checksum::of(b"weights"));
        made.config.template = Some("é {prompt:2}".into());
        let dir = tempfile::tempdir().unwrap();
        made.save(dir.path(), &ModelCard::default()).unwrap();
        (dir, made)
    }

    /// A bit of every byte of a file flipped: what the reader makes of it.
    fn flip(name: &str, mut judge: impl FnMut(Result<AdapterFolder, Error>)) {
        let (dir, _) = saved();
        let path = dir.path().join(name);
        let bytes = fs::read(&path).unwrap();
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1 << (index % 8);
            fs::write(&path, flipped).unwrap();
            judge(AdapterFolder::load(dir.path()));
        }
    }

    #[test]
    fn flipped_bits_of_the_weights_are_refused_by_name() {
        flip(WEIGHTS_FILE, |found| {
            let message = found.unwrap_err().to_string();
            assert!(message.contains(WEIGHTS_FILE), "{message}");
        });
    }

    #[test]
    fn flipped_bits_of_the_configuration_are_refused_by_name_or_change_nothing() {
        let (_dir, made) = saved();
        let mut refused = 0;
        flip(CONFIG_FILE, |found| match found {
            Ok(mut found) => {
                // The name of the list itself: there are no checksums then, and the rest is whole.
                found.config.unknown_keys.clear();
                assert_eq!(found, made);
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(CONFIG_FILE), "{message}");
                refused += 1;
            }
        });
        assert!(refused > 700, "{refused}");
    }

    #[test]
    fn a_configuration_that_lost_the_key_loads_and_one_that_was_edited_says_how() {
        let (dir, made) = saved();
        let path = dir.path().join(CONFIG_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("some/base", "my/base")).unwrap();
        let message = AdapterFolder::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("remove that key"), "{message}");

        let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
        config.remove(CHECKSUMS).unwrap();
        fs::write(&path, Value::Object(config).to_string()).unwrap();
        assert_eq!(AdapterFolder::load(dir.path()).unwrap(), made);
    }

    #[test]
    fn at_each_moment_of_a_save_over_another_adapter_the_folder_loads() {
        let (dir, old) = saved();
        let mut new = old.clone();
        let values = vec![0.5; 2 * 24];
        let tensor = crate::AdapterTensor::new([2, 24], values);
        new.tensors.insert(PROMPT_EMBEDDINGS, tensor);
        let files = new.files(dir.path());
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [CONFIG_FILE, WEIGHTS_FILE, CONFIG_FILE]);
        for (index, (name, bytes)) in files.iter().enumerate() {
            fs::write(dir.path().join(name), bytes).unwrap();
            let expected = if index == 0 { &old } else { &new };
            assert_eq!(&AdapterFolder::load(dir.path()).unwrap(), expected);
        }
        let weights = dir.path().join(WEIGHTS_FILE);
        fs::write(&weights, old.tensors.to_safetensors()).unwrap();
        let error = AdapterFolder::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("it is damaged"), "{error}");
    }

    #[test]
    fn a_list_that_is_no_list_is_damaged() {
        for list in [r#""x""#, "{}", "null", r#"{"adapter_config.json": 3}"#] {
            let text = format!(r#"{{"peft_type": "BEFT", "burn_peft_checksums": {list}}}"#);
            let error = crate::AdapterConfig::parse(text.as_bytes(), Path::new("a"));
            let message = error.unwrap_err().to_string();
            assert!(message.contains("it is damaged: `burn_peft_checksums` has no"));
        }
    }
}
