//! What a line is: a turn, or a command.

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing but white space.
    Empty,
    /// What the user says.
    Turn(&'a str),
    /// A command.
    Command(Command<'a>),
    /// A command that there is not.
    Unknown(&'a str),
}

/// A command. Its argument is empty where none was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Adapter(&'a str),
    Adapters,
    System(&'a str),
    Undo,
    Reset,
    Save(&'a str),
    Help,
    Exit,
}

/// The names of the commands, each with what it takes and what it does.
pub(super) const COMMANDS: [(&str, &str, &str); 8] = [
    (
        "/adapter",
        "NAME|DIR|none",
        "go on with another adapter, or with none",
    ),
    ("/adapters", "", "list the adapters"),
    (
        "/system",
        "TEXT",
        "set the system turn; without TEXT, remove it",
    ),
    ("/undo", "", "forget the last turn and its answer"),
    (
        "/reset",
        "",
        "forget the conversation, but for the system turn",
    ),
    (
        "/save",
        "FILE",
        "add the conversation to FILE as training data",
    ),
    ("/help", "", "show this list"),
    ("/exit", "", "leave, as Ctrl-D does"),
];

/// What `/help` says, a line each.
pub(super) fn help() -> Vec<String> {
    let commands = COMMANDS.iter();
    let commands =
        commands.map(|(name, takes, does)| format!("{:24}{does}", format!("{name} {takes}")));
    let more = [
        "\"\"\" begins and ends a turn of several lines. // begins a turn with a slash.",
        "Ctrl-C stops an answer; what was written of it stays in the conversation.",
    ];
    commands.chain(more.map(str::to_owned)).collect()
}

impl<'a> Line<'a> {
    /// Reads a line. `//` begins a turn with a slash.
    pub(super) fn parse(line: &'a str) -> Self {
        if line.trim().is_empty() {
            return Self::Empty;
        }
        if line.starts_with("//") {
            return Self::Turn(&line[1..]);
        }
        if !line.starts_with('/') {
            return Self::Turn(line);
        }
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (name, argument) = (&line[..end], line[end..].trim());
        Self::Command(match name {
            "/adapter" => Command::Adapter(argument),
            "/adapters" => Command::Adapters,
            "/system" => Command::System(argument),
            "/undo" => Command::Undo,
            "/reset" => Command::Reset,
            "/save" => Command::Save(argument),
            "/help" => Command::Help,
            "/exit" => Command::Exit,
            _ => return Self::Unknown(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_a_slash_is_a_command_and_with_two_a_turn() {
        for (line, expected) in [
            ("hello /there", Line::Turn("hello /there")),
            (" /reset", Line::Turn(" /reset")),
            ("//etc/hosts?", Line::Turn("/etc/hosts?")),
            (" \t", Line::Empty),
            ("/adapter  a b ", Line::Command(Command::Adapter("a b"))),
            ("/system", Line::Command(Command::System(""))),
            (
                "/system be\nkind",
                Line::Command(Command::System("be\nkind")),
            ),
            ("/quit now", Line::Unknown("/quit")),
            ("/", Line::Unknown("/")),
        ] {
            assert_eq!(Line::parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn every_command_of_the_list_is_one() {
        for (name, ..) in COMMANDS {
            assert!(matches!(Line::parse(name), Line::Command(_)), "{name}");
        }
    }
}
