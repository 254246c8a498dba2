//! What is asked of a row besides new tokens.

use super::*;

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
