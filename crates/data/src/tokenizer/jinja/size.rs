//! The sizes of a template's values, and the time that it takes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::limits::{MAX_BYTES, MAX_ITEMS, too_large};

/// The longest text that a value may hold, in bytes, where its template has few operators.
const MAX_TEXT: usize = 16 << 20;
/// The most bytes that the operators of one tag make of such values.
const MAX_TAG: usize = 256 << 20;
/// The deepest that values may nest.
const MAX_DEPTH: usize = 200;
/// The largest number and the longest text that may be repeated by a product.
const MAX_FACTOR: i64 = 100_000;
const MAX_REPEATED: usize = 1000;
/// The time that one rendering may take. Those of published templates take milliseconds.
const TIME: Duration = Duration::from_secs(8);

/// What the rendering on this thread may still do.
#[derive(Clone, Copy)]
struct Allowance {
    until: Option<Instant>,
    max_text: usize,
    /// The bytes that were printed, also into variables.
    printed: usize,
}

thread_local! {
    static ALLOWANCE: Cell<Allowance> = const {
        Cell::new(Allowance { until: None, max_text: MAX_TEXT, printed: 0 })
    };
}

/// Begins a rendering of a template with so many operators in a tag.
pub(in super::super) fn begin(operators: usize) {
    ALLOWANCE.set(Allowance {
        until: Some(Instant::now() + TIME),
        max_text: MAX_TEXT.min(MAX_TAG / (operators + 1)),
        printed: 0,
    });
}

/// Adds the filters that [`guard`](super::guard) puts into templates.
pub(super) fn set(environment: &mut Environment<'static>) {
    environment.add_filter("bounded", |value: Value| {
        match is_namespace(&value) {
            true => check_time()?,
            false => check("set", &value)?,
        }
        Ok::<_, Error>(value)
    });
    environment.add_filter("bounded_attribute", |value: Value| {
        match is_namespace(&value) {
            true => Err(nested_namespace()),
            false => check("set", &value).map(|()| value),
        }
    });
    environment.add_function("namespace", |attributes: Option<Value>| {
        if let Some(attributes) = &attributes {
            check("namespace", attributes)?;
        }
        minijinja::functions::namespace(attributes)
    });
    environment.add_filter("factor", |value: Value| {
        let is_large = match value.kind() {
            ValueKind::Number => value.as_i64().is_some_and(|number| number > MAX_FACTOR),
            ValueKind::String => value.as_str().is_some_and(|text| text.len() > MAX_REPEATED),
            ValueKind::Seq | ValueKind::Iterable => true,
            _ => false,
        };
        match is_large {
            true => Err(too_large("*")),
            false => Ok(value),
        }
    });
}

/// Takes note of a text that is printed.
pub(super) fn print(bytes: usize) -> Result<(), Error> {
    let mut allowance = ALLOWANCE.get();
    allowance.printed += bytes;
    ALLOWANCE.set(allowance);
    match allowance.printed > 2 * MAX_BYTES {
        true => Err(Error::new(
            ErrorKind::InvalidOperation,
            "the text is too long",
        )),
        false => Ok(()),
    }
}

/// Checks the size of a value, and whether there is time left.
pub(super) fn check(name: &str, value: &Value) -> Result<(), Error> {
    check_time()?;
    let allowance = ALLOWANCE.get();
    let (mut items, mut bytes) = (0, 0);
    // A stack of one's own: nested values are what is to be found here.
    let mut rest = vec![(value.clone(), 0)];
    while let Some((value, depth)) = rest.pop() {
        if let Some(text) = value.as_str() {
            bytes += text.len();
        }
        items += 1;
        if items + rest.len() > MAX_ITEMS || bytes > allowance.max_text || depth > MAX_DEPTH {
            return Err(too_large(name));
        }
        if depth > 0 && is_namespace(&value) {
            return Err(nested_namespace());
        }
        if !matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
        ) {
            continue;
        }
        let is_map = value.kind() == ValueKind::Map;
        for item in value.try_iter()? {
            if is_map {
                rest.push((value.get_item(&item)?, depth + 1));
            }
            rest.push((item, depth + 1));
            if items + rest.len() > MAX_ITEMS {
                return Err(too_large(name));
            }
        }
    }
    Ok(())
}

/// Checks whether there is time left.
fn check_time() -> Result<(), Error> {
    let until = ALLOWANCE.get().until;
    match until.is_some_and(|until| Instant::now() > until) {
        true => Err(Error::new(ErrorKind::InvalidOperation, "it takes too long")),
        false => Ok(()),
    }
}

/// The error of a value that could come to contain itself.
fn nested_namespace() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "a namespace within a list, an object or a namespace is not supported",
    )
}

/// Whether a value is a namespace, whose attributes change.
fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Namespace"))
}
