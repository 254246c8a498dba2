//! What was said, and what of it the model is still told.

use anyhow::{Result, bail};
use burn_peft_data::{Message, Prompt};
use serde_json::{Value, json};

/// What a turn is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One of a conversation, which the model's chat template renders.
    Chat,
    /// A text of its own, which the model continues. Earlier turns are not told.
    Plain,
}

/// A conversation: a system turn, if there is one, and pairs of a user's turn and its answer.
#[derive(Debug)]
pub(super) struct History {
    form: Form,
    system: Option<String>,
    turns: Vec<Turn>,
    /// The first turn that is told. Those before it were left out to make room, and stay out.
    first: usize,
}

#[derive(Debug)]
struct Turn {
    user: String,
    assistant: String,
}

/// What the model is told.
#[derive(Debug)]
pub(super) enum Told<'a> {
    /// The turns of a conversation, up to the user's last.
    Turns(Vec<Message>),
    /// A text.
    Text(&'a str),
}

/// How many tokens there are for a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// What a row of the model may have, the answer included.
    pub(super) positions: usize,
    /// What of that is kept for the answer.
    pub(super) answer: usize,
}

/// A prompt for which there is room.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) prompt: Prompt,
    /// Whether turns were left out for it that were told before.
    pub(super) left_out: bool,
}

impl History {
    /// An empty one.
    pub(super) fn new(form: Form, system: Option<String>) -> Self {
        Self {
            form,
            system,
            turns: Vec::new(),
            first: 0,
        }
    }

    /// What a turn is to the model.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Sets the system turn, or removes it.
    pub(super) fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// Adds a turn and what was answered.
    pub(super) fn add(&mut self, user: String, assistant: String) {
        self.turns.push(Turn { user, assistant });
    }

    /// Forgets the last turn and its answer. Returns whether there was one.
    pub(super) fn undo(&mut self) -> bool {
        let undone = self.turns.pop().is_some();
        self.first = self.first.min(self.turns.len());
        undone
    }

    /// Forgets all turns; the system turn stays.
    pub(super) fn reset(&mut self) {
        self.turns.clear();
        self.first = 0;
    }

