//! A session that keeps what it computed says what a model says that computes everything anew.

use std::ops::ControlFlow;

use burn_peft::{Adapter, AnyAdapter, Inputs, PeftModel, Placement, Session};
use burn_peft_decoder::{AttentionMask, GenerationOptions};

use crate::{
    backends::TestBackend,
    cases::cases,
    fixture::{self, Rows},
};

on_every_backend!(
    a_conversation_gets_the_answers_of_a_model_that_computes_it_anew,
    virtual_tokens_among_the_cells_are_where_they_would_be_anew,
);

const NEW: usize = 6;

fn options() -> GenerationOptions {
    GenerationOptions::greedy(NEW, Vec::new())
}

/// Some ids that every fixture model has, others for each `from`.
fn ids(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).map(|i| 5 + i * 37 % 250).collect()
}

/// The answer to a row that is computed as a whole.
fn anew<B: TestBackend>(
    model: &PeftModel<B, AnyAdapter<B>>,
    ids: &[u32],
    placement: &Placement,
) -> Vec<u32> {
    let rows = Rows {
        input_ids: vec![ids.to_vec()],
        attention_mask: None,
        labels: None,
    };
    let inputs = Inputs {
        input_ids: rows.ids(),
        attention_mask: AttentionMask::full(1, ids.len()),
        placement: placement.clone(),
    };
    let rows = model.generate(inputs, &options(), &mut |_, _| ControlFlow::Continue(()));
    rows[0].token_ids.clone()
}

fn answer<B: TestBackend>(
    session: &mut Session<B>,
    ids: &[u32],
    placement: &Placement,
) -> Vec<u32> {
    let row = session.generate(ids, placement, &options(), &mut |_| {
        ControlFlow::Continue(())
    });
    row.token_ids
}

fn a_conversation_gets_the_answers_of_a_model_that_computes_it_anew<B: TestBackend>() {
    let placement = Placement::Front;
    for case in cases::<B>() {
        let name = &case.name;
        let model = case.saved_model::<B>();
        let mut session = Session::new(model.injected());
        let first = ids(0, 7);
        assert_eq!(session.held(&first, &placement), 0);
        let said = answer(&mut session, &first, &placement);
        assert_eq!(said, anew(&model, &first, &placement), "{name}: first turn");

        // The next turn continues the row; the last token of the answer was not computed yet.
        let second = [first.as_slice(), &said, &ids(20, 5)].concat();
        assert_eq!(session.held(&second, &placement), first.len() + NEW - 1);
        let found = answer(&mut session, &second, &placement);
        assert_eq!(
            found,
            anew(&model, &second, &placement),
            "{name}: second turn"
        );

        // A row that differs from its fifth token on, as when the oldest turns are left out; read in parts.
        let third = [&first[..4], &ids(40, 9)].concat();
        assert_eq!(session.held(&third, &placement), 4);
        assert_eq!(session.read(&third, &placement, 3), 6);
        assert_eq!(session.held(&third, &placement), 7);
        let found = answer(&mut session, &third, &placement);
        assert_eq!(
            found,
            anew(&model, &third, &placement),
            "{name}: another end"
        );

        // The same again, when an answer is taken back: one token is computed for its state.
        assert_eq!(session.held(&third, &placement), third.len() - 1);
        let found = answer(&mut session, &third, &placement);
        assert_eq!(found, anew(&model, &third, &placement), "{name}: again");

        let other = ids(60, 5);
        assert_eq!(session.held(&other, &placement), 0);
        let found = answer(&mut session, &other, &placement);
        assert_eq!(
            found,
            anew(&model, &other, &placement),
            "{name}: from the start"
        );
    }
}

fn virtual_tokens_among_the_cells_are_where_they_would_be_anew<B: TestBackend>() {
    let mut placed = 0;
    for case in cases::<B>() {
        let model = case.saved_model::<B>();
        let tokens = model.adapter().inject().num_virtual_tokens();
        if tokens < 2 {
            continue;
        }
        placed += 1;
        let name = &case.name;
        let mut session = Session::new(model.injected());
        // One in front of the third cell, the others in front of the fifth.
        let mut before = vec![4; tokens];
        before[0] = 2;
        let early = Placement::Cells(vec![before]);
        let first = ids(0, 7);
        let said = answer(&mut session, &first, &early);
        assert_eq!(said, anew(&model, &first, &early), "{name}: first turn");
        let second = [first.as_slice(), &said, &ids(20, 5)].concat();
        assert_eq!(session.held(&second, &early), first.len() + NEW - 1);
        let found = answer(&mut session, &second, &early);
        assert_eq!(found, anew(&model, &second, &early), "{name}: second turn");
        // It differs in front of virtual tokens, which then see something else.
        let third = [&first[..3], &ids(40, 9)].concat();
        assert_eq!(session.held(&third, &early), 0);
        assert_eq!(session.read(&third, &early, 1), third.len() - 4);
        let found = answer(&mut session, &third, &early);
        assert_eq!(found, anew(&model, &third, &early), "{name}: another start");
        // At the row's end they move with every turn.
        let end = Placement::Cells(vec![vec![third.len(); tokens]]);
        assert_eq!(session.held(&third, &end), 0);
        let found = answer(&mut session, &third, &end);
        assert_eq!(found, anew(&model, &third, &end), "{name}: at the end");
    }
    assert!(placed > 0);
}

/// The tokens that the callback saw are in the cache or one behind it, wherever it broke off.
#[test]
fn an_answer_that_was_broken_off_can_be_gone_on_with() {
    type B = burn_flex::Flex;
    let model = PeftModel::new(
        fixture::model::<B>("tied_gqa"),
        AnyAdapter::None(Default::default()),
    );
    let mut session = Session::new(model.injected());
    let placement = Placement::Front;
    let first = ids(0, 7);
    let mut seen = Vec::new();
    let row = session.generate(&first, &placement, &options(), &mut |id| {
        seen.push(id);
        match seen.len() < 3 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert_eq!(row.token_ids, seen);
    let second = [first.as_slice(), &seen, &ids(20, 5)].concat();
    assert_eq!(session.held(&second, &placement), first.len() + 2);
    let found = answer(&mut session, &second, &placement);
    assert_eq!(found, anew(&model, &second, &placement));
}
