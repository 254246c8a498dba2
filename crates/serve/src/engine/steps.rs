//! The loop of the engine: takes requests on, and computes one step after the other.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Instant,
};

use burn::tensor::{Tensor, backend::Backend};
use burn_peft_decoder::{Decoder, FinishReason, KvSlots, Sampler};
use burn_peft_ops::Ops;
use tokio::sync::oneshot;

use super::{
    adapters::{AdapterId, AdapterValues, Adapters, Loaded},
    handle::{Counters, EngineLimits, LoadAdapter},
    logprobs::logprobs,
    row::{Event, Prefix, PromptLogprobs, Request, Row, Token, lay_out},
};

/// Tokens that a row must share with another, running one for them to be copied.
const WORTH_A_COPY: usize = 16;

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
    idle: Vec<Option<Idle>>,
    pub(super) rows: Vec<Row<B>>,
    queue: VecDeque<Request>,
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
struct Idle {
    content: Option<Content>,
    last_used: u64,
}

/// A row's tokens in a slot.
#[derive(Debug)]
struct Content {
    adapter: AdapterId,
    prefix: Prefix,
    tokens: Vec<Token>,
}

/// How many tokens two rows have in common at their beginning.
fn shared(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
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

    /// Gives slots to requests that wait, the first ones first.
    pub(super) fn admit(&mut self) {
        while self.idle.iter().any(Option::is_some) {
            let ready = self
                .queue
                .iter()
                .position(|request| !self.has_twin(request));
            let Some(request) = ready.and_then(|index| self.queue.remove(index)) else {
                return;
            };
            self.counters.waiting.fetch_sub(1, Ordering::AcqRel);
            let adapter = self.adapters.get(request.adapter);
            let fits = |adapter: &Arc<Loaded<B>>| !request.head || adapter.head.is_some();
            let Some(adapter) = adapter.filter(fits) else {
                let _ = request.events.send(Event::Gone);
                continue;
            };
            let (prefix, mut tokens) = lay_out(&adapter, &request.prompt);
            if request.head {
                // What stands behind the last id is not seen by it.
                let ids = tokens
                    .iter()
                    .rposition(|token| matches!(token, Token::Id(_)));
                tokens.truncate(ids.map_or(0, |last| last + 1));
            }
            // At least one token is left to compute: its state is what the next token comes from.
            let reusable = match request.prompt_logprobs {
                None => tokens.len().saturating_sub(1),
                Some(_) => 0,
            };
            let (slot, computed) =
                self.slot_for(request.adapter, &adapter, &prefix, &tokens[..reusable]);
            let cached = &self.counters.cached_tokens;
            cached.fetch_add(computed as u64, Ordering::Relaxed);
            let _ = request.events.send(Event::Started {
                cached_tokens: computed,
            });
            let room = self.limits.max_context - prefix.places.len();
            self.rows.push(Row {
                limit: request
                    .options
                    .max_new_tokens
                    .min(room.saturating_sub(tokens.len())),
                sampler: Sampler::new(&request.prompt.input_ids, request.options),
                prompt: request.prompt,
                id: request.adapter,
                adapter,
                slot,
                prefix,
                tokens,
                computed,
                generated: 0,
                logprobs: request.logprobs,
                prompt_logprobs: request.prompt_logprobs.map(|count| PromptLogprobs {
                    count,
                    known: Vec::new(),
                }),
                head: request.head,
                deadline: request.deadline,
                events: request.events,
            });
            let last = self.rows.len() - 1;
            let row = &self.rows[last];
            if row.limit == 0 && row.prompt_logprobs.is_none() && !row.head {
                let _ = self.rows[last]
                    .events
                    .send(Event::Done(FinishReason::Length));
                self.end(last);
            }
        }
    }

    /// Whether a row computes the same prompt. It is better to wait for it than to compute it twice: several answers to
    /// one prompt come as requests that are alike.
    fn has_twin(&self, request: &Request) -> bool {
        let is_alike = |row: &Row<B>| {
            row.id == request.adapter && row.generated == 0 && row.prompt == request.prompt
        };
        request.prompt_logprobs.is_none()
            && request.prompt.input_ids.len() > WORTH_A_COPY
            && self.rows.iter().any(is_alike)
    }

    /// A slot that holds the beginning of a row with these tokens, and how many of them it holds.
    fn slot_for(
        &mut self,
        id: AdapterId,
        adapter: &Loaded<B>,
        prefix: &Prefix,
        tokens: &[Token],
    ) -> (usize, usize) {
        let in_front = prefix.places.len();
        let idle = self.idle.iter().enumerate();
        let idle = idle.filter_map(|(slot, idle)| Some((slot, idle.as_ref()?)));
        let unused_longest = idle.clone().min_by_key(|(_, idle)| idle.last_used);
        let (unused_longest, _) = unused_longest.expect("a slot without a row");
        // What is held, with the number of tokens that go on to be of use.
        let kept = idle.filter_map(|(slot, idle)| {
            let content = idle.content.as_ref()?;
            let is_alike = content.adapter == id && content.prefix == *prefix;
            let count = is_alike.then(|| shared(&content.tokens, tokens))?;
            // Another conversation may go on from the whole of it, so it is left as it is.
            let is_taken = count == content.tokens.len() || slot == unused_longest;
            Some((count, is_taken, slot))
        });
        let running = self.rows.iter();
        let running = running.filter(|row| row.id == id && row.prefix == *prefix);
        let running =
            running.map(|row| (shared(&row.tokens[..row.computed], tokens), false, row.slot));
        let best = kept
            .chain(running)
            .filter(|(count, is_taken, _)| *count >= if *is_taken { 1 } else { WORTH_A_COPY })
            .max();
        if let Some((count, true, slot)) = best {
            self.idle[slot] = None;
            self.slots.truncate(slot, in_front + count);
            return (slot, count);
        }
        self.idle[unused_longest] = None;
        if let Some((count, false, from)) = best {
            self.slots.copy(from, unused_longest, in_front + count);
            return (unused_longest, count);
        }
        self.slots.truncate(unused_longest, 0);
        if in_front > 0 {
            let places = prefix.places.clone();
            self.slots
                .put_prefix(unused_longest, adapter.prefix(), places);
        }
        (unused_longest, 0)
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
