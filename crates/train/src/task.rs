//! What a run learns, settled: the classes, what rows are tokenised for, and the head.

use burn::tensor::backend::Backend;
use burn_peft::{Head, HeadKind};
use burn_peft_data::{Labels, ProblemType, Rows, Targets, Task};
use burn_peft_format::{AdapterFolder, ProblemType as FolderProblemType, TaskOptions, TaskType};

use crate::{Error, TaskConfig, Verbalizer};

/// The outputs of a head for answers: one for first and one for last tokens.
const ENDS: usize = 2;

/// A task, with all that a run or an adapter folder says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSetup {
    /// The task.
    pub task: Task,
    /// Its classes; `None` of a task without.
    pub labels: Option<Labels>,
    /// For each class, in order, the words that stand for it; `None` where a head tells the classes.
    pub words: Option<Vec<String>>,
    /// Whether a question may have no answer.
    pub no_answer: bool,
    /// The rest.
    pub config: TaskConfig,
}

impl TaskSetup {
    /// The task that `config` names, or that `rows` are made for, with their classes where `config` names none.
    ///
    /// # Errors
    /// A task that the rows are not made for, options of another task, and words that are not one text for each class.
    pub fn settle(config: &TaskConfig, rows: &Rows) -> Result<Self, Error> {
        let task = config.r#type.unwrap_or(rows.task());
        check_rows(task, rows)?;
        check_options(config, task)?;
        let has_classes = matches!(task, Task::SeqCls | Task::TokenCls);
        let mut labels = has_classes
            .then(|| Labels::of_type(rows, config.problem_type))
            .transpose()?;
        if let (Some(labels), Some(names)) = (&mut labels, &config.labels) {
            labels.names = names.clone();
        }
        let words = labels.as_ref().map(|labels| words_of(config, labels));
        let no_answer = config.version_2_with_negative;
        let no_answer = no_answer.unwrap_or_else(|| some_without_answer(rows));
        Ok(Self {
            task,
            words: words.transpose()?.flatten(),
            no_answer: task == Task::Qa && no_answer,
            config: TaskConfig {
                r#type: Some(task),
                labels: labels.as_ref().map(|labels| labels.names.clone()),
                problem_type: (task == Task::SeqCls)
                    .then(|| labels.as_ref().map(|labels| labels.problem_type))
                    .flatten(),
                version_2_with_negative: (task == Task::Qa).then_some(no_answer),
                ..config.clone()
            },
            labels,
        })
    }

    /// To write text.
    #[must_use]
    pub fn text() -> Self {
        Self {
            task: Task::CausalLm,
            labels: None,
            words: None,
            no_answer: false,
            config: TaskConfig::default(),
        }
    }

    /// The task of an adapter folder: its head's, or that of its words, or else text to write.
    #[must_use]
    pub fn of_folder(folder: &AdapterFolder) -> Self {
        let saved = folder.config.task.clone().unwrap_or_default();
        let words = (!saved.verbalizer.is_empty()).then_some(saved.verbalizer);
        let task = match folder.config.task_type {
            Some(TaskType::SeqCls) => Task::SeqCls,
            Some(TaskType::TokenCls) => Task::TokenCls,
            Some(TaskType::QuestionAns) => Task::Qa,
            _ if words.is_some() => Task::SeqCls,
            _ => Task::CausalLm,
        };
        let problem_type = match saved.problem_type {
            Some(FolderProblemType::MultiLabelClassification) => ProblemType::MultiLabel,
            Some(FolderProblemType::Regression) => ProblemType::Regression,
            Some(FolderProblemType::SingleLabelClassification) => ProblemType::SingleLabel,
            // As in transformers, where a head of one output is for a number.
            None if folder.labels().len() == 1 => ProblemType::Regression,
            None => ProblemType::SingleLabel,
        };
        let has_classes = matches!(task, Task::SeqCls | Task::TokenCls);
        let default = TaskConfig::default();
        Self {
            task,
            labels: has_classes.then(|| Labels {
                problem_type,
                names: folder.labels(),
            }),
            words,
            no_answer: saved.no_answer,
            config: TaskConfig {
                r#type: Some(task),
                label_all_tokens: saved.label_all_tokens,
                null_score_diff_threshold: saved
                    .null_score_diff_threshold
                    .unwrap_or(default.null_score_diff_threshold),
                max_answer_length: saved.max_answer_length.unwrap_or(default.max_answer_length),
                doc_stride: saved.doc_stride.unwrap_or(default.doc_stride),
                calibrate: saved.calibrate,
                ..default
            },
        }
    }

