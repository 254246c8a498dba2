//! The engine against texts that are continued one by one.

use std::{ops::ControlFlow, time::Duration};

use burn::tensor::{DType, Distribution, Int, Tensor, TensorData, backend::Backend};
use burn_flex::Flex;
use burn_peft::{Head, HeadKind, Injection, VirtualTokens};
use burn_peft_decoder::{
    AttentionMask, Decoder, DecoderConfig, FinishReason, GenerationOptions, KvCache, LayerBiases,
    LayerKv, LayerModule, generate,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{AdapterId, AdapterValues, BASE, Engine, EngineLimits, Event, Ids, Request, Submitted};

type B = Flex;

const LIMITS: EngineLimits = EngineLimits {
    max_batch: 3,
    max_context: 64,
    max_queue: 100,
    prefill_tokens: 4,
};

fn model() -> Decoder<B> {
    let text = r#"{"model_type": "qwen2", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64}"#;
    let config = DecoderConfig::parse(text, "config.json").expect("a configuration");
    let device = Default::default();
    B::seed(&device, 1);
    let model = Decoder::random(config, DType::F32, &device).expect("a model");
    // Weights of 0.02 leave the scores of this small model close together; larger biases set them apart.
    let biases = (0..2).map(|_| {
        [LayerModule::QProj, LayerModule::DownProj]
            .map(|module| (module, random([module.width(model.config())])))
            .into_iter()
            .collect()
    });
    let biases = biases.collect();
    model.with_biases(biases)
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

/// One of each kind. The prefixes have a head for every key, and one for every query.
fn injections() -> Vec<Injection<B>> {
    let kv = |heads: usize| LayerKv {
        key: random([heads, 3, 8]),
        value: random([heads, 3, 8]),
    };
    let biases = || -> LayerBiases<B> {
        [
            (LayerModule::KProj, random([16])),
            (LayerModule::OProj, random([32])),
            (LayerModule::UpProj, random([48])),
            (LayerModule::InputLayernorm, random([32])),
        ]
        .into_iter()
        .collect()
    };
    vec![
        Injection::Prompt(VirtualTokens {
            embeddings: random([5, 32]),
        }),
        Injection::Prefix(vec![kv(2), kv(2)]),
        Injection::Biases(vec![biases(), biases()]),
        Injection::Prefix(vec![kv(4), kv(4)]),
        Injection::Biases(vec![biases(), biases()]),
    ]
}

/// The texts that are asked for: `(adapter, prompt, new tokens)`.
fn questions() -> Vec<(AdapterId, Ids, usize)> {
    let ids = |first: u32, count: u32| (0..count).map(|i| (first + 7 * i) % 64).collect();
    let front = |first, count| Ids {
        input_ids: ids(first, count),
        placement: None,
    };
    let among = |first, count, before: &[usize]| Ids {
        input_ids: ids(first, count),
        placement: Some(before.to_vec()),
    };
    vec![
        (BASE, front(3, 9), 8),
        (AdapterId(1), front(5, 1), 12),
        (AdapterId(2), front(5, 6), 5),
        (AdapterId(3), front(5, 2), 9),
        (AdapterId(4), front(8, 11), 7),
        (AdapterId(5), front(5, 2), 9),
        (AdapterId(1), among(9, 6, &[0, 2, 2, 4, 6]), 6),
        (AdapterId(2), among(9, 6, &[1, 1, 4]), 6),
        (AdapterId(1), front(0, 0), 4),
        (BASE, front(3, 9), 30),
    ]
}

/// What the decoder says without the engine.
fn alone(
    base: &Decoder<B>,
    injections: &[Injection<B>],
    id: AdapterId,
    prompt: &Ids,
    options: &GenerationOptions,
) -> Vec<u32> {
    let (last, model, mut cache) = last_state(base, injections, id, prompt);
    let ids = std::slice::from_ref(&prompt.input_ids);
    let each = &mut |_, _| ControlFlow::Continue(());
    let mut rows = generate(&model, last, &mut cache, ids, options, each);
    rows.remove(0).token_ids
}

/// The state of a prompt's last token without the engine, the model with the adapter's biases, and its cache.
fn last_state(
    base: &Decoder<B>,
    injections: &[Injection<B>],
    id: AdapterId,
    prompt: &Ids,
) -> (Tensor<B, 2>, Decoder<B>, KvCache<B>) {
    let device = Default::default();
    let ids: Vec<i64> = prompt.input_ids.iter().map(|id| i64::from(*id)).collect();
    let count = ids.len();
    let mut embedded: Vec<Tensor<B, 2>> = Vec::new();
    if count > 0 {
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [1, count]), &device);
        let all: Tensor<B, 2> = base.embed(ids).squeeze_dim(0);
        embedded = all.split(1, 0);
    }
    let mut model = base.clone();
    let mut cache = KvCache::empty(2, 1);
    match id.0.checked_sub(1).map(|index| &injections[index as usize]) {
        None | Some(Injection::Nothing) => {}
        Some(Injection::Biases(biases)) => model = model.with_biases(biases.clone()),
        Some(Injection::Prefix(prefix)) => {
            cache = KvCache::with_prefix(prefix.clone(), 1);
            if let Some(before) = &prompt.placement {
                cache = cache.prefix_among(vec![before.clone()]);
            }
        }
        Some(Injection::Prompt(virtual_tokens)) => {
            let tokens = virtual_tokens.embeddings.clone().split(1, 0);
            let in_front = vec![0; tokens.len()];
            let before = prompt.placement.as_ref().unwrap_or(&in_front);
            for (index, (token, before)) in tokens.into_iter().zip(before).enumerate() {
                embedded.insert(before + index, token);
            }
        }
    }
    let seq = embedded.len();
    let hidden = Tensor::cat(embedded, 0).unsqueeze();
    let mask = AttentionMask::full(1, seq);
    let last = model.decode(hidden, &mask, &mut cache, Some(&[seq - 1]));
    (last, model, cache)
}

