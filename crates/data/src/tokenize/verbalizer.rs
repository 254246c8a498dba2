//! Texts whose class a language model tells in words.

use std::iter::repeat_n;

use super::classes::assemble;
use super::source::{Numbered, Outcome, Source, TooLong};
use super::supervise::Supervise;
use crate::error::{Error, Result};
use crate::example::{Example, IGNORE_INDEX, Parts, RowLabel};
use crate::given::{Given, GivenIds};
use crate::labels::{Labels, ProblemType};
use crate::layout::Prompt;
use crate::row::Row;
use crate::rows::Rows;
use crate::task::Task;
use crate::template::Template;
use crate::tokenizer::TextTokenizer;

/// The words of each class, tokenised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verbalizer {
    answers: Vec<Vec<u32>>,
}

/// What a language model is given of a row to classify, and what it may write behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The ids in front of the words, with the virtual tokens among them.
    pub prompt: Prompt,
    /// For each class, the ids of its words.
    pub answers: Vec<Vec<u32>>,
    /// The number of virtual tokens behind the words.
    after: usize,
    line: usize,
}

impl Verbalizer {
    /// Tokenises `words`, a text for each class, in the order of the classes. The eos ends all of them if the tokens
    /// of one begin those of another; if not, the words end by themselves.
    ///
    /// # Errors
    /// The rows have several classes or numbers, there are not as many texts as classes, one has no token, or two have
    /// the same.
    pub fn new(labels: &Labels, words: &[String], tokenizer: &TextTokenizer) -> Result<Self> {
        let bad = |reason: String| Error::Verbalizer { reason };
        if labels.problem_type != ProblemType::SingleLabel {
            return Err(bad(format!(
                "words stand for the one class of a row, and here a label is of {}",
                labels.problem_type
            )));
        }
        if words.len() != labels.len() {
            return Err(bad(format!(
                "{} words for {} classes; give a word or several for each class",
                words.len(),
                labels.len()
            )));
        }
        let answers = words.iter().map(|words| tokenizer.encode(words));
        let mut answers = answers.collect::<Result<Vec<_>>>()?;
        if let Some(class) = answers.iter().position(Vec::is_empty) {
            return Err(bad(format!(
                "the words {:?} of the class {:?} have no token",
                words[class], labels.names[class]
            )));
        }
        let mut needs_end = false;
        for (class, answer) in answers.iter().enumerate() {
            for (other, longer) in answers.iter().enumerate() {
                let begins = class != other && longer.starts_with(answer);
                if begins && longer.len() == answer.len() {
                    return Err(bad(format!(
                        "the classes {:?} and {:?} have the same words, {:?}",
                        labels.names[class], labels.names[other], words[class]
                    )));
                }
                needs_end |= begins;
            }
        }
        if needs_end {
            let eos = tokenizer.eos_id().ok_or(Error::NoEos)?;
            tokenizer.check_ids(&[eos])?;
            answers.iter_mut().for_each(|answer| answer.push(eos));
        }
        Ok(Self { answers })
    }

    /// The ids of the words of each class, with the eos if they need it.
    pub fn answers(&self) -> &[Vec<u32>] {
        &self.answers
    }

    /// The candidates of each row, in order, for the score of every class. The prompt of a row is that of
    /// [`Targets::Verbalizer`](crate::Targets::Verbalizer): its fields are cut until the words of any class fit into
    /// `max_length`.
    ///
    /// # Errors
    /// With file and line: a text cannot be tokenised, or what stands around it leaves no room for it. Without a line: the template has no place for the words.
    pub fn candidates(
        &self,
        rows: &Rows,
        tokenizer: &TextTokenizer,
        template: Option<&Template>,
        max_length: Option<usize>,
    ) -> Result<Vec<Candidates>> {
        let source = Source {
            path: rows.path(),
            tokenizer,
            template,
            limit: max_length.unwrap_or(usize::MAX),
            supervise: Supervise::default(),
        };
        let mut all = Vec::with_capacity(rows.rows().len());
        for chunk in rows.rows().chunks(super::CHUNK) {
            for ((line, _), prompt) in chunk.iter().zip(self.prompts(&source, chunk)?) {
                let (ids, after) = prompt;
                all.push(Candidates {
                    prompt: Prompt {
                        input_ids: ids.input_ids,
                        placement: ids.placement,
                    },
                    answers: self.answers.clone(),
                    after,
                    line: *line,
                });
            }
        }
        Ok(all)
    }

