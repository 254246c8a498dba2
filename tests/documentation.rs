//! The tables of options in `docs/` are made from the declarations of the options.
//!
//! A table stands between `<!-- options of NAME -->` and `<!-- end of options -->`, where NAME is a section of
//! run.toml or a method. `UPDATE_DOCS=1 cargo test --release --test tests documentation` rewrites all of them.

use std::{fs, path::Path};

use burn_peft::{MethodConfig, OptionDoc};
use burn_peft_train::{SECTIONS, options_of};

const END: &str = "<!-- end of options -->";

#[test]
fn the_tables_of_options_are_those_of_the_declarations() {
    let sections = SECTIONS.map(|section| {
        let options = match section {
            "method" => vec![MethodConfig::type_option()],
            _ => options_of(section, &MethodConfig::default()).unwrap(),
        };
        (section, options)
    });
    let methods = MethodConfig::all();
    let methods = methods
        .iter()
        .map(|method| (method.name(), method.options()));
    let tables: Vec<(&str, String)> = sections
        .into_iter()
        .chain(methods.clone())
        .map(|(name, options)| (name, table(&options)))
        .collect();

    let all: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
    check("run-toml.md", &all, &tables);
    for (method, _) in methods {
        check(&format!("methods/{method}.md"), &[method], &tables);
    }
}

/// Holds a page to its tables, which must be those called `names`; or rewrites it.
fn check(page: &str, names: &[&str], tables: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(page);
    let found = fs::read_to_string(&path).unwrap();
    let mut expected = found.clone();
    for (name, table) in tables.iter().filter(|(name, _)| names.contains(name)) {
        let start = format!("<!-- options of {name} -->\n");
        let (before, rest) = expected
            .split_once(&start)
            .unwrap_or_else(|| panic!("{page} has no line {start}"));
        let (_, after) = rest
            .split_once(END)
            .unwrap_or_else(|| panic!("{page}: no {END}"));
        expected = format!("{before}{start}\n{table}\n{END}{after}");
    }
    assert_eq!(found.matches(END).count(), names.len(), "tables of {page}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let lines = found.lines().zip(expected.lines());
    for (number, (found, expected)) in (1..).zip(lines) {
        assert_eq!(
            found, expected,
            "docs/{page}, line {number}; UPDATE_DOCS=1 rewrites the tables"
        );
    }
    assert!(
        found == expected,
        "docs/{page}; UPDATE_DOCS=1 rewrites the tables"
    );
}

fn table(options: &[OptionDoc]) -> String {
    let mut table =
        "| key | type | default | meaning | source of the default |\n|---|---|---|---|---|\n"
            .to_owned();
    for option in options {
        let mut meaning = option.help.clone();
        for choice in &option.choices {
            meaning += &format!(" `\"{}\"`: {}", choice.name, choice.help);
        }
        let cells = [
            format!("`{}`", option.name),
            option.kind.clone(),
            option.default.clone(),
            meaning,
            option.source.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        table += &format!("| {} |\n", cells.join(" | "));
    }
    table
}