fn engine(base: Decoder<B>, injections: Vec<Injection<B>>, limits: EngineLimits) -> Engine {
    let load = |_: &std::path::Path| Err("nothing is loaded here".to_owned());
    let adapters = injections.into_iter().map(Into::into).collect();
    Engine::start(base, adapters, load, limits).expect("a thread")
}

fn ask(
    engine: &Engine,
    adapter: AdapterId,
    prompt: Ids,
    options: GenerationOptions,
) -> UnboundedReceiver<Event> {
    let (events, received) = unbounded_channel();
    let request = Request {
        adapter,
        prompt,
        options,
        logprobs: None,
        prompt_logprobs: None,
        head: false,
        deadline: None,
        events,
    };
    assert_eq!(engine.submit(request), Submitted::Accepted);
    received
}

/// The tokens of an answer, and how it ended.
fn answer(mut events: UnboundedReceiver<Event>) -> (Vec<u32>, Option<Event>) {
    let mut ids = Vec::new();
    loop {
        match events.blocking_recv() {
            Some(Event::Token { id, .. }) => ids.push(id),
            Some(Event::Started { .. }) => {}
            end => return (ids, end),
        }
    }
}

#[test]
fn a_row_says_what_it_says_alone_whoever_shares_its_batch() {
    let (base, injections) = (model(), injections());
    // Greedy, and sampled with a seed.
    let sampled = |count, seed| GenerationOptions {
        temperature: 1.0,
        top_p: 0.9,
        seed,
        ..GenerationOptions::greedy(count, vec![])
    };
    let questions = questions().into_iter().enumerate();
    let questions: Vec<_> = questions
        .flat_map(|(seed, (id, prompt, count))| {
            let options = [
                GenerationOptions::greedy(count, vec![]),
                sampled(count, seed as u64),
            ];
            options.map(|options| (id, prompt.clone(), options))
        })
        .collect();
    let engine = engine(base.clone(), injections.clone(), LIMITS);
    let answers: Vec<_> = questions
        .iter()
        .map(|(id, prompt, options)| ask(&engine, *id, prompt.clone(), options.clone()))
        .collect();
    for ((id, prompt, options), events) in questions.iter().zip(answers) {
        let expected = alone(&base, &injections, *id, prompt, options);
        let (ids, end) = answer(events);
        assert_eq!(ids, expected, "{id:?} {prompt:?} {options:?}");
        assert_eq!(end, Some(Event::Done(FinishReason::Length)));
    }
}

#[test]
fn a_conversation_goes_on_from_what_is_held() {
    let (base, injections) = (model(), injections());
    let engine = engine(base.clone(), injections.clone(), LIMITS);
    for id in (0..=5).map(AdapterId) {
        let mut prompt = Ids {
            input_ids: vec![1, 2, 3, 4, 5],
            placement: None,
        };
        for turn in 0..3 {
            let options = GenerationOptions::greedy(4, vec![]);
            let expected = alone(&base, &injections, id, &prompt, &options);
            let before = cached(&engine);
            let (ids, _) = answer(ask(&engine, id, prompt.clone(), options));
            assert_eq!(ids, expected, "{id:?}, turn {turn}");
            // All but the last new token was computed, and what is new of this turn was not.
            let held = if turn == 0 {
                0
            } else {
                prompt.input_ids.len() - 3
            };
            assert_eq!(cached(&engine) - before, held as u64, "{id:?}, turn {turn}");
            prompt.input_ids.extend(ids);
            prompt.input_ids.extend([6, 7]);
        }
    }
}

