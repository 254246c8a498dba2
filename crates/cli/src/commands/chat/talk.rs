//! The conversation itself.

mod commands;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use burn_peft_data::{Prompt, StreamDecoder};
use burn_peft_decoder::{self as decoder, GenerationOptions};

use super::{
    adapters::{Adapters, Current},
    command::{Command, Line},
    history::{Fitted, History, Room, Told},
    input::{Input, Read},
    model::Speaker,
    screen::{Answer, FinishReason, Screen, Usage},
};
use crate::{
    commands::{
        adapter::OpenAdapter,
        shared::{OpenBase, prompt_ids},
    },
    output,
    progress::Progress,
    signals::{self, Answering, INTERRUPTED},
};

/// Tokens of a prompt that are computed between two looks at whether a signal came.
const READ_AT_ONCE: usize = 256;

/// A conversation with a model.
pub(super) struct Talk<'a> {
    base: &'a OpenBase,
    speaker: Box<dyn Speaker + 'a>,
    adapters: Adapters,
    /// The adapter that answers.
    current: Option<Current>,
    history: History,
    options: GenerationOptions,
    /// Answers so far. Each has a seed of its own, so that a turn that was taken back gets another answer.
    answers: u64,
    /// Whether it was said that turns are left out.
    told_of_room: bool,
}

impl<'a> Talk<'a> {
    /// One in which nothing was said.
    pub(super) fn new(
        base: &'a OpenBase,
        speaker: Box<dyn Speaker + 'a>,
        history: History,
        options: GenerationOptions,
    ) -> Self {
        Self {
            base,
            speaker,
            adapters: Adapters::default(),
            current: None,
            history,
            options,
            answers: 0,
            told_of_room: false,
        }
    }

    /// Sets the adapters that have names, and the one that answers.
    pub(super) fn set_adapters(
        &mut self,
        adapters: Adapters,
        current: Option<Current>,
    ) -> Result<()> {
        self.adapters = adapters;
        self.adapt(current)
    }

    fn adapt(&mut self, current: Option<Current>) -> Result<()> {
        self.speaker
            .adapt(current.as_ref().map(|current| &current.adapter))?;
        self.current = current;
        Ok(())
    }

    /// Talks until the input ends.
    pub(super) fn run(
        &mut self,
        mut input: Input,
        json: bool,
        answering: &Answering,
    ) -> Result<()> {
        let typed = input.is_terminal();
        let screen = Screen::new(json, typed);
        if typed {
            output::note(&self.adapter_line());
            output::note("/help lists the commands; Ctrl-D leaves");
        }
        let mut was_interrupted = false;
        loop {
            let label = self.current.as_ref().map_or("", |c| c.named.name.as_str());
            match input.read(label, &self.adapters)? {
                Read::End => return Ok(()),
                Read::Interrupt if was_interrupted => return Ok(()),
                Read::Interrupt => {
                    was_interrupted = true;
                    output::note("Ctrl-C once more leaves, and so does Ctrl-D");
                }
                Read::Line(line) => {
                    was_interrupted = false;
                    match Line::parse(&line) {
                        Line::Empty => {}
                        Line::Turn(said) => {
                            let reason = self.turn(said, screen, answering)?;
                            if reason == Some(FinishReason::Interrupted) && !typed {
                                // A script that was told to stop does not get to its next turn.
                                signals::leave(INTERRUPTED);
                            }
                        }
                        Line::Command(Command::Exit) => return Ok(()),
                        Line::Command(command) => self.command(&command),
                        Line::Unknown(name) => output::say(&format!(
                            "error: there is no command {name}; /help lists those that there are, and // begins a turn \
                             with a slash"
                        )),
                    }
                }
            }
        }
    }

