//! The inputs and options of a run.

use burn::tensor::DType;
use burn_peft_data::{Rows, TextTokenizer};
use burn_peft_decoder::Checkpoint;

use crate::{Observer, Ranks, RendererChoice, Stage, Stop};

/// What a run works on.
#[derive(Debug)]
pub struct RunInputs {
    /// The base, opened.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The base's hub id or path, for the adapter folder; `None` for one that has neither.
    pub base_name: Option<String>,
    /// Rows to learn from.
    pub train: Rows,
    /// Rows to evaluate on while training.
    pub valid: Option<Rows>,
    /// Rows to score before and after; without them, `valid` is scored.
    pub test: Option<Rows>,
}

impl RunInputs {
    /// Rows to learn from, and none to evaluate on.
    pub fn new(checkpoint: Checkpoint, tokenizer: TextTokenizer, train: Rows) -> Self {
        Self {
            checkpoint,
            tokenizer,
            base_name: None,
            train,
            valid: None,
            test: None,
        }
    }
}

/// Options of a run that are not part of its configuration.
pub struct RunOptions {
    /// Type of the frozen base.
    pub dtype: DType,
    /// Bytes of memory that the device has, where that is known; see
    /// [`GradientCheckpointing`](crate::GradientCheckpointing).
    pub memory: Option<u64>,
    /// Go on from the newest checkpoint of the output folder.
    pub resume: bool,
    /// How progress is shown.
    pub renderer: RendererChoice,
    /// Told each logged record.
    pub observers: Vec<Box<dyn Observer>>,
    /// Stops the run after the step under way.
    pub stop: Stop,
    /// The processes that share the run. The first one writes, shows and tells.
    pub ranks: Ranks,
    /// Told of everything that takes a while: what, how much is done, and of how much.
    pub progress: Box<dyn FnMut(Stage, u64, u64)>,
    /// Told in plain words what the run is about to do.
    pub notes: Box<dyn FnMut(&str)>,
}

/// A new run of an f32 base that shows its steps as plain lines and tells nobody else.
impl Default for RunOptions {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            memory: None,
            resume: false,
            renderer: RendererChoice::Plain,
            observers: Vec::new(),
            stop: Stop::new(),
            ranks: Ranks::alone(),
            progress: Box::new(|_, _, _| {}),
            notes: Box::new(|_| {}),
        }
    }
}

impl RunOptions {
    /// Those of a process that says nothing, unless it is the first.
    pub(crate) fn quiet_unless_first(mut self) -> Self {
        if !self.ranks.is_first() {
            self.progress = Box::new(|_, _, _| {});
            self.notes = Box::new(|_| {});
        }
        self
    }

    /// The default, but going on from the newest checkpoint.
    pub fn resuming() -> Self {
        Self {
            resume: true,
            ..Self::default()
        }
    }
}

impl std::fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("dtype", &self.dtype)
            .field("resume", &self.resume)
            .field("renderer", &self.renderer)
            .finish_non_exhaustive()
    }
}
