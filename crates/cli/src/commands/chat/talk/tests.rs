//! Conversations with a model that says what it is told to.

use std::{cell::RefCell, rc::Rc};

use burn_peft_data::TextTokenizer;
use burn_peft_decoder::Generated;

use super::*;
use crate::commands::chat::history::Form;
use crate::{builtin, source::ModelSource};

/// Answers with the same text each time, and takes down the prompts.
struct Parrot {
    tokenizer: TextTokenizer,
    prompts: Rc<RefCell<Vec<(String, u64)>>>,
    answer: Vec<u32>,
    /// Somebody presses Ctrl-C once: after so many tokens of an answer, or with 0 while a prompt is read.
    stop_after: Option<usize>,
    answering: Answering,
}

impl Speaker for Parrot {
    fn adapt(&mut self, _: Option<&OpenAdapter>) -> Result<()> {
        Ok(())
    }

    fn held(&self, _: &Prompt) -> usize {
        0
    }

    fn read(&mut self, _: &Prompt, _: usize) -> usize {
        if self.stop_after == Some(0) {
            self.stop_after = None;
            self.answering.stop();
        }
        0
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        options: &GenerationOptions,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Generated {
        let text = self.tokenizer.decode(&prompt.input_ids, false);
        let told = (text.expect("byte-level"), options.seed);
        self.prompts.borrow_mut().push(told);
        let mut token_ids = Vec::new();
        let stop_after = self.stop_after.take();
        for id in self.answer.clone() {
            token_ids.push(id);
            if stop_after == Some(token_ids.len()) {
                self.answering.stop();
            }
            if on_token(id).is_break() {
                break;
            }
        }
        Generated {
            token_ids,
            finish_reason: decoder::FinishReason::Length,
        }
    }
}

/// The prompts that were continued and their seeds, where the first of these turns is stopped so, and how that ended.
fn prompts(
    answer: &str,
    stop_after: Option<usize>,
    turns: &[&str],
) -> (Vec<(String, u64)>, FinishReason) {
    let base = OpenBase {
        source: ModelSource::BuiltIn,
        revision: None,
        checkpoint: builtin::checkpoint().expect("the built-in model"),
        tokenizer: builtin::tokenizer().expect("its tokenizer"),
    };
    let (prompts, answering) = (Rc::default(), Answering::default());
    let parrot = Parrot {
        answer: base.tokenizer.encode(answer).expect("byte-level"),
        tokenizer: base.tokenizer.clone(),
        prompts: Rc::clone(&prompts),
        stop_after,
        answering: answering.clone(),
    };
    let mut talk = Talk::new(
        &base,
        Box::new(parrot),
        History::new(Form::Chat, None),
        GenerationOptions::greedy(20, Vec::new()),
    );
    let screen = Screen::new(true, false);
    let reasons = turns.iter().map(|said| talk.turn(said, screen, &answering));
    let reasons: Vec<_> = reasons.collect();
    let first = reasons[0].as_ref().expect("an answer").expect("a reason");
    drop(talk);
    (prompts.take(), first)
}

fn turn(role: &str, text: &str) -> String {
    format!("<|im_start|>{role}\n{text}<|im_end|>\n")
}

const ANSWER: &str = "The Heron is a pub.";

#[test]
fn an_answer_is_told_in_the_next_turn_and_each_has_its_own_seed() {
    let (prompts, reason) = prompts(ANSWER, None, &["Where?", "When?"]);
    assert_eq!(reason, FinishReason::Length);
    let first = turn("user", "Where?") + "<|im_start|>assistant\n";
    let second = first.clone() + ANSWER + "<|im_end|>\n" + &turn("user", "When?");
    let second = second + "<|im_start|>assistant\n";
    assert_eq!(prompts, [(first, 0), (second, 1)]);
}

#[test]
fn what_was_written_of_a_stopped_answer_stays() {
    let (prompts, reason) = prompts(ANSWER, Some(3), &["Where?", "When?"]);
    assert_eq!(reason, FinishReason::Interrupted);
    let told = &prompts[1].0;
    let kept = told.split("assistant\n").nth(1).expect("an answer");
    let kept = kept.split("<|im_end|>").next().expect("its end");
    assert!(!kept.is_empty() && kept.len() < ANSWER.len(), "{kept:?}");
    assert!(ANSWER.starts_with(kept), "{kept:?}");
}

#[test]
fn a_turn_that_was_stopped_before_a_word_is_not_kept() {
    let (prompts, reason) = prompts(ANSWER, Some(0), &["Where?", "When?"]);
    assert_eq!(reason, FinishReason::Interrupted);
    let second = turn("user", "When?") + "<|im_start|>assistant\n";
    assert_eq!(prompts, [(second, 0)]);
}

#[test]
fn half_a_character_is_never_shown() {
    let (prompts, _) = prompts("é日", Some(3), &["Where?", "When?"]);
    assert!(!prompts[1].0.contains('\u{fffd}'), "{prompts:?}");
    assert!(
        prompts[1].0.contains("assistant\né<|im_end|>"),
        "{prompts:?}"
    );
}
