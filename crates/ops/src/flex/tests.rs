//! What flex does otherwise than the composed operations. (That its results are theirs is a claim about
//! every backend.)

use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::Flex;

use crate::{NO_TOKEN, Ops, Visibility};

#[test]
fn a_query_that_sees_nothing_gives_nothing() {
    let device = Default::default();
    let states = |heads| Tensor::<Flex, 4>::ones([1, heads, 2, 4], &device);
    let mask = Flex::score_mask(
        Visibility::new(1, vec![0, 1], vec![NO_TOKEN, 1]),
        DType::F32,
        &device,
    );
    let output = Flex::grouped_attention(states(2), states(1), states(1), &mask);
    let expected = [[0.0; 4], [1.0; 4], [0.0; 4], [1.0; 4]].concat();
    assert_eq!(
        output.into_data(),
        TensorData::new(expected, [1, 2, 2, 4]).convert::<f32>()
    );
    let gradients =
        Flex::grouped_attention_backward(states(2), states(1), states(1), &mask, states(2));
    for gradient in gradients {
        let data = gradient.into_data();
        assert!(data.iter::<f32>().all(f32::is_finite), "{data}");
    }
}

/// No thread that computes can come to it while it waits for its share of the first one.
#[test]
fn a_second_step_runs_on_the_thread_that_asks_for_it() {
    let computes = || rayon::current_thread_index().is_some();
    let (first, second) = Flex::run_step(&Default::default(), || {
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| Flex::run_step(&Default::default(), computes));
            second.join().expect("a step that ends")
        });
        (computes(), second)
    });
    assert!(first && !second);
}

/// One of those could come to it in the middle of an operation of another thread, which waits for that
/// operation with a lock that the step needs.
#[test]
fn a_step_does_not_run_on_rayons_global_threads() {
    let thread = || std::thread::current().id();
    let step = Flex::run_step(&Default::default(), thread);
    assert!(!rayon::broadcast(|_| thread()).contains(&step));
    assert_ne!(step, thread());
}
