//! Options that a run.toml can set, each declared once.
//!
//! [`options!`](crate::options!) turns one declaration into the struct that serde reads, its defaults, and the
//! descriptions from which hints for unknown keys, `train --help` and the tables in `docs/` are made.

use std::path::PathBuf;

use serde::Serialize;

use crate::{LayerModule, LayerRange};

/// What there is to say about an option. All texts are Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionDoc {
    /// Its key.
    pub name: &'static str,
    /// Its type, in words.
    pub kind: String,
    /// Its default: TOML between backticks, or words.
    pub default: String,
    /// What it does.
    pub help: String,
    /// The names that it accepts, where it accepts only some.
    pub choices: Vec<Choice>,
    /// Where the default comes from: a paper or a program. May be empty.
    pub source: &'static str,
}

/// A name that an option accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// As it is written in run.toml.
    pub name: &'static str,
    /// What it stands for.
    pub help: String,
}

impl Choice {
    /// A choice with the lines of its doc comment.
    #[must_use]
    pub fn new(name: &'static str, doc: &[&str]) -> Self {
        let help = first_paragraph(doc);
        Self { name, help }
    }
}

impl OptionDoc {
    /// Describes an option by the lines of its doc comment. `words` is shown in place of the default's TOML
    /// unless it is empty.
    ///
    /// # Panics
    /// If `default` is no value of TOML.
    #[must_use]
    pub fn new(
        name: &'static str,
        doc: &[&str],
        (kind, choices): (String, Vec<Choice>),
        default: &impl Serialize,
        [words, source]: [&'static str; 2],
    ) -> Self {
        // JSON and TOML write numbers, texts and lists of them alike.
        let toml = serde_json::to_string(default).expect("a default is a plain value");
        let default = match (words, toml.as_str()) {
            ("", "null") => "none".to_owned(),
            ("", toml) => format!("`{toml}`"),
            (words, _) => words.to_owned(),
        };
        Self {
            name,
            kind,
            default,
            help: first_paragraph(doc),
            choices,
            source,
        }
    }
}

/// The lines of a doc comment up to an empty one, joined.
fn first_paragraph(doc: &[&str]) -> String {
    let lines = doc.iter().map(|line| line.trim());
    let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// A type that an option can have.
pub trait OptionType {
    /// The type in words.
    fn kind() -> String;

    /// The names that it accepts, where it accepts only some.
    fn choices() -> Vec<Choice> {
        Vec::new()
    }
}

macro_rules! kinds {
    ($($ty:ty => $kind:literal),* $(,)?) => {
        $(impl OptionType for $ty {
            fn kind() -> String {
                $kind.into()
            }
        })*
    };
}

kinds! {
    usize => "whole number",
    u64 => "whole number",
    i64 => "whole number",
    f64 => "number",
    bool => "`true` or `false`",
    String => "text",
    PathBuf => "path",
    LayerRange => "`[first, last]`",
}

impl OptionType for LayerModule {
    fn kind() -> String {
        one_of(Self::ALL.map(Self::name))
    }
}

impl<T: OptionType> OptionType for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn choices() -> Vec<Choice> {
        T::choices()
    }
}

impl<T: OptionType> OptionType for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }

    fn choices() -> Vec<Choice> {
        T::choices()
    }
}

/// Names as TOML has them: `"a"`, `"b"` or `"c"`.
#[must_use]
pub fn one_of(names: impl IntoIterator<Item = &'static str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|n| format!("`\"{n}\"`")).collect();
    let last = quoted.pop().unwrap_or_default();
    match quoted.is_empty() {
        true => last,
        false => format!("{} or {last}", quoted.join(", ")),
    }
}