#[test]
fn a_second_conversation_leaves_the_first_one_as_it_is() {
    let engine = engine(model(), Vec::new(), LIMITS);
    let say = |ids: Vec<u32>| {
        let prompt = Ids {
            input_ids: ids,
            placement: None,
        };
        let before = cached(&engine);
        answer(ask(
            &engine,
            BASE,
            prompt,
            GenerationOptions::greedy(1, vec![]),
        ));
        cached(&engine) - before
    };
    let greeting: Vec<u32> = (0..20).collect();
    let with = |more: u32| [&greeting[..], &[more; 9]].concat();
    assert_eq!(say(with(40)), 0);
    assert_eq!(say(with(50)), 20, "the greeting is copied");
    assert_eq!(say([with(40), vec![1]].concat()), 29);
    assert_eq!(say([with(50), vec![1]].concat()), 29);
}

#[test]
fn a_prompt_that_is_asked_several_times_is_computed_once() {
    let engine = engine(model(), injections(), LIMITS);
    for id in [BASE, AdapterId(1), AdapterId(2)] {
        let before = cached(&engine);
        let prompt = Ids {
            input_ids: (0..30).collect(),
            placement: None,
        };
        let answers = [(); 3].map(|()| {
            let options = GenerationOptions::greedy(5, vec![]);
            ask(&engine, id, prompt.clone(), options)
        });
        let [first, second, third] = answers.map(answer);
        assert_eq!((&first, &first), (&second, &third), "{id:?}");
        assert_eq!(first.0.len(), 5);
        // All but the last token, twice.
        assert_eq!(cached(&engine) - before, 58, "{id:?}");
    }
}

#[test]
fn a_head_reads_the_state_of_the_last_id() {
    let (base, injections) = (model(), injections());
    let head = || Head::init(HeadKind::Sequence, [3, 32], 5, &Default::default());
    let adapters: Vec<_> = injections
        .iter()
        .map(|injection| AdapterValues {
            injection: injection.clone(),
            head: Some(head()),
        })
        .collect();
    let load = |_: &std::path::Path| Err("nothing is loaded here".to_owned());
    let engine = Engine::start(base.clone(), adapters, load, LIMITS).expect("a thread");
    let prompts = questions()
        .into_iter()
        .filter(|(id, prompt, _)| *id != BASE && !prompt.input_ids.is_empty());
    let answers: Vec<_> = prompts
        .map(|(id, prompt, _)| {
            let (events, received) = unbounded_channel();
            let request = Request {
                adapter: id,
                prompt: prompt.clone(),
                options: GenerationOptions::greedy(0, vec![]),
                logprobs: None,
                prompt_logprobs: None,
                head: true,
                deadline: None,
                events,
            };
            assert_eq!(engine.submit(request), Submitted::Accepted);
            (id, prompt, received)
        })
        .collect();
    for (id, prompt, mut received) in answers {
        // Virtual tokens behind the last id change nothing of it.
        let count = prompt.input_ids.len();
        let before = prompt.placement.clone();
        let before =
            before.map(|before| before.into_iter().filter(|place| *place < count).collect());
        let seen = Ids {
            placement: before,
            ..prompt
        };
        let (last, ..) = last_state(&base, &injections, id, &seen);
        let expected: Vec<f32> = head().forward(last).into_data().iter::<f32>().collect();
        let found = std::iter::from_fn(|| received.blocking_recv()).find_map(|event| match event {
            Event::Head(found) => Some(found),
            _ => None,
        });
        for (found, expected) in found.expect("a head's answer").iter().zip(expected) {
            // f32, computed in other pieces.
            assert!(
                (found - expected).abs() < 1e-4,
                "{id:?}: {found} {expected}"
            );
        }
    }
}

