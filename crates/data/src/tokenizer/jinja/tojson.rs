//! JSON as Python's `json.dumps` writes it.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::limits::{MAX_NUMBER, Output, too_large};
use super::size;

/// Writes JSON with the spaces of Python's `json.dumps` and without the HTML escapes of minijinja's own
/// filter, so that a model sees exactly the bytes that it was trained on.
pub(super) fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|width| width > MAX_NUMBER) {
        return Err(too_large("tojson"));
    }
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    size::check("tojson", &value)?;
    let mut out = Output::default();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonSpacing)),
    }
    .map_err(|error| {
        if out.is_full() {
            return too_large("tojson");
        }
        Error::new(ErrorKind::InvalidOperation, "not representable as JSON").with_source(error)
    })?;
    let json = out.into_text()?;
    if ensure_ascii != Some(true) {
        return Ok(json);
    }
    let mut units = [0; 2];
    Ok(json
        .chars()
        .map(|character| match character.is_ascii() {
            true => character.to_string(),
            false => character
                .encode_utf16(&mut units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect(),
        })
        .collect())
}

/// Puts a space after each comma and colon, as `json.dumps` does.
struct PythonSpacing;

impl Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
