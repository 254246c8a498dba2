//! The engine against texts that are continued one by one.

mod held;
mod load;
mod scores;

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

fn cached(engine: &Engine) -> u64 {
    let cached = &engine.counters().cached_tokens;
    cached.load(std::sync::atomic::Ordering::Relaxed)
}
