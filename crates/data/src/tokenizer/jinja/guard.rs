//! A template with checks of the sizes of its values.
//!
//! The engine has no hook for its operators, so that a template can double a text or a list sixty times in a loop. What
//! grows from step to step goes through a name: a variable, an attribute of a namespace, a loop's target or a macro's
//! argument. The filters `bounded` and `bounded_attribute`, which [`size`](super::size) defines, are put around each of
//! these. Within one tag there are only so many operators, and [`Guarded`] says how many.

use std::ops::Range;

use minijinja::machinery::{Token, WhitespaceConfig, tokenize};

/// Tags whose contents may be rendered many times, by their first words.
const REPEATED: [&str; 5] = ["for", "macro", "call", "block", "filter"];
/// Tags that render another template, or this one again.
const RENDERING: [&str; 4] = ["include", "import", "from", "extends"];

/// A template with checks.
#[derive(Debug, Default)]
pub(in super::super) struct Guarded {
    pub(in super::super) source: String,
    /// The most operators that one tag has.
    pub(in super::super) operators: usize,
    /// The length of the longest text, in bytes, that may be written many times.
    pub(in super::super) repeated_text: usize,
}

type Spanned<'a> = (Token<'a>, Range<usize>);

/// Puts the checks into a template. One with a fault in it stays as it is behind that, and does not compile.
pub(in super::super) fn guard(source: &str) -> Guarded {
    let mut out = Insertions::default();
    let mut guarded = Guarded::default();
    let mut tag: Vec<Spanned<'_>> = Vec::new();
    let (mut depth, mut longest, mut renders) = (0_usize, 0, false);
    for token in tokenize(source, false, Default::default(), whitespace()) {
        let Ok((token, span)) = token else { break };
        let span = span.start_offset as usize..span.end_offset as usize;
        match token {
            Token::TemplateData(text) => {
                longest = longest.max(text.len());
                if depth > 0 {
                    guarded.repeated_text = guarded.repeated_text.max(text.len());
                }
            }
            Token::BlockStart | Token::VariableStart => tag.clear(),
            Token::BlockEnd => {
                let word = word(&tag, 0);
                if REPEATED.contains(&word) {
                    depth += 1;
                } else if let Some(word) = word.strip_prefix("end") {
                    depth -= usize::from(REPEATED.contains(&word) && depth > 0);
                }
                renders |= RENDERING.contains(&word) || word == "block";
                out.statement(source, &tag, span.start);
                guarded.operators = guarded.operators.max(out.operators(&tag));
            }
            Token::VariableEnd => guarded.operators = guarded.operators.max(out.operators(&tag)),
            other => tag.push((other, span)),
        }
    }
    if renders {
        guarded.repeated_text = longest;
    }
    guarded.source = out.into(source);
    guarded
}

fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig {
        keep_trailing_newline: false,
        lstrip_blocks: true,
        trim_blocks: true,
    }
}

/// The name at a place of a tag.
fn word<'a>(tag: &[Spanned<'a>], at: usize) -> &'a str {
    match tag.get(at) {
        Some((Token::Ident(word), _)) => word,
        _ => "",
    }
}

/// Texts and the places of the source at which they are inserted.
#[derive(Default)]
struct Insertions(Vec<(usize, String)>);