#[test]
fn the_tokens_of_a_prompt_are_scored_as_if_they_had_been_chosen() {
    let (base, injections) = (model(), injections());
    let engine = engine(base, injections, LIMITS);
    for (id, placement) in [
        (BASE, None),
        (AdapterId(1), None),
        (AdapterId(1), Some(vec![0, 0, 3, 5, 5])),
        (AdapterId(2), Some(vec![0, 2, 2])),
        (AdapterId(3), None),
    ] {
        // What the engine writes with scores, it scores alike where it is given as a prompt.
        let ask = |input_ids: Vec<u32>, count, prompt_logprobs| {
            let (events, mut received) = unbounded_channel();
            let prompt = Ids {
                input_ids,
                placement: placement.clone(),
            };
            let request = Request {
                adapter: id,
                prompt,
                options: GenerationOptions::greedy(count, vec![]),
                logprobs: Some(2),
                prompt_logprobs,
                head: false,
                deadline: None,
                events,
            };
            assert_eq!(engine.submit(request), Submitted::Accepted);
            std::iter::from_fn(move || received.blocking_recv()).collect::<Vec<_>>()
        };
        let start = vec![3, 1, 4, 1, 5];
        let written: Vec<_> = ask(start.clone(), 11, None)
            .into_iter()
            .filter_map(|event| match event {
                Event::Token { logprobs, .. } => logprobs,
                _ => None,
            })
            .collect();
        let ids = written.iter().map(|logprobs| logprobs[0].id);
        let all: Vec<u32> = start.iter().copied().chain(ids).collect();
        let events = ask(all.clone(), 0, Some(2));
        assert_eq!(events.last(), Some(&Event::Done(FinishReason::Length)));
        let scored = events.into_iter().find_map(|event| match event {
            Event::Prompt(scored) => Some(scored),
            _ => None,
        });
        let scored = scored.expect("scores");
        assert_eq!(scored.len(), all.len(), "{id:?}");
        assert_eq!(scored[0], []);
        assert_eq!(scored[1][0].id, start[1]);
        for (scored, written) in scored[start.len()..].iter().zip(&written) {
            for (scored, written) in scored.iter().zip(written) {
                assert_eq!(scored.id, written.id, "{id:?}");
                // f32, computed in other pieces.
                let apart = (scored.logprob - written.logprob).abs();
                assert!(apart < 1e-4, "{id:?}: {apart}");
            }
        }
    }
}

fn cached(engine: &Engine) -> u64 {
    let cached = &engine.counters().cached_tokens;
    cached.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn a_client_that_is_gone_frees_its_place_and_a_full_queue_refuses() {
    let limits = EngineLimits {
        max_batch: 1,
        max_queue: 2,
        ..LIMITS
    };
    let engine = engine(model(), Vec::new(), limits);
    let prompt = || Ids {
        input_ids: vec![1, 2],
        placement: None,
    };
    let long = || GenerationOptions::greedy(60, vec![]);
    // Rows end at the engine's context, so an endless one is made of many.
    let first = ask(&engine, BASE, prompt(), long());
    drop(first);
    let (ids, end) = answer(ask(&engine, BASE, prompt(), long()));
    assert_eq!(
        (ids.len(), end),
        (60, Some(Event::Done(FinishReason::Length)))
    );
    // More at once than the queue holds.
    let (events, _received) = unbounded_channel();
    let request = || Request {
        adapter: BASE,
        prompt: prompt(),
        options: long(),
        logprobs: None,
        prompt_logprobs: None,
        head: false,
        deadline: None,
        events: events.clone(),
    };
    let answers: Vec<Submitted> = (0..50).map(|_| engine.submit(request())).collect();
    assert!(answers.contains(&Submitted::Full), "{answers:?}");
}

#[test]
fn a_stopping_engine_finishes_what_it_took_on() {
    let engine = engine(model(), Vec::new(), LIMITS);
    let prompt = Ids {
        input_ids: vec![1, 2],
        placement: None,
    };
    let options = GenerationOptions::greedy(20, vec![]);
    let running = ask(&engine, BASE, prompt.clone(), options.clone());
    engine.drain();
    let late = ask(&engine, BASE, prompt, options);
    let (ids, end) = answer(running);
    assert_eq!(
        (ids.len(), end),
        (20, Some(Event::Done(FinishReason::Length)))
    );
    assert!(matches!(answer(late), (ids, None | Some(Event::Gone)) if ids.is_empty()));
}

#[test]
fn a_row_whose_time_is_up_ends() {
    let engine = engine(model(), Vec::new(), LIMITS);
    let (events, received) = unbounded_channel();
    let request = Request {
        adapter: BASE,
        prompt: Ids {
            input_ids: vec![1],
            placement: None,
        },
        options: GenerationOptions::greedy(60, vec![]),
        logprobs: None,
        prompt_logprobs: None,
        head: false,
        deadline: Some(std::time::Instant::now() - Duration::from_secs(1)),
        events,
    };
    assert_eq!(engine.submit(request), Submitted::Accepted);
    assert_eq!(answer(received), (Vec::new(), Some(Event::TimedOut)));
}
