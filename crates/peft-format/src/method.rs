//! The table of the `peft_type`s that are known here.

use burn_peft::LayerModule;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;
use crate::fields::Fields;
use crate::options::{BeftOptions, PTuningOptions, PrefixTuningOptions, PromptTuningOptions};
use crate::peft_type::{Landing, PeftType};
use crate::virtual_tokens::VirtualTokenOptions;

/// Declares [`MethodOptions`]: one row a `peft_type`, with its fields and PEFT's name of it.
macro_rules! peft_types {
    ($( $(#[$meta:meta])* $variant:ident($options:ident) = $peft_type:literal, )*) => {
        /// PEFT's `peft_type`, with the fields of that method.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum MethodOptions {
            $( $(#[$meta])* $variant($options), )*
        }

        impl MethodOptions {
            /// The values of `peft_type` that are known here.
            pub const PEFT_TYPES: &'static [&'static str] = &[$( $peft_type ),*];

            /// PEFT's name of the method.
            pub fn peft_type(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => $peft_type, )*
                }
            }

            fn options(&self) -> &dyn PeftType {
                match self {
                    $( Self::$variant(options) => options, )*
                }
            }

            pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
                let peft_type: String = fields.required("peft_type")?;
                match peft_type.as_str() {
                    $( $peft_type => Ok(Self::$variant($options::read(fields)?)), )*
                    other => {
                        let supported = Self::PEFT_TYPES.join(", ");
                        Err(fields.unsupported("peft_type", other, &supported))
                    }
                }
            }
        }
    };
}

peft_types! {
    /// `PROMPT_TUNING`.
    PromptTuning(PromptTuningOptions) = "PROMPT_TUNING",
    /// `P_TUNING`.
    PTuning(PTuningOptions) = "P_TUNING",
    /// `PREFIX_TUNING`.
    PrefixTuning(PrefixTuningOptions) = "PREFIX_TUNING",
    /// `BEFT`.
    Beft(BeftOptions) = "BEFT",
}

impl MethodOptions {
    /// This project's name of the method, as on the command line.
    pub fn name(&self) -> &'static str {
        self.options().name()
    }

    /// Where what the method trains takes effect.
    pub fn landing(&self) -> Landing<'_> {
        self.options().landing()
    }

    /// The virtual tokens, where the method has them.
    pub fn virtual_tokens(&self) -> Option<&VirtualTokenOptions> {
        self.landing().virtual_tokens()
    }

    /// The class of the module that PEFT holds the parameters in.
    pub(crate) fn class(&self) -> &'static str {
        self.options().class()
    }

    /// A field that is not set and without which PEFT does not load a folder.
    pub(crate) fn missing_field(&self) -> Option<&'static str> {
        self.options().missing_field()
    }

    /// Modules at which PEFT has no bias, so that it does not load the folder.
    pub(crate) fn beyond_peft(&self) -> Vec<LayerModule> {
        self.options().beyond_peft()
    }

    /// The method's own keys.
    pub(crate) fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("plain structs always become JSON objects, not {other:?}"),
        }
    }
}