impl Insertions {
    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.0.push((at, text.into()));
    }

    /// Guards what a statement assigns. `end` is where it ends.
    fn statement(&mut self, source: &str, tag: &[Spanned<'_>], end: usize) {
        match word(tag, 0) {
            "set" => {
                let Some(assign) = top_level(tag, |token| matches!(token, Token::Assign)).next()
                else {
                    return;
                };
                let is_attribute = tag[..assign]
                    .iter()
                    .any(|(token, _)| matches!(token, Token::Dot));
                self.wrap(tag[assign].1.end, end, is_attribute);
            }
            "with" => {
                let is_edge = |token: &Token<'_>| matches!(token, Token::Assign | Token::Comma);
                let mut begin = None;
                for edge in top_level(tag, is_edge) {
                    match (&tag[edge].0, begin.take()) {
                        (Token::Assign, _) => begin = Some(tag[edge].1.end),
                        (_, Some(begin)) => self.wrap(begin, tag[edge].1.start, false),
                        _ => {}
                    }
                }
                if let Some(begin) = begin {
                    self.wrap(begin, end, false);
                }
            }
            "for" => {
                let is_in = |(token, _): &Spanned<'_>| matches!(token, Token::Ident("in"));
                if let Some(at) = tag.iter().position(is_in).filter(|at| *at > 1) {
                    let target = &source[tag[1].1.start..tag[at].1.start];
                    self.check(&format!("({target})|bounded"), end);
                }
            }
            "macro" => self.check(&parameters(tag.get(2..).unwrap_or_default()), end),
            "call" => self.check(&parameters(tag.get(1..).unwrap_or_default()), end),
            _ => {}
        }
    }

    /// Puts a check around an expression, which may be a list without brackets.
    fn wrap(&mut self, begin: usize, end: usize, is_attribute: bool) {
        let name = if is_attribute {
            "bounded_attribute"
        } else {
            "bounded"
        };
        self.insert(begin, "((");
        self.insert(end, format!(")|{name})"));
    }

    /// Evaluates checks at the beginning of a statement's contents. `end` is where its tag ends.
    fn check(&mut self, values: &str, end: usize) {
        self.insert(end, format!(" %}}{{% if {values} %}}{{% endif "));
    }

    /// Counts the operators of a tag that make larger values, and guards the factors of products.
    fn operators(&mut self, tag: &[Spanned<'_>]) -> usize {
        let mut count = 0;
        for (at, (token, span)) in tag.iter().enumerate() {
            let behind_operand = at
                .checked_sub(1)
                .is_some_and(|before| ends_operand(&tag[before].0));
            match token {
                Token::Plus | Token::Tilde | Token::Comma | Token::Pipe => count += 1,
                Token::Mul if behind_operand => {
                    count += 1;
                    self.insert(span.start, "|factor ");
                    if let Some(last) = operand_end(tag, at + 1).and_then(|end| end.checked_sub(1))
                    {
                        self.insert(tag[last].1.end, "|factor ");
                    }
                }
                _ => {}
            }
        }
        count
    }

    fn into(mut self, source: &str) -> String {
        self.0.sort_by_key(|(at, _)| *at);
        let mut out = String::with_capacity(source.len() * 2);
        let mut done = 0;
        for (at, text) in &self.0 {
            out.push_str(&source[done..*at]);
            out.push_str(text);
            done = *at;
        }
        out.push_str(&source[done..]);
        out
    }
}

/// How much deeper in brackets a token leads.
fn nesting(token: &Token<'_>) -> isize {
    match token {
        Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => 1,
        Token::ParenClose | Token::BracketClose | Token::BraceClose => -1,
        _ => 0,
    }
}

/// The places of tokens that stand in no brackets.
fn top_level<'t>(
    tag: &'t [Spanned<'_>],
    is_sought: impl Fn(&Token<'_>) -> bool + 't,
) -> impl Iterator<Item = usize> + 't {
    let mut depth = 0;
    let places = tag.iter().enumerate().filter(move |(_, (token, _))| {
        depth += nesting(token);
        depth == 0 && is_sought(token)
    });
    places.map(|(at, _)| at)
}

/// The names of the parameters of a macro, whose brackets the tokens begin with, as a list.
fn parameters(tokens: &[Spanned<'_>]) -> String {
    let mut depth = 0;
    let mut names = String::new();
    for pair in tokens.windows(2) {
        depth += nesting(&pair[0].0);
        if depth == 0 {
            break;
        }
        let is_edge = matches!(pair[0].0, Token::ParenOpen | Token::Comma);
        if let (true, 1, Token::Ident(name)) = (is_edge, depth, &pair[1].0) {
            names += &format!("{name}|bounded,");
        }
    }
    format!("[{names}0|bounded]")
}

/// Whether an operand may end with a token.
fn ends_operand(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(word) => !matches!(*word, "in" | "and" | "or" | "not" | "if" | "else" | "is"),
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {
            true
        }
        token => nesting(token) < 0,
    }
}

