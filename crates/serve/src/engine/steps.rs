//! The loop of the engine: takes requests on, and computes one step after the other.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Instant,
};

use burn::tensor::{Tensor, backend::Backend};
use burn_peft_decoder::{Decoder, FinishReason, KvSlots};
use burn_peft_ops::Ops;
use tokio::sync::oneshot;

use super::{
    adapters::{AdapterId, AdapterValues, Adapters, Loaded},
    handle::{Counters, EngineLimits, LoadAdapter},
    logprobs::logprobs,
    row::{Event, Prefix, PromptLogprobs, Request, Row, Token},
};

/// Tokens of a prompt whose scores are computed at a time, where they are asked for.
const SCORED_AT_ONCE: usize = 32;

/// What the engine is told.
pub(crate) enum Command {
    Run(Box<Request>),
    Load {
        id: AdapterId,
        dir: PathBuf,
        done: oneshot::Sender<Result<usize, String>>,
    },
    Unload(AdapterId),
    Drain,
}

/// The state of the engine's thread.
pub(crate) struct Worker<B: Backend> {
    pub(super) base: Decoder<B>,
    pub(super) adapters: Adapters<B>,
    pub(super) slots: KvSlots<B>,
    /// What each slot holds that no row has, and when it was last used.
    pub(super) idle: Vec<Option<Idle>>,
    pub(super) rows: Vec<Row<B>>,
    pub(super) queue: VecDeque<Request>,
    load: LoadAdapter<B>,
    pub(super) limits: EngineLimits,
    pub(super) counters: Arc<Counters>,
    /// Whether nothing more is taken on.
    draining: bool,
    /// Counts the rows that ended.
    clock: u64,
}

/// What a slot without a row holds.
#[derive(Debug, Default)]
pub(super) struct Idle {
    pub(super) content: Option<Content>,
    pub(super) last_used: u64,
}

/// A row's tokens in a slot.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) adapter: AdapterId,
    pub(super) prefix: Prefix,
    pub(super) tokens: Vec<Token>,
}

impl<B: Ops> Worker<B> {
    pub(crate) fn new(
        base: Decoder<B>,
        given: Vec<AdapterValues<B>>,
        load: LoadAdapter<B>,
        limits: EngineLimits,
        counters: Arc<Counters>,
    ) -> Self {
        let mut adapters = Adapters::new();
        let own_heads = base.config().num_key_value_heads;
        let mut heads = own_heads;
        for (adapter, id) in given.into_iter().zip(1..) {
            let adapter = Loaded::new(&base, adapter);
            heads = heads.max(adapter.heads().unwrap_or(own_heads));
            adapters.add(&base, AdapterId(id), adapter);
        }
        let size = [limits.max_batch, limits.max_context];
        let device = base.device();
        Self {
            slots: KvSlots::new(base.config(), base.dtype(), size, heads, &device),
            idle: (0..limits.max_batch)
                .map(|_| Some(Idle::default()))
                .collect(),
            base,
            adapters,
            rows: Vec::new(),
            queue: VecDeque::new(),
            load,
            limits,
            counters,
            draining: false,
            clock: 0,
        }
    }