    /// What the model is told when the user says this, if the turns before `first` are left out.
    fn told<'a>(&self, first: usize, said: &'a str) -> Told<'a> {
        if self.form == Form::Plain {
            return Told::Text(said);
        }
        let system = self.system.as_deref();
        let system = system.map(|text| Message::new("system", text));
        let turns = self.turns[first..].iter().flat_map(|turn| {
            [
                Message::new("user", turn.user.as_str()),
                Message::new("assistant", turn.assistant.as_str()),
            ]
        });
        let said = Message::new("user", said);
        Told::Turns(system.into_iter().chain(turns).chain([said]).collect())
    }

    /// The prompt for what the user says next, which `prompt_of` makes of what is told. The oldest turns, each with its answer,
    /// are left out until there is room for it.
    ///
    /// # Errors
    /// What no prompt can be made of, and a turn that is too long even alone. Nothing is left out for it then.
    pub(super) fn fit(
        &mut self,
        said: &str,
        room: Room,
        prompt_of: impl Fn(&Told<'_>) -> Result<Prompt>,
    ) -> Result<Fitted> {
        let most = room.positions.saturating_sub(room.answer);
        let last = match self.form {
            Form::Plain => self.first,
            Form::Chat => self.turns.len(),
        };
        for first in self.first..=last {
            let prompt = prompt_of(&self.told(first, said))?;
            let tokens = prompt.input_ids.len();
            if tokens <= most {
                let left_out = first > self.first;
                self.first = first;
                return Ok(Fitted { prompt, left_out });
            }
            if first == last {
                bail!(
                    "the turn is not added: it takes {tokens} tokens, and of the model's {} there are {most} for it and \
                     {} for the answer (--max-new-tokens)",
                    room.positions,
                    room.answer
                );
            }
        }
        unreachable!("the last of the prompts fits or is refused")
    }

    /// The conversation as rows of training data, those turns included that are no longer told.
    pub(super) fn rows(&self) -> Vec<Value> {
        let turns = self.turns.iter();
        match self.form {
            Form::Plain => turns
                .map(|turn| json!({"prompt": turn.user, "completion": turn.assistant}))
                .collect(),
            Form::Chat if self.turns.is_empty() => Vec::new(),
            Form::Chat => {
                let message = |role: &str, content: &str| json!({"role": role, "content": content});
                let system = self.system.as_deref();
                let system = system.map(|text| message("system", text));
                let turns = turns.flat_map(|turn| {
                    [
                        message("user", &turn.user),
                        message("assistant", &turn.assistant),
                    ]
                });
                let messages: Vec<Value> = system.into_iter().chain(turns).collect();
                vec![json!({"messages": messages})]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contents, each behind its role.
    fn contents(told: &Told<'_>) -> Vec<String> {
        match told {
            Told::Text(text) => vec![(*text).to_owned()],
            Told::Turns(turns) => {
                let turns = serde_json::to_value(turns).expect("texts");
                let turns = turns.as_array().expect("a list").iter();
                let line = |turn: &Value| format!("{}:{}", turn["role"], turn["content"]);
                turns.map(|turn| line(turn).replace('"', "")).collect()
            }
        }
    }

    /// One token for each character of the contents.
    fn prompt_of(told: &Told<'_>) -> Result<Prompt> {
        let contents = contents(told);
        let lengths = contents.iter().map(|line| match line.split_once(':') {
            Some((_, content)) => content.len(),
            None => line.len(),
        });
        Ok(vec![0; lengths.sum()].into())
    }

    /// What is told next.
    fn next(history: &History, said: &str) -> Vec<String> {
        contents(&history.told(history.first, said))
    }

    fn room(positions: usize) -> Room {
        Room {
            positions,
            answer: 10,
        }
    }

    fn talk() -> History {
        let mut history = History::new(Form::Chat, Some("be kind".into()));
        history.add("one".into(), "1".into());
        history.add("three".into(), "333".into());
        history
    }

    #[test]
    fn the_oldest_pairs_are_left_out_and_stay_out_and_the_system_turn_stays() {
        let mut history = talk();
        // 7 + 4 + 8 + 3 characters, and 10 for the answer.
        let all = history.fit("two", room(32), prompt_of).expect("room");
        assert!(!all.left_out);
        assert_eq!(all.prompt.input_ids.len(), 22);
        let cut = history.fit("two", room(31), prompt_of).expect("room");
        assert!(cut.left_out);
        let told = ["system:be kind", "user:three", "assistant:333", "user:two"];
        assert_eq!(next(&history, "two"), told);
        // What was left out does not come back for a shorter turn, so that the cache stays of use.
        let later = history.fit("2", room(100), prompt_of).expect("room");
        assert!(!later.left_out);
        assert_eq!(next(&history, "2").len(), 4);
        // It is not forgotten.
        let rows = history.rows();
        assert_eq!(rows[0]["messages"].as_array().map(Vec::len), Some(5));
    }

    #[test]
    fn a_turn_that_is_too_long_alone_changes_nothing() {
        let mut history = talk();
        let error = history.fit(&"x".repeat(20), room(36), prompt_of);
        let error = error.expect_err("27 and 10 are too many").to_string();
        assert!(
            error.contains("takes 27 tokens") && error.contains("there are 26 for it"),
            "{error}"
        );
        assert_eq!(next(&history, "two").len(), 6);
    }

    #[test]
    fn a_turn_is_taken_back_with_its_answer() {
        let mut history = talk();
        assert!(history.undo());
        assert_eq!(
            next(&history, "two"),
            ["system:be kind", "user:one", "assistant:1", "user:two"]
        );
        assert!(history.undo());
        assert!(!history.undo());
        history.set_system(None);
        assert_eq!(next(&history, "two"), ["user:two"]);
    }

    #[test]
    fn turns_of_their_own_are_told_alone_and_saved_as_prompts_and_completions() {
        let mut history = History::new(Form::Plain, None);
        history.add("one".into(), "1".into());
        history.add("two".into(), "2".into());
        assert_eq!(next(&history, "three"), ["three"]);
        let rows = history.rows();
        assert_eq!(rows[1], json!({"prompt": "two", "completion": "2"}));
        let error = history.fit(&"x".repeat(20), room(29), prompt_of);
        assert!(error.is_err());
        history.reset();
        assert!(history.rows().is_empty());
    }
}
