//! The Jinja environment that chat templates are written against.
//!
//! transformers renders them in a Jinja2 environment with `trim_blocks` and `lstrip_blocks`, loop
//! controls, its own `tojson`, and the functions `raise_exception` and `strftime_now`
//! (`transformers/utils/chat_template_utils.py`). Templates rely on each of these.
//!
//! A template is a program of whoever made the model, so it gets bounds: [`limits`] and [`size`] for sizes, and fuel for
//! the number of steps.

mod guard;
mod limits;
mod repr;
mod size;
mod strftime;
mod tojson;

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

pub(super) use guard::guard;
pub(super) use limits::Output;
pub(super) use size::begin;
use strftime::strftime;
use tojson::tojson;

/// The instructions that one rendering may take. A turn takes about a hundred.
const FUEL: u64 = 5_000_000;
/// The most bytes of a template's own text that they may write.
const MAX_WRITTEN: u64 = 512 << 20;

/// Makes an environment that behaves like the one of transformers and has no templates yet. Its templates have texts
/// of up to so many bytes that they may write many times.
pub(super) fn environment(repeated_text: usize) -> Environment<'static> {
    let mut environment = unlimited_environment();
    environment.set_fuel(Some(FUEL.min(MAX_WRITTEN / (repeated_text as u64 + 1))));
    limits::set(&mut environment);
    size::set(&mut environment);
    environment
}

/// The same without bounds.
fn unlimited_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(repr::write);
    environment.add_filter("string", repr::string);
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

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn render(source: &str) -> String {
        let value = serde_json::json!({"name": "f<é>", "args": [1, 2.0, true, null]});
        environment(0)
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
        let error = environment(0).render_str("{{ raise_exception('no such role') }}", context! {});
        assert!(
            error
                .expect_err("the template raises")
                .to_string()
                .contains("no such role")
        );
    }
}