/// Where the operand that begins at a place ends, with its attributes, arguments and filters.
fn operand_end(tag: &[Spanned<'_>], mut at: usize) -> Option<usize> {
    let token = |at: usize| tag.get(at).map(|(token, _)| token);
    while let Some(Token::Minus | Token::Plus) = token(at) {
        at += 1;
    }
    let is_text = matches!(token(at)?, Token::Str(_) | Token::String(_));
    at = if nesting(token(at)?) > 0 {
        group_end(tag, at)?
    } else {
        at + 1
    };
    // Texts side by side are one.
    while is_text && matches!(token(at), Some(Token::Str(_) | Token::String(_))) {
        at += 1;
    }
    loop {
        match token(at) {
            Some(Token::Dot | Token::Pipe) => at += 2,
            Some(Token::ParenOpen | Token::BracketOpen) => at = group_end(tag, at)?,
            _ => return (at <= tag.len()).then_some(at),
        }
    }
}

/// The place behind the bracket that closes the one at `at`.
fn group_end(tag: &[Spanned<'_>], at: usize) -> Option<usize> {
    let mut depth = 0;
    let close = tag[at..].iter().position(|(token, _)| {
        depth += nesting(token);
        depth == 0
    });
    Some(at + close? + 1)
}

#[cfg(test)]
mod tests {
    use super::guard;

    #[test]
    fn what_is_assigned_is_checked() {
        for (source, expected) in [
            ("a{% set x = y ~ y -%}", "a{% set x =(( y ~ y )|bounded)-%}"),
            ("{% set n.x=y %}", "{% set n.x=((y )|bounded_attribute)%}"),
            (
                "{% set a, b = f(c=1), 2 %}",
                "{% set a, b =(( f(c=1), 2 )|bounded)%}",
            ),
            ("{% set x %}y{% endset %}", "{% set x %}y{% endset %}"),
            (
                "{%- for a, (b, c) in d if e -%}",
                "{%- for a, (b, c) in d if e  %}{% if (a, (b, c) )|bounded %}{% endif -%}",
            ),
            (
                "{% macro f(a, b=[1, c]) %}",
                "{% macro f(a, b=[1, c])  %}{% if [a|bounded,b|bounded,0|bounded] %}{% endif %}",
            ),
            (
                "{% macro f() %}",
                "{% macro f()  %}{% if [0|bounded] %}{% endif %}",
            ),
            (
                "{% call(a) f(b) %}",
                "{% call(a) f(b)  %}{% if [a|bounded,0|bounded] %}{% endif %}",
            ),
            (
                "{% with a = [b, c], (d, e) = f %}",
                "{% with a =(( [b, c])|bounded), (d, e) =(( f )|bounded)%}",
            ),
            (
                "{{ a.b * -c[1](2)|d|e(3) * 'x' 'y' }}",
                "{{ a.b |factor * -c[1](2)|d|e(3)|factor  |factor * 'x' 'y'|factor  }}",
            ),
            (
                "{{ f(*a, **b) }}{# 1 * 2 #}{% raw %}{{ 1 * 2 }}{% endraw %}",
                "",
            ),
        ] {
            let expected = if expected.is_empty() {
                source
            } else {
                expected
            };
            assert_eq!(guard(source).source, expected);
        }
    }

    #[test]
    fn operators_and_texts_that_repeat_are_measured() {
        let guarded = guard("long text{{ a + b ~ c }}{% for x in y %}text{% endfor %}longer text");
        assert_eq!((guarded.operators, guarded.repeated_text), (2, 4));
        assert_eq!(guard("text{% include 'a' %}").repeated_text, 4);
        assert_eq!(guard("{% if %}{{ '").source, "{% if %}{{ '");
    }
}
