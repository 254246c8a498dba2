//! A parsed `run.toml` with the place of each key, so that every fault can say where it stands.

use std::collections::BTreeMap;

use burn_peft::MethodConfig;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{SECTIONS, hints};
use crate::Error;

/// Sections of keys, and where each of them came from.
pub(super) struct Document {
    sections: BTreeMap<String, Table>,
    /// `section.key` or `section` → `run.toml:7` or `--set`.
    places: BTreeMap<String, String>,
}

impl Document {
    /// Parses a file, which errors call `origin`.
    pub(super) fn read(text: &str, origin: &str) -> Result<Self, Error> {
        let newline = |byte: &u8| *byte == b'\n';
        let line = |offset| 1 + text.bytes().take(offset).filter(newline).count();
        let syntax = |error: toml::de::Error| Error::ConfigSyntax {
            place: format!(
                "{origin}:{}: ",
                error.span().map_or(1, |span| line(span.start))
            ),
            message: error.message().to_owned(),
        };
        let values: Table = toml::from_str(text).map_err(syntax)?;
        let spans = DeTable::parse(text).map_err(syntax)?;

        let mut document = Self {
            sections: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for (name, value) in spans.get_ref() {
            let place = format!("{origin}:{}: ", line(name.span().start));
            let name = name.get_ref().as_ref();
            document.places.insert(name.into(), place.clone());
            let (DeValue::Table(keys), Some(Value::Table(table))) =
                (value.get_ref(), values.get(name))
            else {
                return Err(match SECTIONS.contains(&name) {
                    true => Error::ConfigSyntax {
                        place,
                        message: format!(
                            "{name} is a section, [{name}] with keys below it, and not a value"
                        ),
                    },
                    false => unknown_section(place, name),
                });
            };
            for key in keys.keys() {
                let place = format!("{origin}:{}: ", line(key.span().start));
                document
                    .places
                    .insert(format!("{name}.{}", key.get_ref()), place);
            }
            document.sections.insert(name.into(), table.clone());
        }
        Ok(document)
    }

    /// Puts a value in the place of the file's.
    pub(super) fn set(&mut self, section: &str, key: &str, value: Value, place: &str) {
        let place = format!("{place}: ");
        self.places
            .entry(section.into())
            .or_insert_with(|| place.clone());
        self.places.insert(format!("{section}.{key}"), place);
        let section = self.sections.entry(section.into()).or_default();
        section.insert(key.into(), value);
    }

    /// `run.toml:7: ` for what came from somewhere, nothing for a default.
    pub(super) fn place_of(&self, key: &str) -> String {
        self.places.get(key).cloned().unwrap_or_default()
    }

    /// The method that `type` selects, with its default options.
    fn method(&self) -> Result<MethodConfig, Error> {
        let table = self.sections.get("method");
        let Some(value) = table.and_then(|table| table.get("type")) else {
            return Ok(MethodConfig::default());
        };
        let method = value.as_str().and_then(MethodConfig::named);
        method.ok_or_else(|| Error::UnknownMethod {
            place: self.place_of("method.type"),
            found: value.to_string(),
            known: MethodConfig::NAMES.join(", "),
        })
    }

    /// Puts keys that were given by a second name under their own.
    pub(super) fn rename(&mut self) -> Result<(), Error> {
        for (section, second, key) in hints::SECOND_NAMES {
            let Some(table) = self.sections.get_mut(section) else {
                continue;
            };
            let Some(value) = table.remove(second) else {
                continue;
            };
            let place = self.place_of(&format!("{section}.{second}"));
            let table = self.sections.entry(section.into()).or_default();
            let renamed = match table.contains_key(key) {
                true => Err(format!(
                    "it is another name of {section}.{key}, which is given too"
                )),
                false => hints::translate(second, value),
            };
            match renamed {
                Ok(value) => table.insert(key.into(), value),
                Err(message) => {
                    let key = format!("{section}.{second}");
                    return Err(Error::BadValue {
                        place,
                        key,
                        message,
                    });
                }
            };
            self.places.insert(format!("{section}.{key}"), place);
        }
        Ok(())
    }

    /// Refuses unknown sections and keys.
    pub(super) fn check_keys(&self) -> Result<(), Error> {
        let method = self.method()?;
        for (section, table) in &self.sections {
            if !SECTIONS.contains(&section.as_str()) {
                return Err(unknown_section(self.place_of(section), section));
            }
            let known = hints::keys_of(section, &method);
            if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
                let place = self.place_of(&format!("{section}.{key}"));
                return Err(unknown_key(place, section, key, &method));
            }
        }
        Ok(())
    }

    /// A section as a struct; an absent one is all defaults.
    pub(super) fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, Error> {
        let Some(table) = self.sections.get(name) else {
            return Ok(T::default());
        };
        let mut base = Table::new();
        if name == "method" {
            base.insert("type".into(), self.method()?.name().into());
        }
        let read = |keys: &mut dyn Iterator<Item = (&String, &Value)>| {
            let mut table = base.clone();
            table.extend(keys.map(|(key, value)| (key.clone(), value.clone())));
            Value::Table(table).try_into::<T>()
        };
        let error = match read(&mut table.iter()) {
            Ok(section) => return Ok(section),
            Err(error) => error,
        };
        // Every key has a default, so a key is at fault if a section of it alone cannot be read.
        let culprit = table
            .iter()
            .find(|item| read(&mut std::iter::once(*item)).is_err());
        let key = culprit.map_or_else(|| name.to_owned(), |(key, _)| format!("{name}.{key}"));
        let place = self.place_of(&key);
        Err(Error::BadValue {
            place,
            key,
            message: in_words(error.message()),
        })
    }
}

/// Serde's wording names Rust types.
fn in_words(message: &str) -> String {
    let words = [
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected path string", "expected a path"),
        ("floating point", "number"),
        ("unknown variant", "unknown value"),
    ];
    let message = message.trim().replace('\n', " ");
    words
        .iter()
        .fold(message, |text, (from, to)| text.replace(from, to))
}

fn unknown_section(place: String, name: &str) -> Error {
    Error::UnknownSection {
        place,
        name: name.into(),
        hint: hints::for_section(name),
    }
}

fn unknown_key(place: String, section: &str, key: &str, method: &MethodConfig) -> Error {
    Error::UnknownKey {
        place,
        section: match section {
            "method" => format!("[method] of type {}", method.name()),
            other => format!("[{other}]"),
        },
        key: key.into(),
        hint: hints::for_key(section, key, method),
    }
}