    /// Answers a turn, and keeps both. Returns why the answer ended, if there is one.
    fn turn(
        &mut self,
        said: &str,
        screen: Screen,
        answering: &Answering,
    ) -> Result<Option<FinishReason>> {
        let fitted = match self.fit(said) {
            Ok(fitted) => fitted,
            Err(error) => {
                screen.failed(&error)?;
                return Ok(None);
            }
        };
        if fitted.left_out && !self.told_of_room {
            self.told_of_room = true;
            output::note(
                "the conversation is longer than the model's context; its oldest turns are left out from here on",
            );
        }
        answering.begin();
        let answer = self.answer(&fitted.prompt, screen, answering);
        answering.end();
        let (text, finish_reason, usage) = answer?;
        screen.end(&Answer {
            role: "assistant",
            content: &text,
            finish_reason,
            adapter: self.current.as_ref().map(|c| c.named.name.as_str()),
            usage,
        })?;
        match finish_reason {
            FinishReason::Interrupted if text.is_empty() => {
                output::note("stopped before anything was written; the turn is not kept");
            }
            _ => self.history.add(said.to_owned(), text),
        }
        Ok(Some(finish_reason))
    }

    fn answer(
        &mut self,
        prompt: &Prompt,
        screen: Screen,
        answering: &Answering,
    ) -> Result<(String, FinishReason, Usage)> {
        let mut usage = Usage {
            prompt_tokens: prompt.input_ids.len(),
            cached_tokens: self.speaker.held(prompt),
            completion_tokens: 0,
        };
        if !self.read(prompt, answering) {
            return Ok((String::new(), FinishReason::Interrupted, usage));
        }
        let options = GenerationOptions {
            seed: self.options.seed.wrapping_add(self.answers),
            ..self.options.clone()
        };
        self.answers += 1;
        let mut stream = StreamDecoder::new(&self.base.tokenizer);
        let (mut text, mut shown) = (String::new(), Ok(()));
        let mut stopped = false;
        let mut show = |part: &str| {
            text.push_str(part);
            screen.part(part)
        };
        let row = self.speaker.generate(prompt, &options, &mut |id| {
            if let Some(part) = stream.push(id) {
                shown = show(&part);
            }
            stopped = answering.is_stopping();
            match stopped || shown.is_err() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        shown?;
        // A character that the last token leaves unfinished is not shown.
        let rest = stream.finish().unwrap_or_default();
        show(rest.trim_end_matches('\u{fffd}'))?;
        usage.completion_tokens = row.token_ids.len();
        let finish_reason = match row.finish_reason {
            _ if stopped => FinishReason::Interrupted,
            decoder::FinishReason::Stop => FinishReason::Stop,
            decoder::FinishReason::Length => FinishReason::Length,
        };
        Ok((text, finish_reason, usage))
    }

    /// Computes a prompt. Returns whether it came to its end.
    fn read(&mut self, prompt: &Prompt, answering: &Answering) -> bool {
        let mut bar = Progress::counting("reading");
        let all = prompt.input_ids.len();
        loop {
            let left = self.speaker.read(prompt, READ_AT_ONCE);
            if answering.is_stopping() {
                return false;
            }
            if left == 0 {
                return true;
            }
            bar.set((all - left) as u64, all as u64);
        }
    }

    fn fit(&mut self, said: &str) -> Result<Fitted> {
        let tokens = self
            .current
            .as_ref()
            .map_or(0, |c| c.adapter.num_virtual_tokens());
        let room = Room {
            positions: self.base.checkpoint.config().positions_left(tokens),
            answer: self.options.max_new_tokens,
        };
        let adapter = self.current.as_ref().map(|current| &current.adapter);
        let prompt_of = |told: &Told<'_>| prompt_of(self.base, adapter, told);
        self.history.fit(said, room, prompt_of)
    }
}

/// What the model is given of what it is told.
fn prompt_of(base: &OpenBase, adapter: Option<&OpenAdapter>, told: &Told<'_>) -> Result<Prompt> {
    let template = adapter.and_then(OpenAdapter::template);
    let tokenizer = &base.tokenizer;
    let prompt = match told {
        Told::Turns(turns) => {
            let text = tokenizer.render_chat(turns, true)?;
            prompt_ids(&text, true, tokenizer, template)?
        }
        Told::Text(text) => prompt_ids(text, false, tokenizer, template)?,
    };
    if prompt.input_ids.is_empty() {
        bail!("there is no token in the turn");
    }
    Ok(prompt)
}
