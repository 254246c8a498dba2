//! Keys that requests are let in with.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// Keys of a file: one a line. Empty lines and lines that begin with `#` are left out.
#[derive(Clone)]
pub struct Keys(Vec<String>);

impl Keys {
    /// Reads the text of such a file.
    ///
    /// # Errors
    /// It has no key, or one that cannot stand in a header: only printable ASCII without spaces can. The number of the
    /// line is said, and nothing of the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "line {number}: a key has only printable ASCII characters, and no spaces"
                ));
            }
            keys.push(line.to_owned());
        }
        match keys.is_empty() {
            true => Err("there is no key in it; expected one a line".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// Whether `given` is one of them. How long that takes says nothing but the lengths.
    pub(crate) fn has(&self, given: &[u8]) -> bool {
        let compare = |found: Choice, key: &String| found | key.as_bytes().ct_eq(given);
        self.0.iter().fold(Choice::from(0), compare).into()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_lines_of_a_file_without_comments() {
        let keys = Keys::parse("# ours\nabc\r\n\n  def  \n#ghi\n").expect("two keys");
        for (given, expected) in [
            ("abc", true),
            ("def", true),
            ("ab", false),
            ("abcd", false),
            ("abd", false),
            ("#ghi", false),
            ("", false),
        ] {
            assert_eq!(keys.has(given.as_bytes()), expected, "{given}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }

    #[test]
    fn a_file_without_keys_is_refused_and_a_bad_line_is_named_by_its_number() {
        assert!(
            Keys::parse("# none\n")
                .expect_err("no key")
                .contains("no key")
        );
        let error = Keys::parse("abc\nse cret\n").expect_err("a space");
        assert!(error.starts_with("line 2:"), "{error}");
        assert!(!error.contains("cret"), "{error}");
    }
}