    /// What an adapter folder has to say of the task; `None` of text to write.
    pub(crate) fn folder_options(&self) -> Option<TaskOptions> {
        if self.task == Task::CausalLm {
            return None;
        }
        let labels = self.labels.as_ref();
        let problem_type = labels.filter(|_| self.task == Task::SeqCls);
        let threshold = self.config.null_score_diff_threshold;
        Some(TaskOptions {
            labels: labels.map_or(Vec::new(), |labels| labels.names.clone()),
            problem_type: problem_type.map(|labels| match labels.problem_type {
                ProblemType::SingleLabel => FolderProblemType::SingleLabelClassification,
                ProblemType::MultiLabel => FolderProblemType::MultiLabelClassification,
                ProblemType::Regression => FolderProblemType::Regression,
            }),
            label_all_tokens: self.config.label_all_tokens,
            no_answer: self.no_answer,
            null_score_diff_threshold: self.no_answer.then_some(threshold),
            max_answer_length: (self.task == Task::Qa).then_some(self.config.max_answer_length),
            doc_stride: (self.task == Task::Qa).then_some(self.config.doc_stride),
            verbalizer: self.words.clone().unwrap_or_default(),
            calibrate: self.config.calibrate,
        })
    }

    /// The task and its classes, on a line; `None` of text to write.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        const SHOWN: usize = 12;
        if self.task == Task::CausalLm {
            return None;
        }
        let mut text = format!("task: {}", self.task);
        match &self.labels {
            Some(labels) if labels.problem_type == ProblemType::Regression => {
                text += &format!(", numbers in a row: {}", labels.len());
            }
            Some(labels) => {
                let names = labels.names.iter().take(SHOWN).map(String::as_str);
                let names: Vec<&str> = names.collect();
                let more = if labels.len() > SHOWN { ", …" } else { "" };
                text += &format!(", {} classes: {}{more}", labels.len(), names.join(", "));
            }
            None if self.no_answer => text += ", and a question may have no answer",
            None => {}
        }
        if let Some(words) = &self.words {
            text += &format!("; told by the words {words:?}");
        }
        Some(text)
    }

    /// Checks that rows are for this task, and that their labels are among its classes.
    ///
    /// # Errors
    /// Rows of another task, and the first label that is no class.
    pub fn check(&self, rows: &Rows) -> Result<(), Error> {
        check_rows(self.task, rows)?;
        match &self.labels {
            Some(labels) => Ok(labels.check(rows)?),
            None => Ok(()),
        }
    }

    /// What rows are tokenised for: to be scored, or to be learned.
    #[must_use]
    pub fn targets(&self, scored: bool) -> Targets<'_> {
        match (self.task, &self.labels, &self.words) {
            (Task::SeqCls, Some(labels), Some(words)) => Targets::Verbalizer(labels, words),
            (Task::SeqCls, Some(labels), None) => Targets::Class(labels),
            (Task::TokenCls, Some(labels), _) => Targets::Tags {
                labels,
                label_all_tokens: self.config.label_all_tokens,
            },
            (Task::Qa, ..) => Targets::Answers {
                doc_stride: self.config.doc_stride,
                no_answer: self.no_answer,
                every_window: scored,
            },
            _ => Targets::Text,
        }
    }

    /// Which states the head reads; `None` where the language-model head serves.
    #[must_use]
    pub fn head_kind(&self) -> Option<HeadKind> {
        match self.task {
            Task::CausalLm => None,
            Task::SeqCls if self.words.is_some() => None,
            Task::SeqCls => Some(HeadKind::Sequence),
            Task::TokenCls => Some(HeadKind::Token),
            Task::Qa => Some(HeadKind::Span),
        }
    }

    /// The number of outputs of the head.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.labels.as_ref().map_or(ENDS, Labels::len)
    }

    /// A new head as the task's options say, for a base of this width; `None` where the language-model head serves.
    #[must_use]
    pub fn init_head<B: Backend>(
        &self,
        d_model: usize,
        seed: u64,
        device: &B::Device,
    ) -> Option<Head<B>> {
        let head = Head::init(self.head_kind()?, [self.outputs(), d_model], seed, device);
        Some(self.with_options(head))
    }

    /// A head that trains as the task's options say.
    pub(crate) fn with_options<B: Backend>(&self, head: Head<B>) -> Head<B> {
        let head = head.with_dropout(self.config.classifier_dropout);
        match self.config.freeze_head {
            true => head.frozen(),
            false => head,
        }
    }
}

