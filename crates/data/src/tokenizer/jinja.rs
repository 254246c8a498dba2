//! The Jinja environment that chat templates are written against.
//!
//! transformers renders them in a Jinja2 environment with `trim_blocks` and `lstrip_blocks`, loop
//! controls, its own `tojson`, and the functions `raise_exception` and `strftime_now`
//! (`transformers/utils/chat_template_utils.py`). Templates rely on each of these.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Makes an environment that behaves like the one of transformers and has no templates yet.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tojson);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    // transformers returns local time. This returns UTC, because std has no time zones.
    environment.add_function("strftime_now", |format: String| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        strftime(&format, now)
    });
    environment
}

/// Writes JSON with the spaces of Python's `json.dumps` and without the HTML escapes of minijinja's own
/// filter, so that a model sees exactly the bytes that it was trained on.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width);
            let pretty = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonSpacing)),
    }
    .map_err(|error| {
        Error::new(ErrorKind::InvalidOperation, "not representable as JSON").with_source(error)
    })?;
    let json = String::from_utf8(out)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "not UTF-8").with_source(error))?;
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

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
// 1970-01-01 was a Thursday.
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// Formats a time like C's `strftime` in its English locale. It knows the directives that templates use, and
/// copies unknown ones.
fn strftime(format: &str, unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let directive = rest.next();
        // In glibc, `%-d` is the number without its leading zero.
        let (bare, directive) = if directive == Some('-') {
            (true, rest.next())
        } else {
            (false, directive)
        };
        let number = |value: u64| {
            if bare {
                value.to_string()
            } else {
                format!("{value:02}")
            }
        };
        match directive {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&number(year % 100)),
            Some('m') => out.push_str(&number(month)),
            Some('d') => out.push_str(&number(day)),
            Some('H') => out.push_str(&number(hour)),
            Some('I') => out.push_str(&number((hour + 11) % 12 + 1)),
            Some('M') => out.push_str(&number(minute)),
            Some('S') => out.push_str(&number(second)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(unknown) => out.extend(['%', unknown]),
            None => out.push('%'),
        }
    }
    out
}

/// Returns year, month (1–12) and day (1–31) of a day that is counted from 1970-01-01.
fn civil_date(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn render(source: &str) -> String {
        let value = serde_json::json!({"name": "f<é>", "args": [1, 2.0, true, null]});
        environment()
            .render_str(source, context! { value })
            .expect("the template is good")
    }

    #[test]
    fn tojson_writes_what_python_writes() {
        assert_eq!(
            render("{{ value | tojson }}"),
            r#"{"name": "f<é>", "args": [1, 2.0, true, null]}"#
        );
        assert_eq!(
            render("{{ value.name | tojson(ensure_ascii=true) }}"),
            r#""f<\u00e9>""#
        );
        assert_eq!(
            render("{{ value.args | tojson(indent=2) }}"),
            "[\n  1,\n  2.0,\n  true,\n  null\n]"
        );
    }

    #[test]
    fn blocks_leave_no_blank_lines_behind() {
        assert_eq!(
            render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"),
            "a\nb\nc"
        );
    }

    #[test]
    fn python_methods_and_loop_controls_work() {
        assert_eq!(
            render("{{ ' a</t>b '.split('</t>')[-1].strip().upper() }}"),
            "B"
        );
        assert_eq!(
            render(
                "{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
            ),
            "01"
        );
    }

    #[test]
    fn raise_exception_carries_its_message() {
        let error = environment().render_str("{{ raise_exception('no such role') }}", context! {});
        assert!(
            error
                .expect_err("the template raises")
                .to_string()
                .contains("no such role")
        );
    }

    #[test]
    fn strftime_knows_leap_years_and_the_directives_templates_use() {
        // 2024-02-29T13:05:09Z, a Thursday.
        let stamp = 1_709_211_909;
        assert_eq!(strftime("%d %b %Y", stamp), "29 Feb 2024");
        assert_eq!(
            strftime("%A %B %-d, %I:%M %p %F %T %y%%", stamp),
            "Thursday February 29, 01:05 PM 2024-02-29 13:05:09 24%"
        );
        assert_eq!(strftime("%Y-%m-%d %a", 0), "1970-01-01 Thu");
    }
}
