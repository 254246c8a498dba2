//! A JSON object that is read key by key, so that every error names its key and no key is overlooked; and the
//! macro that declares the keys of a method.

use std::path::Path;

use burn_peft::{EncoderReparameterizationType, PromptTuningInit};
use burn_peft_files::Checksum;
use serde_json::{Map, Value};

use crate::Error;
use crate::beft::TargetModules;
use crate::options::PrefixInit;
use crate::task::ProblemType;

/// The keys of a configuration that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    rest: Map<String, Value>,
    odd: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(rest: Map<String, Value>, path: &'a Path) -> Self {
        Self {
            path,
            rest,
            odd: Vec::new(),
        }
    }

    /// The value of a key. PEFT writes null for what is unset, so null and absent are the same.
    pub(crate) fn optional<T: FieldValue>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        let found = shortened(&value.to_string());
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::InvalidField {
                path: self.path.into(),
                field,
                found,
                expected: T::EXPECTED,
            }),
        }
    }

    /// Lays the keys of the object under `field` among the others, as `field.key`; whether there is one.
    pub(crate) fn open(&mut self, field: &'static str) -> Result<bool, Error> {
        let Some(object) = self.optional::<Map<String, Value>>(field)? else {
            return Ok(false);
        };
        let keys = object.into_iter();
        self.rest
            .extend(keys.map(|(key, value)| (format!("{field}.{key}"), value)));
        Ok(true)
    }

    /// The value of a key that says nothing about what a trained adapter computes, or `default`. A value that is
    /// not understood is noted: it is no reason to refuse the adapter.
    pub(crate) fn lenient<T: FieldValue>(&mut self, field: &'static str, default: T) -> T {
        let Some(value) = self.take(field) else {
            return default;
        };
        T::from_value(value).unwrap_or_else(|| {
            self.odd.push(field);
            default
        })
    }

    /// The value of a key, or `default` where it is not set.
    pub(crate) fn strict<T: FieldValue>(
        &mut self,
        field: &'static str,
        default: T,
    ) -> Result<T, Error> {
        Ok(self.optional(field)?.unwrap_or(default))
    }

    pub(crate) fn required<T: FieldValue>(&mut self, field: &'static str) -> Result<T, Error> {
        self.optional(field)?.ok_or_else(|| Error::MissingField {
            path: self.path.into(),
            field,
        })
    }

    pub(crate) fn unsupported(&self, field: &'static str, found: &str, supported: &str) -> Error {
        Error::Unsupported {
            path: self.path.into(),
            field,
            found: shortened(found),
            supported: supported.into(),
        }
    }

    /// The keys nobody asked for, and those whose values were not understood.
    pub(crate) fn finish(self) -> (Vec<String>, Vec<&'static str>) {
        let unknown = self.rest.into_iter().map(|(key, _)| key).collect();
        (unknown, self.odd)
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        let value = self.rest.shift_remove(field)?;
        (!value.is_null()).then_some(value)
    }
}

/// Text from a file on one line of bearable length.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = || text.chars().map(|c| if c.is_control() { ' ' } else { c });
    match line().nth(LONGEST) {
        Some(_) => line().take(LONGEST).chain(['…']).collect(),
        None => line().collect(),
    }
}

/// A value that a key can have.
pub(crate) trait FieldValue: Sized {
    /// What it must be, for messages.
    const EXPECTED: &'static str;

    /// None of a value that it cannot be.
    fn from_value(value: Value) -> Option<Self>;
}

macro_rules! field_values {
    ($( $type:ty: $expected:literal, )*) => {
        $(
            impl FieldValue for $type {
                const EXPECTED: &'static str = $expected;

                fn from_value(value: Value) -> Option<Self> {
                    serde_json::from_value(value).ok()
                }
            }
        )*
    };
}

field_values! {
    usize: "a whole number, 0 or more",
    f64: "a number",
    bool: "true or false",
    String: "a string",
    Vec<String>: "a list of strings",
    Vec<f64>: "a list of numbers",
    Map<String, Value>: "an object",
    Value: "any value",
    TargetModules: "a list of module names or a regular expression",
    PromptTuningInit: "RANDOM, TEXT or SAMPLE_VOCAB",
    EncoderReparameterizationType: "MLP or LSTM",
    PrefixInit: "\"zero\"",
    ProblemType: "single_label_classification, multi_label_classification or regression",
}

impl FieldValue for Checksum {
    const EXPECTED: &'static str = "32 hexadecimal digits";

    fn from_value(value: Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl<T: FieldValue> FieldValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: Value) -> Option<Self> {
        T::from_value(value).map(Some)
    }
}

/// Declares the fields of a `peft_type`: a struct that is read and written under the names of its fields, with
/// PEFT's default beside each. `with` names a group of fields that it shares with other types. A trained adapter
/// loads whatever its fields say, but for those marked `[strict]`, without which its tensors mean nothing.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(with $shared:ident: $shared_type:ident)? {
            $( $(#[$field_meta:meta])* $([$strict:ident])? pub $field:ident: $type:ty = $default:expr, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub struct $name {
            $(
                /// The fields that it shares with other methods.
                #[serde(flatten)]
                pub $shared: $shared_type,
            )?
            $(
                $(#[$field_meta])*
                #[doc = concat!("\n\nPEFT's default: `", stringify!($default), "`.")]
                pub $field: $type,
            )*
        }

        impl $name {
            fn defaults($( $shared: $shared_type )?) -> Self {
                Self { $( $shared, )? $( $field: $default, )* }
            }

            pub(crate) fn read(
                fields: &mut $crate::fields::Fields<'_>,
            ) -> Result<Self, $crate::Error> {
                let default = Self::defaults($( $shared_type::read(fields)? )?);
                Ok(Self {
                    $( $shared: default.$shared, )?
                    $( $field: $crate::fields::read_field!(
                        fields, stringify!($field), default.$field $(, $strict)?
                    ), )*
                })
            }
        }
    };
}

macro_rules! read_field {
    ($fields:ident, $name:expr, $default:expr) => {
        $fields.lenient($name, $default)
    };
    ($fields:ident, $name:expr, $default:expr, strict) => {
        $fields.strict($name, $default)?
    };
}

pub(crate) use {fields, read_field};
