//! What `train --help` says about the options of the methods.

use burn_peft::{MethodConfig, OptionDoc};

/// Every option of every method.
pub(crate) fn options() -> String {
    let mut text =
        "Options of the methods, as --set method.KEY=VALUE or in [method] of run.toml:\n"
            .to_owned();
    let methods = MethodConfig::all();
    for (method, choice) in methods.iter().zip(MethodConfig::type_option().choices) {
        text += &format!("\n  {}: {}\n", choice.name, choice.help);
        for option in method.options() {
            let OptionDoc {
                name,
                kind,
                default,
                help,
                ..
            } = option;
            text += &format!("    {name}: {kind} [default: {default}]\n        {help}\n");
        }
    }
    text += "\ndocs/methods has a page for each.";
    // The texts are Markdown.
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use burn_peft::MethodConfig;

    #[test]
    fn the_help_has_every_option_of_every_method() {
        let help = super::options();
        let mut rest = help.as_str();
        for method in MethodConfig::all() {
            let names = method.options().into_iter().map(|option| option.name);
            for name in std::iter::once(method.name()).chain(names) {
                let line = format!("  {name}: ");
                let place = rest
                    .find(&line)
                    .unwrap_or_else(|| panic!("{name} is missing"));
                rest = &rest[place + line.len()..];
            }
        }
    }
}
