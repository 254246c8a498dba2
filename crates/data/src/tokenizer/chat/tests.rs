//! Chat templates, well-meant and hostile.

use std::error::Error as _;

use serde_json::json;

use super::*;
use crate::test_support::CHAT_TEMPLATE;

fn template(source: &str) -> ChatTemplate {
    let special_tokens = BTreeMap::from([("eos_token".to_owned(), "<|im_end|>".to_owned())]);
    ChatTemplate::new(Templates::One(source.to_owned()), special_tokens).expect("a template")
}

fn render(source: &str, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
    let rendered = template(source).render(messages, &Map::new(), add_generation_prompt)?;
    Ok(rendered.text)
}

fn reason(source: &str) -> String {
    let error = render(source, &[Message::new("user", "Hi")], false).expect_err("it fails");
    error
        .source()
        .expect("the engine's error is kept")
        .to_string()
}

#[test]
fn a_system_turn_is_supplied_where_the_template_supplies_one() {
    let rendered = render(CHAT_TEMPLATE, &[Message::new("user", "Hi")], true).expect("a good chat");
    assert_eq!(
        rendered,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn consecutive_tool_results_share_one_user_turn() {
    let messages = [
        Message::new("system", "S"),
        Message::new("user", "U"),
        Message::new("tool", "1"),
        Message::new("tool", "2"),
    ];
    let rendered = render(CHAT_TEMPLATE, &messages, false).expect("a good chat");
    assert_eq!(
        rendered,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>user\n\
         <tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    );
}

#[test]
fn parts_are_joined_for_a_template_that_knows_texts_only() {
    let mut turn = Message::new("user", "");
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    turn.fields.insert("content".to_owned(), parts);
    for (source, expected) in [
        // One fails at a list, one would write it as Python does, one reads it.
        ("{{ messages[0].content + '!' }}", "a\nb!"),
        ("{{ messages[0].content }}", "a\nb"),
        (
            "{% set c = messages[0].content %}{% if c is string %}{{ c }}{% else %}{% for p in c %}{{ p.text }}{% endfor %}{% endif %}",
            "ab",
        ),
    ] {
        let rendered = render(source, std::slice::from_ref(&turn), false);
        assert_eq!(rendered.expect("a good chat"), expected, "{source}");
    }
}

#[test]
fn what_the_template_raises_reaches_the_user() {
    let error =
        render(CHAT_TEMPLATE, &[Message::new("oracle", "Hi")], false).expect_err("no such role");
    let source = error.source().expect("the engine's error is kept");
    assert!(
        source.to_string().contains("unknown role oracle"),
        "{source}"
    );
}

#[test]
fn special_tokens_are_known_by_name() {
    let source = "{{ messages[0]['content'] + eos_token }}";
    let rendered = render(source, &[Message::new("user", "Hi")], false);
    assert_eq!(rendered.expect("a good chat"), "Hi<|im_end|>");
}

#[test]
fn a_template_that_does_not_compile_fails_when_it_is_used() {
    let broken = render("{% if %}", &[], false);
    assert!(matches!(broken, Err(Error::ChatTemplate { .. })));
}

#[test]
fn tools_and_other_variables_of_a_row_are_there_by_name() {
    let source = "{{ tools is none }} {{ tools | tojson }} {{ thinks }} {{ eos_token }}";
    let text = |variables: Json| {
        let variables = variables.as_object().expect("an object");
        let rendered = template(source).render(&[Message::new("user", "Hi")], variables, false);
        rendered.expect("a good chat").text
    };
    assert_eq!(text(json!({})), "True null  <|im_end|>");
    let variables = json!({"tools": [{"name": "f"}], "thinks": 1, "messages": []});
    assert_eq!(text(variables), r#"False [{"name": "f"}] 1 <|im_end|>"#);
}

#[test]
fn a_template_of_its_own_for_tools_is_used_where_there_are_tools() {
    let named =
        json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
    let templates = serde_json::from_value(named).expect("named templates");
    let template = ChatTemplate::new(templates, BTreeMap::new()).expect("a template");
    let mut variables = Map::new();
    let text = |variables: &Map<String, Json>| {
        let rendered = template.render(&[Message::new("user", "Hi")], variables, false);
        rendered.expect("a good chat").text
    };
    assert_eq!(text(&variables), "d");
    variables.insert("tools".to_owned(), json!([]));
    assert_eq!(text(&variables), "t");
}

#[test]
fn marked_text_is_known_and_the_marks_are_not_in_it() {
    let source = "{%- for m in messages %}\n    {{- m.role + ': ' }}\n    {%- generation %}\n    {{- m.content }}\n    {%- endgeneration %}\n\n{% endfor %}";
    let messages = [Message::new("a", "x"), Message::new("b", "yy")];
    let rendered = template(source).render(&messages, &Map::new(), false);
    let rendered = rendered.expect("a good chat");
    assert_eq!(rendered.text, "a: x\nb: yy\n");
    assert_eq!(rendered.marks, Some(vec![3..4, 8..10]));
}

#[test]
fn the_characters_of_the_marks_are_kept_or_refused_and_never_taken_for_marks() {
    let messages = [Message::new("a", "x\u{fdd0}y\u{fdd1}")];
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let rendered = template(plain).render(&messages, &Map::new(), false);
    let rendered = rendered.expect("a good chat");
    assert_eq!(
        (rendered.text.as_str(), rendered.marks),
        ("x\u{fdd0}y\u{fdd1}", None)
    );
    let marked =
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}";
    let error = render(marked, &messages, false).expect_err("they would be marks");
    let source = error.source().expect("the reason is kept").to_string();
    assert!(source.contains("U+FDD0"), "{source}");
}

#[test]
fn marks_are_those_of_the_template_that_renders() {
    let named = json!([
        {"name": "default", "template": "{% generation %}d{% endgeneration %}"},
        {"name": "tool_use", "template": "t"},
    ]);
    let templates = serde_json::from_value(named).expect("named templates");
    let template = ChatTemplate::new(templates, BTreeMap::new()).expect("a template");
    let mut variables = Map::new();
    let marks = |variables: &Map<String, Json>| {
        let rendered = template.render(&[Message::new("user", "Hi")], variables, false);
        rendered.expect("a good chat").marks
    };
    let of_default: Vec<_> = marks(&variables).into_iter().flatten().collect();
    assert_eq!(of_default.first(), Some(&(0..1)));
    variables.insert("tools".to_owned(), json!([1]));
    assert_eq!(marks(&variables), None);
}

/// What would take all memory, all time or all of the stack ends with an error.
#[test]
fn a_template_out_of_bounds_is_refused() {
    let nots = format!("{{{{ {}1 }}}}", "not ".repeat(100_000));
    let ifs = "{% if 1 %}".repeat(1000) + &"{% endif %}".repeat(1000);
    for (source, expected) in [
        (nots.as_str(), "the longest"),
        (ifs.as_str(), "recursion"),
        (
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "recursion",
        ),
        ("{{ 'a' | indent(100000000000) }}", "too large"),
        ("{{ ([0] * 100000000000) | list }}", "too large"),
        ("{{ 'a' * 100000000000 }}", "too large"),
        (
            "{{ 'a'.replace('', 'b' * 100000).replace('', 'b' * 100000) }}",
            "too large",
        ),
        ("{{ '%100000000000d' | format(1) }}", "too large"),
        ("{{ '{:>100000000000}'.format(1) }}", "too large"),
        ("{{ messages | tojson(indent=100000000000) }}", "too large"),
        (
            "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "too large",
        ),
        (
            "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "too large",
        ),
        (
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x == n.x }}",
            "too large",
        ),
        (
            "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
            "too large",
        ),
        (
            "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}",
            "too large",
        ),
        (
            "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('a') }}",
            "too large",
        ),
        (
            "{% for a in ['a'] recursive %}{{ loop([a ~ a]) }}{% endfor %}",
            "too large",
        ),
        (
            "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
            "too l",
        ),
        (
            "{% set x %}{% for a in range(90000) %}{% for b in range(9) %}0123456789ab{% endfor %}{% endfor %}{% endset %}\
             {% for i in range(90000) %}{% for b in range(90) %}{% endfor %}{% endfor %}",
            "fuel",
        ),
        (
            "{% set n = namespace(x=1) %}{% for i in range(9000) %}{% set n.x = [n.x] %}{% endfor %}",
            "too large",
        ),
        (
            "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
            "a namespace within",
        ),
        ("{% set n = namespace() %}{{ [n] }}", "a namespace within"),
        ("{{ 1 in 100000000000 * [0] }}", "too large"),
        (
            "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
            "fuel",
        ),
        (
            "{% for a in range(90000) %}{{ 'a' * 90000 }}{% endfor %}",
            "too long",
        ),
    ] {
        let reason = reason(source);
        let begin = &source[..source.len().min(80)];
        assert!(reason.contains(expected), "{reason} for {begin}");
    }
}

