//! The gradients of every method, in f64: against finite differences, and each way of computing them
//! against the others.

use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{
        DType, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};
use burn_ndarray::NdArray;
use burn_peft::{AnyAdapter, MethodConfig, PeftModel};
use burn_peft_data::Batch;
use burn_peft_decoder::{Checkpoint, Decoder};
use burn_peft_ops::Ops;
use burn_peft_train::{Trainee, losses};
use burn_train::TrainStep;

use crate::{
    fixture,
    training::{init, methods, rows},
};

/// The gradient of every trainable parameter, by id.
pub(crate) fn gradients<B: AutodiffBackend + Ops>(
    trainee: &Trainee<B, AnyAdapter<B>>,
    gradients: &GradientsParams,
) -> Vec<(ParamId, Vec<f64>)> {
    struct Collect<'a>(&'a GradientsParams, Vec<(ParamId, Vec<f64>)>);
    impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let found = self.0.get::<B::InnerBackend, D>(param.id).unwrap();
            self.1
                .push((param.id, found.into_data().iter::<f64>().collect()));
        }
    }
    let mut collect = Collect(gradients, Vec::new());
    trainee.visit(&mut collect);
    collect.1
}

type Inner = NdArray<f64>;
type B = Autodiff<Inner>;

/// A base in f64.
pub(crate) fn exact_base() -> Decoder<Inner> {
    let checkpoint = Checkpoint::open(fixture::path("models/tied_gqa")).unwrap();
    checkpoint
        .load(DType::F64, &Default::default(), &mut |_, _| {})
        .unwrap()
}

#[test]
fn gradients_of_every_method_equal_finite_differences() {
    let base = exact_base();
    let rows = rows()[0].left_padded();
    for method in methods() {
        let tracked = Decoder::<B>::from_inner(base.clone());
        let adapter = init(&method, &tracked);
        assert_eq!(
            adapter.num_params(),
            method.num_trainable(base.config()),
            "{method:?}"
        );
        let model = PeftModel::new(tracked, adapter);
        check_gradients(
            model,
            &rows.batch_on(),
            &rows.batch_on(),
            &format!("{method:?}"),
        );
    }
}

/// Holds the gradients of a batch to finite differences, and those of a recomputed pass to them. `batch` and `inner`
/// are the same batch.
pub(crate) fn check_gradients(
    model: PeftModel<B, AnyAdapter<B>>,
    batch: &Batch<B>,
    inner: &Batch<Inner>,
    name: &str,
) {
    let plain_model = model.valid();
    let trainee = Trainee::new(model);
    let output = TrainStep::step(&trainee, vec![batch.clone()]);
    let again = trainee.clone().recomputing(true);
    let again = TrainStep::step(&again, vec![batch.clone()]);
    assert!((again.item.loss - output.item.loss).abs() < 1e-13, "{name}");
    let pairs = gradients(&trainee, &output.grads).into_iter();
    for ((_, plain), (_, again)) in pairs.zip(gradients(&trainee, &again.grads)) {
        let largest = plain
            .iter()
            .fold(0.0_f64, |largest, x| largest.max(x.abs()));
        for (plain, again) in plain.iter().zip(&again) {
            // The same operations; only sums over parts of the graph are taken in another order.
            assert!(
                (plain - again).abs() < 1e-12 * largest,
                "{name}: {plain} {again}"
            );
        }
    }
    let loss = |nudge: Nudge| -> f64 {
        let model = plain_model.clone().map(&mut { nudge });
        let found = losses(&model, inner).unwrap();
        found.nll.mean().into_data().iter::<f64>().sum()
    };
    for (id, gradient) in gradients(&trainee, &output.grads) {
        // A prime stride, so that columns and rows are both met.
        let stride = gradient.len().div_ceil(11).next_multiple_of(2) + 1;
        for (index, found) in gradient.iter().enumerate().step_by(stride) {
            // A central difference errs by h² times the third derivative; 3e-6 leaves nine digits of
            // an f64 loss.
            let h = 3e-6;
            let expected =
                (loss(Nudge { id, index, by: h }) - loss(Nudge { id, index, by: -h })) / (2.0 * h);
            assert!(
                (found - expected).abs() < 1e-8 * found.abs().max(1.0),
                "{name}, {index}: {found} for {expected}"
            );
        }
    }
}

/// A prompt that runs once in front of all rows, and one that stands in each of them, the label of a row's
/// first token among what is predicted.
#[test]
fn a_shared_prompt_is_a_prompt_in_every_row() {
    let checkpoint = Checkpoint::open(fixture::path("models/tied_gqa")).unwrap();
    let base: Decoder<B> = checkpoint
        .load(DType::F64, &Default::default(), &mut |_, _| {})
        .unwrap();
    for rows in [rows()[0].clone(), rows()[0].left_padded()] {
        let mut batch = rows.batch_on::<B>();
        let ids: Vec<i64> = batch.input_ids.to_data().iter::<i64>().collect();
        let is_first = |cell: usize| {
            let row = &batch.attention_mask[cell / batch.seq * batch.seq..=cell];
            row.iter().filter(|is_token| **is_token).count() == 1 && row[row.len() - 1]
        };
        for cell in (0..ids.len())
            .filter(|cell| is_first(*cell))
            .collect::<Vec<_>>()
        {
            batch.labels[cell] = ids[cell];
        }
        for method in methods() {
            let tokens = method.num_virtual_tokens();
            if !matches!(
                method,
                MethodConfig::PromptTuning(_) | MethodConfig::PTuning(_)
            ) {
                continue;
            }
            let trainee = Trainee::new(PeftModel::new(base.clone(), init(&method, &base)));
            let mut in_rows = batch.clone();
            in_rows.placement = Some(vec![vec![0; tokens]; batch.batch]);
            let [shared, again, apart] =
                [(&batch, false), (&batch, true), (&in_rows, false)].map(|(batch, recompute)| {
                    let trainee = trainee.clone().recomputing(recompute);
                    TrainStep::step(&trainee, vec![batch.clone()])
                });
            let expected = gradients(&trainee, &apart.grads);
            for found in [shared, again] {
                assert_eq!(found.item.label_tokens, apart.item.label_tokens);
                assert!((found.item.loss - apart.item.loss).abs() < 1e-13);
                for ((_, found), (_, expected)) in
                    gradients(&trainee, &found.grads).iter().zip(&expected)
                {
                    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
                    for (found, expected) in found.iter().zip(expected) {
                        let difference = (found - expected).abs();
                        // A row of the prompt's states is one sum for all rows, or one for each.
                        assert!(
                            difference < 1e-11 * largest,
                            "{method:?}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }
}

/// Adds a number to one element of one parameter.
#[derive(Clone, Copy)]
struct Nudge {
    id: ParamId,
    index: usize,
    by: f64,
}

impl<B: Backend> ModuleMapper<B> for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if param.id != self.id {
            return param;
        }
        param.map(|tensor| {
            let (device, dtype, shape) = (tensor.device(), tensor.dtype(), tensor.dims());
            let mut values: Vec<f64> = tensor.into_data().iter::<f64>().collect();
            values[self.index] += self.by;
            Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
        })
    }
}
