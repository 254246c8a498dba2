//! The keys of a JSON object, read one by one, so that messages name them in plain words.

use serde_json::{Map, Value};

/// An object. A key that is `null` counts as absent, as in transformers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a>(pub(crate) &'a Map<String, Value>);

/// The longest value that a message shows, in characters.
const SHOWN: usize = 40;

impl<'a> Keys<'a> {
    /// The value of a key.
    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A whole number from 0 on.
    ///
    /// # Errors
    /// A value of another kind.
    pub(crate) fn whole(self, key: &str) -> Result<Option<usize>, String> {
        let whole = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        self.read(key, whole, "a whole number from 0 on")
    }

    /// A whole number from 1 on.
    ///
    /// # Errors
    /// A value of another kind, 0, or none.
    pub(crate) fn size(self, key: &str) -> Result<usize, String> {
        match self.whole(key)? {
            Some(0) => Err(format!("`{key}` is 0; expected at least 1")),
            Some(size) => Ok(size),
            None => Err(format!("it has no `{key}`")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// A value of another kind.
    pub(crate) fn number(self, key: &str) -> Result<Option<f64>, String> {
        self.read(key, Value::as_f64, "a number")
    }

    /// A switch, off where the key is absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub(crate) fn flag(self, key: &str) -> Result<bool, String> {
        let flag = self.read(key, Value::as_bool, "true or false")?;
        Ok(flag.unwrap_or(false))
    }

    /// A text.
    ///
    /// # Errors
    /// A value of another kind.
    pub(crate) fn text(self, key: &str) -> Result<Option<&'a str>, String> {
        self.read(key, Value::as_str, "a text")
    }

    /// An object. As in Python, `{}`, `[]`, `""`, `0` and `false` count as absent.
    ///
    /// # Errors
    /// A value of another kind.
    pub(crate) fn object(self, key: &str) -> Result<Option<Self>, String> {
        match self.get(key).is_some_and(is_truthy) {
            true => self.read(key, |value| value.as_object().map(Keys), "an object"),
            false => Ok(None),
        }
    }

    fn read<T>(
        self,
        key: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, String> {
        let read = |value| read(value).ok_or_else(|| unexpected(key, value, expected));
        self.get(key).map(read).transpose()
    }
}

/// What is wrong with a key's value.
pub(crate) fn unexpected(key: &str, value: &Value, expected: &str) -> String {
    format!("`{key}` is {}; expected {expected}", shown(value))
}

/// A value for a message: one line, and not a long one.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

/// What Python takes for true.
pub(crate) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
