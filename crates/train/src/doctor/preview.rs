//! Rows as the model will see them.

use burn_peft_data::{Example, IGNORE_INDEX, Labels, Parts, RowLabel, Rows, Task, TextTokenizer};
use serde::Serialize;

use crate::TaskSetup;

/// Above so many stretches, each is decoded by itself: what stands before it is not decoded again for every one.
const STRETCHES: usize = 200;

/// A row as it is tokenised, with what is learned of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreviewRow {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What is learned of the row as a whole, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Words and their tags, of a tagged row. `None` for a word without a tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, Option<String>)>,
    /// The text, cut where something else begins. Of a tagged row, none of it is marked.
    pub stretches: Vec<Stretch>,
    /// Its tokens, virtual ones among them.
    pub tokens: Vec<PreviewToken>,
}

/// A stretch of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Stretch {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Whether it is learned.
        learned: bool,
    },
    /// Virtual tokens.
    Virtual {
        /// How many.
        virtual_tokens: usize,
    },
}

/// A token of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PreviewToken {
    /// Its position, virtual tokens counted.
    pub position: usize,
    /// Its id; `None` of a virtual token.
    pub id: Option<u32>,
    /// Its text.
    pub text: String,
    /// Its label: an id, a class, or −100. `None` of a virtual token.
    pub label: Option<i64>,
    /// Whether it is learned, or is part of the answer that is.
    pub learned: bool,
}

/// The first rows of a file. Of a row that stands in several windows, the one with the answer is shown.
pub(crate) fn preview(
    rows: &Rows,
    examples: &[Example],
    task: &TaskSetup,
    tokenizer: &TextTokenizer,
    virtual_tokens: usize,
    count: usize,
) -> Vec<PreviewRow> {
    let windows = examples.chunk_by(|a, b| a.row == b.row).take(count);
    let chosen = windows.map(|windows| {
        let with_answer = windows.iter().find(|window| answer(window).is_some());
        with_answer.unwrap_or(&windows[0])
    });
    let shown = chosen.map(|example| Preview {
        rows,
        example,
        task,
        tokenizer,
        virtual_tokens,
    });
    shown.map(|row| row.build()).collect()
}

/// The first and the last token of the answer, where the row has one.
fn answer(example: &Example) -> Option<std::ops::RangeInclusive<usize>> {
    let none = match &example.parts {
        Parts::Context { no_answer, .. } => *no_answer,
        _ => None,
    };
    match &example.row_label {
        Some(RowLabel::Span { start, end }) if Some(*start) != none => Some(*start..=*end),
        _ => None,
    }
}

struct Preview<'a> {
    rows: &'a Rows,
    example: &'a Example,
    task: &'a TaskSetup,
    tokenizer: &'a TextTokenizer,
    virtual_tokens: usize,
}

