//! The engine as others see it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use burn_peft_decoder::Decoder;
use burn_peft_ops::Ops;
use tokio::sync::oneshot;

use super::{
    adapters::{AdapterId, AdapterValues},
    row::Request,
    steps::{Command, Worker},
};

/// What an engine reserves and takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Rows that run at the same time.
    pub max_batch: usize,
    /// Tokens of a row, virtual and new ones included.
    pub max_context: usize,
    /// Requests that wait for a place in the batch.
    pub max_queue: usize,
    /// Tokens of prompts that one step takes, beside a token of each running row. Fewer let streams go on more evenly;
    /// more start a long prompt sooner.
    pub prefill_tokens: usize,
}

/// What became of a request that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It runs, or waits to.
    Accepted,
    /// The queue is full.
    Full,
    /// The engine takes nothing on any more.
    Stopping,
}

/// Figures of an engine, since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that wait.
    pub waiting: AtomicUsize,
    /// Rows that run.
    pub running: AtomicUsize,
    /// Tokens of prompts that were computed.
    pub prompt_tokens: AtomicU64,
    /// Tokens of prompts that were in the cache.
    pub cached_tokens: AtomicU64,
    /// New tokens.
    pub generated_tokens: AtomicU64,
    /// Steps.
    pub steps: AtomicU64,
}

/// A thread that computes, and the way to it. Dropping it lets what runs finish.
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    limits: EngineLimits,
    thread: Option<JoinHandle<()>>,
}

/// Reads an adapter from its folder.
pub(crate) type LoadAdapter<B> = Box<dyn FnMut(&Path) -> Result<AdapterValues<B>, String> + Send>;

impl Engine {
    /// Reserves the memory and starts the thread. `adapters` get the ids 1, 2 and so on; `load` reads those that are
    /// added later.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub fn start<B: Ops>(
        base: Decoder<B>,
        adapters: Vec<AdapterValues<B>>,
        load: impl FnMut(&Path) -> Result<AdapterValues<B>, String> + Send + 'static,
        limits: EngineLimits,
    ) -> std::io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let of_worker = Arc::clone(&counters);
        let load: LoadAdapter<B> = Box::new(load);
        let work = move || Worker::new(base, adapters, load, limits, of_worker).run(&received);
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(work)?;
        Ok(Self {
            commands,
            counters,
            limits,
            thread: Some(thread),
        })
    }

    /// Hands a request in. It is the caller's to see that the prompt and its new tokens fit
    /// [`EngineLimits::max_context`]: a row ends there.
    pub fn submit(&self, request: Request) -> Submitted {
        let waiting = &self.counters.waiting;
        let room = |waiting| (waiting < self.limits.max_queue).then_some(waiting + 1);
        if waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .is_err()
        {
            return Submitted::Full;
        }
        match self.commands.send(Command::Run(Box::new(request))) {
            Ok(()) => Submitted::Accepted,
            Err(_) => {
                waiting.fetch_sub(1, Ordering::AcqRel);
                Submitted::Stopping
            }
        }
    }

    /// Reads an adapter between two steps, under an id that no other had. The answer is what is wrong with it, or the
    /// number of its virtual tokens.
    #[must_use]
    pub fn load(&self, id: AdapterId, dir: PathBuf) -> oneshot::Receiver<Result<usize, String>> {
        let (done, answer) = oneshot::channel();
        // Where the engine is gone, the answer is that the other side was dropped.
        let _ = self.commands.send(Command::Load { id, dir, done });
        answer
    }

    /// Forgets an adapter. Rows that run with it go on.
    pub fn unload(&self, id: AdapterId) {
        let _ = self.commands.send(Command::Unload(id));
    }

    /// Takes nothing on any more; what runs or waits is finished.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain);
    }

    /// Whether the thread is still there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// What it reserved and takes on.
    #[must_use]
    pub fn limits(&self) -> EngineLimits {
        self.limits
    }

    /// Its figures.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drain();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}