/// The checks leave alone what templates of published models do.
#[test]
fn values_within_the_bounds_are_what_they_were() {
    for (source, expected) in [
        (
            "{% set n = namespace(x=[]) %}{% for m in messages %}{% set n.x = n.x + [m.role] %}{% endfor %}{{ n.x }}",
            "['user']",
        ),
        (
            "{%- macro f(n, x='d') -%} {{ n.x ~ x }} {%- endmacro -%} {{ f(namespace(x='c')) }}",
            "cd",
        ),
        (
            "{% set a, b = 1, [2] %}{% with c = a + 1, d = b %}{{ c * 3 ~ d }}{% endwith %}",
            "6[2]",
        ),
        (
            "{% for k, v in {'a': 1}.items() %}\n{{ k }}{{ v }}\n{% endfor %}",
            "a1\n",
        ),
        (
            "{% call(x) f2(1) %}{{ x }}{% endcall %}{% macro f2(y) %}{{ caller(y) }}{% endmacro %}",
            "",
        ),
        (
            "{% macro f2(y) %}{{ caller(y) }}{% endmacro %}{% call(x) f2(1) %}{{ x }}{% endcall %}",
            "1",
        ),
        ("{{ '-' * 3 }}{{ 2 * loop_count | default(2) }}", "---4"),
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "1",
        ),
        (
            "{{ messages | selectattr('role') | map(attribute='role') | select | join(',') }}",
            "user",
        ),
    ] {
        let rendered = render(source, &[Message::new("user", "Hi")], false);
        match rendered {
            Ok(text) => assert_eq!(text, expected, "{source}"),
            Err(error) => assert!(expected.is_empty(), "{:?} for {source}", error.source()),
        }
    }
}

/// As deep as a template of the longest length can nest: it may fail, but it must come back.
#[test]
fn the_deepest_template_comes_back() {
    let deep = |piece: &str, around: fn(String) -> String| {
        around(piece.repeat((LONGEST - 100) / piece.len()))
    };
    for source in [
        deep("-", |minus| format!("{{{{ {minus}1 }}}}")),
        deep("not ", |not| format!("{{{{ {not}1 }}}}")),
        deep("+1", |sum| format!("{{{{ 1{sum} }}}}")),
        deep("~1", |text| format!("{{{{ 1{text} }}}}")),
        deep(".a", |path| format!("{{{{ a{path} }}}}")),
        deep("|e", |filters| format!("{{{{ a{filters} }}}}")),
        deep("{%elif 0%}", |elif| format!("{{% if 0 %}}{elif}{{% endif %}}")),
        deep(" if 1 else 1", |choices| format!("{{{{ 1{choices} }}}}")),
        "{% set n = namespace(x=[]) %}{% for a in range(90000) %}{% for b in range(9) %}{% set n.x = [n.x] %}{% endfor %}{% endfor %}".to_owned(),
    ] {
        let _ = render(&source, &[Message::new("user", "Hi")], false);
    }
}