    /// Works until there is nothing more to come.
    pub(crate) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            let has_work = !self.rows.is_empty() || !self.queue.is_empty();
            if !has_work {
                if self.draining {
                    break;
                }
                match commands.recv() {
                    Ok(command) => self.obey(command),
                    Err(_) => break,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.obey(command);
            }
            self.drop_abandoned();
            self.admit();
            if !self.rows.is_empty() {
                self.step();
            }
            let counters = &self.counters;
            counters.running.store(self.rows.len(), Ordering::Release);
        }
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Run(request) if self.draining => {
                self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
                let _ = request.events.send(Event::Gone);
            }
            Command::Run(request) => self.queue.push_back(*request),
            Command::Load { id, dir, done } => {
                let found = (self.load)(&dir).and_then(|adapter| {
                    let adapter = Loaded::new(&self.base, adapter);
                    let room = self.slots.heads();
                    if adapter.heads().is_some_and(|heads| heads > room) {
                        return Err(format!(
                            "its keys have more heads than the {room} that were reserved; name it when the server starts"
                        ));
                    }
                    let tokens = adapter.virtual_tokens();
                    self.adapters.add(&self.base, id, adapter);
                    Ok(tokens)
                });
                let _ = done.send(found);
            }
            Command::Unload(id) => {
                self.adapters.remove(&self.base, id);
                let of_it = |content: &Content| content.adapter == id;
                for idle in self.idle.iter_mut().flatten() {
                    idle.content.take_if(|content| of_it(content));
                }
            }
            Command::Drain => self.draining = true,
        }
    }

    /// Ends rows and forgets requests whose client is gone, or whose time is up.
    fn drop_abandoned(&mut self) {
        let now = Instant::now();
        let is_late = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let before = self.queue.len();
        self.queue.retain(|request| {
            let late = is_late(request.deadline);
            if late {
                let _ = request.events.send(Event::TimedOut);
            }
            !late && !request.events.is_closed()
        });
        let forgotten = before - self.queue.len();
        self.counters.waiting.fetch_sub(forgotten, Ordering::AcqRel);
        let mut index = 0;
        while index < self.rows.len() {
            let row = &self.rows[index];
            let late = is_late(row.deadline);
            if late {
                let _ = row.events.send(Event::TimedOut);
            }
            match late || row.events.is_closed() {
                true => self.end(index),
                false => index += 1,
            }
        }
    }

    /// Takes a row out. Its slot keeps what it holds until another row needs it.
    pub(super) fn end(&mut self, index: usize) {
        let mut row = self.rows.swap_remove(index);
        row.tokens.truncate(row.computed);
        self.clock += 1;
        let is_loaded = self.adapters.get(row.id).is_some();
        self.idle[row.slot] = Some(Idle {
            content: is_loaded.then_some(Content {
                adapter: row.id,
                prefix: row.prefix,
                tokens: row.tokens,
            }),
            last_used: self.clock,
        });
    }

    /// Hands the next token of a row out, and ends the row where it is the last.
    pub(super) fn accept(&mut self, index: usize, scores: &[f32]) -> bool {
        let row = &mut self.rows[index];
        if let Some(PromptLogprobs { known, .. }) = row.prompt_logprobs.take() {
            let _ = row.events.send(Event::Prompt(known));
        }
        if row.limit == 0 {
            let _ = row.events.send(Event::Done(FinishReason::Length));
            return true;
        }
        let id = row.sampler.choose(scores);
        let logprobs = row.logprobs.map(|count| logprobs(scores, id, count));
        row.tokens.push(Token::Id(id));
        row.generated += 1;
        let generated = &self.counters.generated_tokens;
        generated.fetch_add(1, Ordering::Relaxed);
        let _ = row.events.send(Event::Token { id, logprobs });
        let reason = match () {
            () if row.sampler.stops_at(id) => FinishReason::Stop,
            () if row.generated >= row.limit => FinishReason::Length,
            () => return false,
        };
        let _ = row.events.send(Event::Done(reason));
        true
    }

    /// Hands out what a row's head says of its last state, `[1, d_model]`.
    pub(super) fn read_by_head(&self, index: usize, state: Tensor<B, 2>) {
        let row = &self.rows[index];
        let head = row.adapter.head.as_ref().expect("admitted with a head");
        let said = head.forward(state).into_data();
        let _ = row.events.send(Event::Head(said.iter::<f32>().collect()));
        let _ = row.events.send(Event::Done(FinishReason::Stop));
    }

    /// Notes the log-probabilities of the ids that stand behind tokens of the prompt, from the states of these.
    ///
    /// # Shapes
    /// - states: `[tokens, d_model]`, those of the row's tokens from `first` on
    pub(super) fn note_prompt(&mut self, index: usize, first: usize, states: Tensor<B, 2>) {
        let row = &mut self.rows[index];
        let Some(PromptLogprobs { count, known }) = &mut row.prompt_logprobs else {
            return;
        };
        if first == 0 && matches!(row.tokens[0], Token::Id(_)) {
            known.push(Vec::new());
        }
        let next = row.tokens[first + 1..].iter();
        // A part at a time: the scores of a long piece would take much memory.
        let next = next.as_slice().chunks(SCORED_AT_ONCE);
        for (states, next) in states.split(SCORED_AT_ONCE, 0).into_iter().zip(next) {
            let tokens = states.dims()[0];
            let scores = self.base.logits(states).into_data();
            let scores: Vec<f32> = scores.iter::<f32>().collect();
            let vocab = scores.len() / tokens;
            for (scores, next) in scores.chunks_exact(vocab).zip(next) {
                let Token::Id(id) = next else { continue };
                // Virtual tokens alone stand before the first id, and no text does.
                known.push(match known.is_empty() {
                    true => Vec::new(),
                    false => logprobs(scores, *id, *count),
                });
            }
        }
    }
}
