//! One macro: a section of `run.toml` as a struct whose defaults stand beside its fields.

/// Declares a section: a struct, its `Default`, its serde traits and the list of its keys.
///
/// Each field reads `pub name: Type = default`. Missing keys take the default and unknown ones are
/// refused; `FIELDS` lets the loader name the nearest known key.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $ty:ty = $default:expr ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// The keys of this section, in the order in which they are declared.
            pub const FIELDS: &'static [&'static str] = &[$( stringify!($field) ),*];
        }
    };
}

pub(crate) use section;
