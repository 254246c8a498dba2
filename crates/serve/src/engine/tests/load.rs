//! Rows that end early, and what is not taken on.

use super::*;
use crate::engine::steps::{Command, Worker};

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

#[test]
fn a_row_goes_on_with_an_adapter_that_was_removed() {
    let (base, injections) = (model(), injections());
    // Biases are looked up in a table for all adapters, so another one's must not take their place.
    let id = AdapterId(3);
    let prompt = Ids {
        input_ids: vec![1, 2, 3],
        placement: None,
    };
    let options = GenerationOptions::greedy(12, vec![]);
    let expected = alone(&base, &injections, id, &prompt, &options);
    let given = injections.into_iter().map(AdapterValues::from).collect();
    let load = Box::new(|_: &std::path::Path| Err("nothing is loaded here".to_owned()));
    let mut worker = Worker::new(base, given, load, LIMITS, Default::default());
    let (events, received) = unbounded_channel();
    let request = || Request {
        adapter: id,
        prompt: prompt.clone(),
        options: options.clone(),
        logprobs: None,
        prompt_logprobs: None,
        head: false,
        deadline: None,
        events: events.clone(),
    };
    worker.obey(Command::Run(Box::new(request())));
    worker.admit();
    worker.step();
    worker.obey(Command::Unload(id));
    while !worker.rows.is_empty() {
        worker.step();
    }
    let (ids, end) = answer(received);
    assert_eq!(ids, expected);
    assert_eq!(end, Some(Event::Done(FinishReason::Length)));
    // A new one gets nothing.
    let (events, received) = unbounded_channel();
    let late = Request {
        events,
        ..request()
    };
    worker.obey(Command::Run(Box::new(late)));
    worker.admit();
    assert_eq!(answer(received), (Vec::new(), Some(Event::Gone)));
}