    /// Makes the examples of `rows`, in order: the prompt and the words of the row's class, which are learned.
    pub(super) fn tokenize_chunk(
        &self,
        source: &Source<'_>,
        rows: &[Numbered],
        labels: &Labels,
    ) -> Result<Vec<Outcome>> {
        let outcome = |((line, row), (ids, after)): (&Numbered, (GivenIds, usize))| {
            let gold = labels.gold(row);
            let class = match gold.map_err(|reason| source.bad(*line, reason))? {
                RowLabel::Class(class) => class,
                _ => {
                    let reason = "the row has no label to learn";
                    return Err(source.bad(*line, reason.to_owned()));
                }
            };
            let is_cut = ids.is_cut;
            let prompt = Prompt {
                input_ids: ids.input_ids,
                placement: ids.placement,
            };
            let example = answered(&prompt, &self.answers[class], after, *line);
            // The first token of a row is not predicted, so a word of one token needs something in front of it.
            if !example.has_target() {
                let reason = "no token stands in front of the words of the label";
                return Err(source.bad(*line, reason.to_owned()));
            }
            Ok(Outcome {
                examples: vec![example],
                too_long: is_cut.then(TooLong::default),
            })
        };
        let prompts = self.prompts(source, rows)?;
        rows.iter().zip(prompts).map(outcome).collect()
    }

    /// The most tokens of a prompt, so that the words of any class fit behind it.
    fn room(&self, source: &Source<'_>) -> usize {
        let longest = self.answers.iter().map(Vec::len).max().unwrap_or(0);
        source.limit.saturating_sub(longest)
    }

    /// The prompts of rows, each with the number of virtual tokens behind the words.
    fn prompts(&self, source: &Source<'_>, rows: &[Numbered]) -> Result<Vec<(GivenIds, usize)>> {
        let mut all = Vec::with_capacity(rows.len());
        for (line, row) in rows {
            check_task(source, *line, row)?;
            all.push(given(source, row).map_err(|error| source.at(*line, error))?);
        }
        let after = all
            .iter()
            .map(|given| given.as_ref().map_or(0, |given| given.after));
        let after: Vec<usize> = after.collect();
        let ids = assemble(source, rows, &all, self.room(source))?;
        Ok(ids.into_iter().zip(after).collect())
    }
}

impl Candidates {
    /// An example for each class: the prompt and the words of the class, whose loss is the score. `row` is its
    /// [`Example::row`].
    pub fn examples(&self, row: usize) -> Vec<Example> {
        let example = |answer: &Vec<u32>| Example {
            row,
            ..answered(&self.prompt, answer, self.after, self.line)
        };
        self.answers.iter().map(example).collect()
    }
}

/// A prompt and words, which are learned.
fn answered(prompt: &Prompt, answer: &[u32], after: usize, line: usize) -> Example {
    let mut labels = vec![IGNORE_INDEX; prompt.input_ids.len()];
    labels.extend(answer.iter().copied().map(i64::from));
    let input_ids = [&prompt.input_ids, answer].concat();
    let placement = prompt.placement.as_ref().map(|placement| {
        let behind = repeat_n(input_ids.len(), after);
        placement.iter().copied().chain(behind).collect()
    });
    Example {
        labels,
        placement,
        input_ids,
        row_label: None,
        parts: Parts::Whole,
        row: 0,
        line,
    }
}

/// The parts in front of the words. `None` of token ids, which are used as they are.
fn given<'a>(source: &Source<'a>, row: &'a Row) -> Result<Option<Given<'a>>> {
    let tokenizer = source.tokenizer;
    let Some(template) = source.template else {
        let prompt = |(text, pair)| Given::prompt(text, pair, tokenizer);
        return Ok(row.text().map(prompt));
    };
    let given = template.given_of(row, true)?;
    Ok(Some(given.starting_with(tokenizer.start_ids())))
}

fn check_task(source: &Source<'_>, line: usize, row: &Row) -> Result<()> {
    let (found, task) = (row.format().task(), Task::SeqCls);
    if found == task {
        return Ok(());
    }
    Err(Error::OtherTask {
        path: source.path.to_owned(),
        line,
        format: row.format().to_string(),
        found,
        task,
    })
}