/// Declares the options of a method or of a section of run.toml, or the names that one option accepts.
///
/// A field reads `pub name: Type = default;`. The first paragraph of its doc comment is its help. Behind the
/// default may stand, in this order, `shown as "…"` (words in place of the default's TOML), `kind "…"` (the type
/// in words, for a type that is no [`OptionType`]) and `source "…"` (where the default comes from). Serde fills
/// in missing keys and refuses unknown ones; `options()` describes the fields.
///
/// A variant reads `Name = "text"`, or `Name = "text" | "alias"` with other spellings that are read too.
#[macro_export]
macro_rules! options {
    (@type $ty:ty) => {
        (<$ty as $crate::OptionType>::kind(), <$ty as $crate::OptionType>::choices())
    };
    (@type $ty:ty, $kind:literal) => {
        ($kind.to_owned(), Vec::new())
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                pub $field:ident : $ty:ty = $default:expr
                    $(, shown as $words:literal)?
                    $(, kind $kind:literal)?
                    $(, source $source:literal)?
            ;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            /// What there is to say about each option, in the order in which they are declared.
            #[must_use]
            pub fn options() -> Vec<$crate::OptionDoc> {
                let _default = Self::default();
                vec![$(
                    $crate::OptionDoc::new(
                        // A field may be called `r#type`.
                        stringify!($field).trim_start_matches("r#"),
                        &[$($doc),+],
                        $crate::options!(@type $ty $(, $kind)?),
                        &_default.$field,
                        [concat!($($words)?), concat!($($source)?)],
                    ),
                )*]
            }
        }
    };
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal $(| $alias:literal)* ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $text $(, alias = $alias)*)]
                $variant,
            )*
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// As it is written in run.toml.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )*
                }
            }
        }

        impl $crate::OptionType for $name {
            fn kind() -> String {
                $crate::one_of(Self::ALL.map(Self::name))
            }

            fn choices() -> Vec<$crate::Choice> {
                vec![$( $crate::Choice::new($text, &[$($doc),+]) ),*]
            }
        }
    };
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "options are public wherever they are used")]
mod tests {
    options! {
        /// A flavour.
        pub enum Flavour {
            /// Sweet.
            Sweet = "sweet",
            /// Not sweet.
            Salty = "salty" | "salted",
        }
    }

    options! {
        /// Options of a dish.
        pub struct Dish {
            /// What it tastes of,
            /// in a word.
            ///
            /// More about it.
            pub flavour: Option<Flavour> = Some(Flavour::Sweet), source "a cook";
            /// How much.
            pub weight: f64 = 1e-8;
            /// For how many.
            pub guests: Option<usize> = None, shown as "the table's";
            /// What it is called.
            pub name: Option<Vec<String>> = None, kind "a list";
        }
    }

    #[test]
    fn a_declaration_describes_its_options() {
        let [flavour, weight, guests, name] = Dish::options().try_into().unwrap();
        assert_eq!(flavour.name, "flavour");
        assert_eq!(flavour.kind, "`\"sweet\"` or `\"salty\"`");
        assert_eq!(flavour.default, "`\"sweet\"`");
        assert_eq!(flavour.help, "What it tastes of, in a word.");
        assert_eq!(flavour.source, "a cook");
        assert_eq!(flavour.choices[1].name, "salty");
        assert_eq!(flavour.choices[1].help, "Not sweet.");
        assert_eq!(
            (&*weight.kind, &*weight.default, weight.source),
            ("number", "`1e-8`", "")
        );
        assert_eq!(
            (&*guests.kind, &*guests.default),
            ("whole number", "the table's")
        );
        assert_eq!((&*name.kind, &*name.default), ("a list", "none"));
    }

    #[test]
    fn aliases_are_read_and_unknown_keys_refused() {
        let dish: Dish = serde_json::from_str(r#"{"flavour": "salted"}"#).unwrap();
        assert_eq!(dish.flavour, Some(Flavour::Salty));
        assert_eq!(dish.weight, 1e-8);
        assert!(serde_json::from_str::<Dish>(r#"{"flavor": "sweet"}"#).is_err());
    }
}
