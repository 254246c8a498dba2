//! Bounds on what a template can make.
//!
//! Filters and methods whose results are far larger than what they are given are bounded here, by the sizes of their
//! arguments. Operators are bounded by [`guard`](super::guard).

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::LazyLock;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::size;

/// The most items of a list, or characters of a text, that a filter takes.
pub(super) const MAX_ITEMS: usize = 1_000_000;
/// The largest width or count that a filter takes.
pub(super) const MAX_NUMBER: usize = 10_000;
/// The most bytes that a template renders, and that a replacement makes.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The engine's filters that go through a list. Those that call others by name are below.
const FILTERS: [&str; 31] = [
    "batch",
    "capitalize",
    "chain",
    "e",
    "escape",
    "lower",
    "title",
    "trim",
    "upper",
    "dictsort",
    "first",
    "format",
    "groupby",
    "indent",
    "items",
    "join",
    "last",
    "lines",
    "list",
    "max",
    "min",
    "pprint",
    "replace",
    "reverse",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "unique",
    "zip",
];

/// Filters whose numbers are widths and counts.
const SIZED: [&str; 3] = ["batch", "indent", "slice"];

/// Where the engine's own filters are called.
static UNLIMITED: LazyLock<Environment<'static>> = LazyLock::new(super::unlimited_environment);

/// Puts bounds on the filters and methods of an environment.
pub(super) fn set(environment: &mut Environment<'static>) {
    for name in FILTERS {
        environment.add_filter(name, move |args: Rest<Value>| {
            check(name, &args)?;
            UNLIMITED.empty_state().apply_filter(name, &args)
        });
    }
    environment.add_filter("map", |state: &State, value: Value, args: Rest<Value>| {
        check("map", std::slice::from_ref(&value))?;
        filters::map(state, value, args)
    });
    type Test = Option<String>;
    environment.add_filter(
        "select",
        |state: &State, value: Value, test: Test, args: Rest<Value>| {
            size::check("select", &value)?;
            filters::select(state, value, test.map(Cow::Owned), args)
        },
    );
    environment.add_filter(
        "reject",
        |state: &State, value: Value, test: Test, args: Rest<Value>| {
            size::check("reject", &value)?;
            filters::reject(state, value, test.map(Cow::Owned), args)
        },
    );
    environment.add_filter(
        "selectattr",
        |state: &State, value: Value, key: String, test: Test, args: Rest<Value>| {
            size::check("selectattr", &value)?;
            filters::selectattr(state, value, Cow::Owned(key), test.map(Cow::Owned), args)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &State, value: Value, key: String, test: Test, args: Rest<Value>| {
            size::check("rejectattr", &value)?;
            filters::rejectattr(state, value, Cow::Owned(key), test.map(Cow::Owned), args)
        },
    );
    environment.set_unknown_method_callback(|state, value, method, args| {
        let args_of = || [std::slice::from_ref(value), args].concat();
        if matches!(
            method,
            "format" | "join" | "replace" | "rsplit" | "split" | "splitlines"
        ) {
            check(method, &args_of())?;
        } else {
            for arg in args_of() {
                size::check(method, &arg)?;
            }
        }
        unknown_method_callback(state, value, method, args)
    });
}

/// Checks the arguments of a filter or method.
fn check(name: &str, args: &[Value]) -> Result<(), Error> {
    let is_sized = SIZED.contains(&name);
    let mut width = 0;
    for arg in args {
        size::check(name, arg)?;
        let number = arg.as_usize().filter(|_| arg.kind() == ValueKind::Number);
        width = width.max(number.unwrap_or(0));
        let is_wide = is_sized && number.is_some_and(|number| number > MAX_NUMBER);
        if is_wide || arg.len().is_some_and(|len| len > MAX_ITEMS) {
            return Err(too_large(name));
        }
        // Its keyword arguments are an object of names and values.
        if is_sized && arg.is_kwargs() {
            let mut numbers = arg.try_iter()?.filter_map(|key| arg.get_item(&key).ok());
            if numbers.any(|number| {
                let number = number.as_usize().unwrap_or(0);
                width = width.max(number);
                number > MAX_NUMBER
            }) {
                return Err(too_large(name));
            }
        }
    }
    let bytes = |index: usize| args.get(index).and_then(Value::as_str).map_or(0, str::len);
    let made = match name {
        "replace" => bytes(0).max(1).saturating_mul(bytes(2)),
        // The separator is the argument of the filter, and the value of the method.
        "join" => {
            let items = args.iter().filter(|arg| arg.as_str().is_none());
            let items = items.filter_map(Value::len).max().unwrap_or(0);
            items.saturating_mul(bytes(0).max(bytes(1)))
        }
        "indent" => {
            let text = args.first().and_then(Value::as_str).unwrap_or_default();
            text.lines().count().saturating_mul(width)
        }
        "format" => widths(args),
        _ => 0,
    };
    match made > MAX_BYTES {
        true => Err(too_large(name)),
        false => Ok(()),
    }
}

/// The sum of the widths in a format.
fn widths(args: &[Value]) -> usize {
    let format = args.first().and_then(Value::as_str).unwrap_or_default();
    let numbers = format.split(|character: char| !character.is_ascii_digit());
    let numbers = numbers.map(|digits| match digits.len() {
        0 => 0,
        1..=4 => digits.parse().unwrap_or(usize::MAX),
        _ => usize::MAX,
    });
    numbers.fold(0, usize::saturating_add)
}

/// The error of a result that would be too large.
pub(super) fn too_large(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the result of `{name}` is too large"),
    )
}

/// The text that a template renders, up to a length.
#[derive(Debug, Default)]
pub(in super::super) struct Output {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Output {
    /// Whether there was more than has room.
    pub(in super::super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The text.
    pub(in super::super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, "it renders no text").with_source(error)
        })
    }
}

impl Write for Output {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + part.len() > MAX_BYTES;
        if self.is_full {
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