impl Preview<'_> {
    fn build(&self) -> PreviewRow {
        PreviewRow {
            line: self.example.line,
            label: self.label(),
            tags: self.tags(),
            stretches: self.stretches(),
            tokens: self.tokens(),
        }
    }

    fn is_learned(&self, index: usize) -> bool {
        match answer(self.example) {
            Some(answer) => answer.contains(&index),
            None => self.example.labels[index] != IGNORE_INDEX,
        }
    }

    /// For each virtual token, the index of the id that follows it.
    fn placement(&self) -> Vec<usize> {
        let placed = self.example.placement.clone();
        placed.unwrap_or_else(|| vec![0; self.virtual_tokens])
    }

    fn tokens(&self) -> Vec<PreviewToken> {
        let placement = self.placement();
        let mut placed = placement.iter().peekable();
        let mut tokens = Vec::with_capacity(self.example.len() + placement.len());
        for index in 0..=self.example.len() {
            while placed.next_if(|&&next| next <= index).is_some() {
                tokens.push(PreviewToken {
                    position: tokens.len(),
                    id: None,
                    text: String::new(),
                    label: None,
                    learned: false,
                });
            }
            let Some(&id) = self.example.input_ids.get(index) else {
                break;
            };
            tokens.push(PreviewToken {
                position: tokens.len(),
                id: Some(id),
                text: self.tokenizer.piece(id),
                label: Some(self.example.labels[index]),
                learned: self.is_learned(index),
            });
        }
        tokens
    }

    fn stretches(&self) -> Vec<Stretch> {
        let (placement, seq) = (self.placement(), self.example.len());
        // Nearly every word has a tag, and tags are listed.
        let is_learned = |index| self.task.task != Task::TokenCls && self.is_learned(index);
        let at = |index: usize| placement.iter().filter(|&&place| place == index).count();
        let mut edges: Vec<usize> = (1..seq)
            .filter(|&index| is_learned(index) != is_learned(index - 1))
            .chain(placement.iter().copied())
            .chain([0, seq])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let alone = edges.len() > STRETCHES;
        let mut stretches = Vec::new();
        for (number, &edge) in edges.iter().enumerate() {
            let virtual_tokens = at(edge);
            if virtual_tokens > 0 {
                stretches.push(Stretch::Virtual { virtual_tokens });
            }
            let Some(&next) = edges.get(number + 1) else {
                break;
            };
            stretches.push(Stretch::Text {
                text: self.text(edge..next, alone),
                learned: is_learned(edge),
            });
        }
        stretches
    }

    /// The text of some of the ids: what they add to the text of those before, because some decoders drop a space at
    /// the start.
    fn text(&self, range: std::ops::Range<usize>, alone: bool) -> String {
        let ids = &self.example.input_ids;
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
        let by_itself = || decode(&ids[range.clone()]);
        if alone {
            return by_itself();
        }
        let all = decode(&ids[..range.end]);
        let before = decode(&ids[..range.start]);
        all.strip_prefix(&before)
            .map_or_else(by_itself, str::to_owned)
    }

    fn label(&self) -> Option<String> {
        let names = |labels: &Labels, flags: &[bool]| {
            let chosen = labels.names.iter().zip(flags).filter(|(_, flag)| **flag);
            let names: Vec<&str> = chosen.map(|(name, _)| name.as_str()).collect();
            if names.is_empty() {
                "no class".to_owned()
            } else {
                names.join(", ")
            }
        };
        let labels = self.task.labels.as_ref();
        Some(match self.example.row_label.as_ref()? {
            RowLabel::Class(class) => labels?.names.get(*class)?.clone(),
            RowLabel::Classes(flags) => names(labels?, flags),
            RowLabel::Values(values) => {
                let values: Vec<String> = values.iter().map(f32::to_string).collect();
                values.join(", ")
            }
            RowLabel::Span { .. } => match answer(self.example) {
                Some(answer) => self
                    .text(*answer.start()..*answer.end() + 1, false)
                    .trim()
                    .to_owned(),
                None => "no answer".to_owned(),
            },
            RowLabel::Unknown => "not known".to_owned(),
        })
    }

    fn tags(&self) -> Vec<(String, Option<String>)> {
        let Parts::Words(firsts) = &self.example.parts else {
            return Vec::new();
        };
        if self.task.task != Task::TokenCls {
            return Vec::new();
        }
        let (_, row) = &self.rows.rows()[self.example.row];
        let names = self.task.labels.as_ref().map(|labels| &labels.names);
        let tag = |first: usize| {
            let class = usize::try_from(*self.example.labels.get(first)?).ok()?;
            names?.get(class).cloned()
        };
        let word = |(index, first): (usize, &usize)| match row.words() {
            Some(words) => words.get(index).cloned().unwrap_or_default(),
            None => {
                let id = self.example.input_ids.get(*first);
                id.map_or_else(String::new, |id| self.tokenizer.piece(*id))
            }
        };
        let words = firsts.iter().enumerate();
        words
            .map(|(index, first)| (word((index, first)), tag(*first)))
            .collect()
    }
}
