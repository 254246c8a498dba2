//! Lists and objects as Python prints them.

use minijinja::value::ValueKind;
use minijinja::{Error, Output, State, Value, escape_formatter};

use super::size;

/// Writes what stands between `{{` and `}}`.
pub(super) fn write(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    if is_container(value) {
        size::check("{{ }}", value)?;
        let text = repr(value)?;
        size::print(text.len())?;
        return out.write_str(&text).map_err(Error::from);
    }
    size::print(value.as_str().map_or(1, str::len))?;
    escape_formatter(out, state, value)
}

/// The filter `string`.
pub(super) fn string(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => Ok(value),
        _ if is_container(&value) => Ok(Value::from(repr(&value)?)),
        _ => Ok(Value::from(value.to_string())),
    }
}

/// Whether a value is a list or an object. A sum or a slice of lists is an iterable to the engine.
fn is_container(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
    )
}

/// Python's `repr` of a value.
fn repr(value: &Value) -> Result<String, Error> {
    let items = || value.try_iter();
    Ok(match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Result<Vec<String>, Error> = items()?.map(|item| repr(&item)).collect();
            format!("[{}]", items?.join(", "))
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let item = value.get_item(&key)?;
                Ok(format!("{}: {}", repr(&key)?, repr(&item)?))
            };
            let pairs: Result<Vec<String>, Error> = items()?.map(pair).collect();
            format!("{{{}}}", pairs?.join(", "))
        }
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        _ => value.to_string(),
    })
}

fn quoted(text: &str) -> String {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other if other == quote => out.extend(['\\', quote]),
            other if other.is_ascii_control() => {
                out.push_str(&format!("\\x{:02x}", u32::from(other)));
            }
            other => out.push(other),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use minijinja::context;
    use serde_json::json;

    use super::super::environment;

    #[test]
    fn lists_and_objects_are_written_as_python_writes_them() {
        let value = json!({"name": "it's", "args": [1, 2.0, true, null, "a\n\"é\"\u{7}"]});
        let expected = r#"{'name': "it's", 'args': [1, 2.0, True, None, 'a\n"é"\x07']}"#;
        for source in ["{{ value }}", "{{ value | string }}"] {
            let rendered = environment(0).render_str(source, context! { value });
            assert_eq!(rendered.expect("a good template"), expected);
        }
        let rendered = environment(0).render_str("{{ value.name }}", context! { value });
        assert_eq!(rendered.expect("a good template"), "it's");
    }
}
