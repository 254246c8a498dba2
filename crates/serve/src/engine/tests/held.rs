//! Tokens that are held and not computed again.

use super::*;

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
