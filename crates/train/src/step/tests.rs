//! A step shared among ranks is the step of one process.

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use burn_flex::Flex;
use burn_peft::{AnyAdapter, InitTokens};
use burn_peft_data::{BatchOrder, Example, Padding, Parts, StepLoader};
use burn_peft_decoder::{Checkpoint, Decoder};

use burn::data::dataloader::DataLoader;
use burn::data::dataset::InMemDataset;

use super::*;
use crate::ranks::threads::on_threads;
use crate::{Override, RunConfig};

type B = Autodiff<Flex>;

const METHODS: [&str; 5] = [
    "bitfit",
    "prompt-tuning",
    "p-tuning",
    "prefix-tuning",
    "p-tuning-v2",
];

fn base() -> Decoder<Flex> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tied_gqa");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let silent = &mut |_, _| ();
    checkpoint
        .load(DType::F32, &Default::default(), silent)
        .unwrap()
}

fn trainee(base: Decoder<Flex>, method: &str) -> Trainee<B, AnyAdapter<B>> {
    let mut set = vec![Override::parse(&format!("method.type={method}")).unwrap()];
    if method != "bitfit" {
        set.push(Override::parse("method.num_virtual_tokens=3").unwrap());
    }
    let method = RunConfig::load(None, &set).unwrap().method;
    let base = Decoder::<B>::from_inner(base);
    let tokens = InitTokens {
        known_ids: base.config().vocab_size,
        ..InitTokens::default()
    };
    let adapter = method.init(&base, &tokens, 7).unwrap();
    Trainee::new(PeftModel::new(base, adapter))
}

/// Rows of 1 to 29 tokens; nothing is learned of some of them.
fn rows() -> Vec<Example> {
    let row = |number: usize| {
        let len = 1 + number * 11 % 29;
        let ids: Vec<u32> = (0..len)
            .map(|cell| ((number * 31 + cell * 7) % 90) as u32)
            .collect();
        let learned = |cell: usize| number % 4 != 1 && cell >= len / 2;
        Example {
            labels: (0..len)
                .map(|cell| match learned(cell) {
                    true => i64::from(ids[cell]),
                    false => burn_peft_data::IGNORE_INDEX,
                })
                .collect(),
            input_ids: ids,
            row_label: None,
            placement: None,
            parts: Parts::Whole,
            row: number,
            line: number + 1,
        }
    };
    (0..11).map(row).collect()
}

/// The gradients of a step, as bits.
fn bits(trainee: &Trainee<B, AnyAdapter<B>>, grads: &GradientsParams) -> Vec<u32> {
    struct Bits<'a>(&'a GradientsParams, Vec<u32>);
    impl ModuleVisitor<B> for Bits<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let Some(gradient) = self.0.get::<Flex, D>(param.id) else {
                self.1.push(u32::MAX);
                return;
            };
            let data = gradient.into_data();
            self.1.extend(data.iter::<f32>().map(f32::to_bits));
        }
    }
    let mut found = Bits(grads, Vec::new());
    trainee.visit(&mut found);
    found.1
}

#[test]
fn any_number_of_ranks_makes_the_step_of_one_process_bit_for_bit() {
    let base = base();
    for method in METHODS {
        // One for all ranks: random numbers are drawn from one state for all threads, other tests included.
        let made = trainee(base.clone(), method);
        for recompute in [false, true] {
            // What each rank comes to in the steps of an epoch, whose last one has fewer micro-batches than ranks.
            let steps = |ranks: Ranks, accumulation: usize| {
                let order = BatchOrder::new(1, 2, accumulation * ranks.size());
                let dataset = InMemDataset::new(rows());
                let padding = Padding::default();
                let loader = StepLoader::new(dataset, order, padding, 2, Default::default());
                let loader = loader.unwrap().share(ranks.rank(), ranks.size());
                // Parameters of its own: the graphs of threads that share one are one graph, and a backward pass of one
                // thread frees what another still needs.
                let trainee = made.clone().fork(&Default::default());
                let trainee = trainee.recomputing(recompute).among(ranks);
                let steps = loader.iter().map(|micro_batches| {
                    let output = TrainStep::step(&trainee, micro_batches);
                    let LmOutput {
                        loss,
                        label_tokens,
                        tokens,
                        ..
                    } = output.item;
                    let bits = bits(&trainee, &output.grads);
                    (loss.to_bits(), label_tokens, tokens, bits)
                });
                steps.collect::<Vec<_>>()
            };
            let alone = steps(Ranks::alone(), 4);
            assert_eq!(alone.len(), 2);
            for (size, accumulation) in [(2, 2), (4, 1)] {
                for shared in on_threads(size, |ranks| steps(ranks, accumulation)) {
                    assert!(shared == alone, "{method}, {size} ranks");
                }
            }
        }
    }
}

#[test]
fn a_parameter_without_a_gradient_gets_none_from_the_others() {
    let base = base();
    let learned_of = |ranks: &Ranks| {
        let trainee = trainee(base.clone(), "p-tuning-v2").among(ranks.clone());
        let output = TrainStep::step(&trainee, Vec::new());
        (output.item.label_tokens, bits(&trainee, &output.grads))
    };
    let (label_tokens, alone) = learned_of(&Ranks::alone());
    assert_eq!((label_tokens, alone.contains(&u32::MAX)), (0, true));
    for (label_tokens, shared) in on_threads(2, |ranks| learned_of(&ranks)) {
        assert_eq!((label_tokens, &shared), (0, &alone));
    }
}

#[test]
fn micro_batches_have_seeds_of_their_own_and_the_first_the_steps() {
    let seed = StepSeed::default();
    assert_eq!(seed.of_micro_batch(1), None);
    seed.clone().set(5);
    assert_eq!(seed.of_micro_batch(0), Some(5));
    assert_ne!(seed.of_micro_batch(1), seed.of_micro_batch(2));
}
