//! Which request comes next, and which slot it gets.

use std::sync::{Arc, atomic::Ordering};

use burn_peft_decoder::{FinishReason, Sampler};
use burn_peft_ops::Ops;

use super::{
    adapters::{AdapterId, Loaded},
    row::{Event, Prefix, PromptLogprobs, Request, Row, Token, lay_out},
    steps::Worker,
};

/// Tokens that a row must share with another, running one for them to be copied.
const WORTH_A_COPY: usize = 16;

/// How many tokens two rows have in common at their beginning.
fn shared(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<B: Ops> Worker<B> {
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
}
