//! What the commands of a conversation do.

use std::path::Path;

use anyhow::{Result, bail};
use burn_peft_data::Message;

use super::Talk;
use crate::{
    commands::{
        chat::{
            adapters::{Current, NONE},
            command::{Command, help},
            history::Form,
        },
        shared::display,
    },
    output,
};

impl Talk<'_> {
    /// Does what a command says. What goes wrong is told, and changes nothing.
    pub(super) fn command(&mut self, command: &Command<'_>) {
        let done = match command {
            Command::Exit => Ok(Vec::new()),
            Command::Help => Ok(help()),
            Command::Adapters => Ok(self.list()),
            Command::Adapter(name) => self.switch(name).map(|()| vec![self.adapter_line()]),
            Command::System(text) => self.system(text),
            Command::Undo => Ok(vec![
                match self.history.undo() {
                    true => "the last turn and its answer are forgotten",
                    false => "there is no turn to forget",
                }
                .to_owned(),
            ]),
            Command::Reset => {
                self.history.reset();
                self.told_of_room = false;
                Ok(vec!["the conversation is forgotten".to_owned()])
            }
            Command::Save(path) => self.save(path),
        };
        match done {
            Ok(lines) => lines.iter().for_each(|line| output::note(line)),
            Err(error) => output::say(&format!("error: {}", output::one_line(&error))),
        }
    }

    fn switch(&mut self, name: &str) -> Result<()> {
        match name {
            "" => bail!("/adapter takes a name, a folder or `{NONE}`; /adapters lists the names"),
            NONE => self.adapt(None),
            name => {
                let named = self.adapters.find(name);
                let current = named.clone().read()?.on(self.base)?;
                self.adapt(Some(current))?;
                self.adapters.add(&named);
                Ok(())
            }
        }
    }

    /// What answers.
    pub(super) fn adapter_line(&self) -> String {
        match &self.current {
            None => "no adapter: the base answers".to_owned(),
            Some(Current { named, adapter }) => {
                format!("adapter {} ({})", named.name, adapter.method())
            }
        }
    }

    fn list(&self) -> Vec<String> {
        let current = self.current.as_ref().map(|current| &current.named);
        let names = self.adapters.all().iter().map(|named| named.name.as_str());
        let widths = names.chain([NONE]).map(|name| name.chars().count());
        let width = widths.max().unwrap_or(0);
        let line = |is_current: bool, name: &str, what: &str| {
            let mark = if is_current { '*' } else { ' ' };
            format!("{mark} {name:width$}  {what}")
        };
        let named = self.adapters.all().iter();
        let named =
            named.map(|named| line(current == Some(named), &named.name, &display(&named.dir)));
        let none = line(current.is_none(), NONE, "the base alone");
        named.chain([none]).collect()
    }

    fn system(&mut self, text: &str) -> Result<Vec<String>> {
        if self.history.form() == Form::Plain {
            bail!("without a chat template there is no system turn");
        }
        let text = Some(text.to_owned()).filter(|text| !text.is_empty());
        let said = match &text {
            None => "the system turn is removed",
            Some(text) => {
                // Some templates have no place for it.
                let turns = [
                    Message::new("system", text.as_str()),
                    Message::new("user", "?"),
                ];
                self.base.tokenizer.render_chat(&turns, true)?;
                "the system turn is set"
            }
        };
        self.history.set_system(text);
        Ok(vec![said.to_owned()])
    }

    fn save(&self, path: &str) -> Result<Vec<String>> {
        if path.is_empty() {
            bail!("/save takes the name of a file");
        }
        let rows = self.history.rows();
        if rows.is_empty() {
            bail!("there is nothing to save yet");
        }
        let file = Path::new(path);
        let mut text = match file.exists() {
            true => burn_peft_files::read_to_string(file)?,
            false => String::new(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for row in &rows {
            text.push_str(&serde_json::to_string(row)?);
            text.push('\n');
        }
        burn_peft_files::write(file, text.as_bytes())?;
        let what = match rows.len() {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        Ok(vec![format!("{what} added to {path}")])
    }
}
