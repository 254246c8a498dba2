//! A JSON object that is read key by key, so that every error names its key and no key is overlooked; and the
//! macro that declares the keys of a method.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

/// The keys of a configuration that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    rest: Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn parse(json: &[u8], path: &'a Path) -> Result<Self, Error> {
        let rest = serde_json::from_slice(json).map_err(|source| Error::Json {
            path: path.into(),
            source,
        })?;
        Ok(Self { path, rest })
    }

    /// The value of a key. PEFT writes null for what is unset, so null and absent are the same.
    pub(crate) fn optional<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, Error> {
        match self.rest.shift_remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value)
                    .map(Some)
                    .map_err(|source| Error::InvalidField {
                        path: self.path.into(),
                        field,
                        source,
                    })
            }
        }
    }

    pub(crate) fn or<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        default: T,
    ) -> Result<T, Error> {
        Ok(self.optional(field)?.unwrap_or(default))
    }

    pub(crate) fn required<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
    ) -> Result<T, Error> {
        self.optional(field)?.ok_or_else(|| Error::MissingField {
            path: self.path.into(),
            field,
        })
    }

    pub(crate) fn unsupported(&self, field: &'static str, found: &str, supported: &str) -> Error {
        Error::Unsupported {
            path: self.path.into(),
            field,
            found: found.into(),
            supported: supported.into(),
        }
    }

    /// The keys nobody asked for.
    pub(crate) fn unread(self) -> Vec<String> {
        self.rest.into_iter().map(|(key, _)| key).collect()
    }
}

/// Declares the fields of a `peft_type`: a struct that is read and written under the names of its fields, with
/// PEFT's default beside each. `with` names a group of fields that it shares with other types.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(with $shared:ident: $shared_type:ident)? {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty = $default:expr, )*
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
                    $( $field: fields.or(stringify!($field), default.$field)?, )*
                })
            }
        }
    };
}

pub(crate) use fields;