fn check_rows(task: Task, rows: &Rows) -> Result<(), Error> {
    let found = rows.task();
    match found == task {
        true => Ok(()),
        false => Err(Error::OtherTask {
            path: rows.path().to_owned(),
            found,
            task,
        }),
    }
}

/// Whether one of the questions has no answer.
fn some_without_answer(rows: &Rows) -> bool {
    let mut questions = rows.rows().iter().filter_map(|(_, row)| row.question());
    questions.any(|question| question.answers.as_ref().is_some_and(Vec::is_empty))
}

/// Refuses options that the task does not have.
fn check_options(config: &TaskConfig, task: Task) -> Result<(), Error> {
    let default = TaskConfig::default();
    let given = [
        (
            "labels",
            config.labels.is_some(),
            &[Task::SeqCls, Task::TokenCls][..],
        ),
        (
            "problem_type",
            config.problem_type.is_some(),
            &[Task::SeqCls],
        ),
        (
            "verbalizer",
            config.verbalizer != Verbalizer::Off,
            &[Task::SeqCls],
        ),
        ("calibrate", config.calibrate, &[Task::SeqCls]),
        (
            "label_all_tokens",
            config.label_all_tokens,
            &[Task::TokenCls],
        ),
        (
            "version_2_with_negative",
            config.version_2_with_negative.is_some(),
            &[Task::Qa],
        ),
        (
            "doc_stride",
            config.doc_stride != default.doc_stride,
            &[Task::Qa],
        ),
        (
            "freeze_head",
            config.freeze_head,
            &[Task::SeqCls, Task::TokenCls, Task::Qa],
        ),
        (
            "classifier_dropout",
            config.classifier_dropout != 0.0,
            &[Task::SeqCls, Task::TokenCls, Task::Qa],
        ),
    ];
    match given
        .iter()
        .find(|(_, given, of)| *given && !of.contains(&task))
    {
        None => Ok(()),
        Some((option, ..)) => Err(Error::NotOfTask { option, task }),
    }
}

/// The words of each class, where words stand for classes.
fn words_of(config: &TaskConfig, labels: &Labels) -> Result<Option<Vec<String>>, Error> {
    let wrong = |message: String| Error::BadValue {
        place: String::new(),
        key: "task.verbalizer".into(),
        message,
    };
    let words = match &config.verbalizer {
        Verbalizer::Off => return Ok(None),
        Verbalizer::Names => return Ok(Some(labels.names.clone())),
        Verbalizer::Words(words) => words,
    };
    if let Some(name) = words.keys().find(|name| labels.class(name).is_none()) {
        return Err(wrong(format!(
            "{name:?} is no class; the classes are {}",
            labels.names.join(", ")
        )));
    }
    let of_class = |name: &String| {
        let found = words.get(name).filter(|words| !words.is_empty());
        found
            .cloned()
            .ok_or_else(|| wrong(format!("class {name:?} has no words")))
    };
    labels
        .names
        .iter()
        .map(of_class)
        .collect::<Result<_, _>>()
        .map(Some)
}
