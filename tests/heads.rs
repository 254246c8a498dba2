//! Heads: their gradients, and that a row does not depend on its batch.

use burn::{backend::Autodiff, module::AutodiffModule, tensor::backend::Backend};
use burn_ndarray::NdArray;
use burn_peft::{Head, HeadKind, PeftModel};
use burn_peft_data::{Batch, IGNORE_INDEX, RowLabel};
use burn_peft_decoder::Decoder;
use burn_peft_train::losses;

use crate::{
    backends::TestBackend,
    fixture,
    gradients::{check_gradients, exact_base},
    training::{init, methods, rows},
};

const CLASSES: usize = 3;

/// One method for each place where an adapter lands.
const LANDINGS: [&str; 3] = ["bitfit", "prompt-tuning", "p-tuning-v2"];

/// What a head may learn of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Learned {
    Class,
    Classes,
    Values,
    Tags,
    Answer,
}

const ALL: [Learned; 5] = [
    Learned::Class,
    Learned::Classes,
    Learned::Values,
    Learned::Tags,
    Learned::Answer,
];

impl Learned {
    fn kind(self) -> HeadKind {
        match self {
            Self::Class | Self::Classes | Self::Values => HeadKind::Sequence,
            Self::Tags => HeadKind::Token,
            Self::Answer => HeadKind::Span,
        }
    }

    fn head<B: Backend>(self, d_model: usize) -> Head<B> {
        let outputs = match self.kind() {
            HeadKind::Span => 2,
            _ => CLASSES,
        };
        Head::init(self.kind(), [outputs, d_model], 5, &Default::default())
    }

    /// The batch with labels of this kind, which follow from the row and from the place of a token in its row.
    fn label<B: Backend>(self, mut batch: Batch<B>, first_row: usize) -> Batch<B> {
        batch.labels.fill(IGNORE_INDEX);
        for row in 0..batch.batch {
            let cells = row * batch.seq..(row + 1) * batch.seq;
            let tokens: Vec<usize> = cells.filter(|cell| batch.attention_mask[*cell]).collect();
            let number = first_row + row;
            batch.row_labels[row] = match self {
                Self::Class => Some(RowLabel::Class(number % CLASSES)),
                Self::Classes => {
                    let is_of = |class| usize::is_multiple_of(number + class, 2);
                    Some(RowLabel::Classes((0..CLASSES).map(is_of).collect()))
                }
                Self::Values => {
                    let value = |output: usize| number as f32 - output as f32 / 2.0;
                    Some(RowLabel::Values((0..CLASSES).map(value).collect()))
                }
                Self::Tags => {
                    for (place, cell) in
                        tokens.iter().enumerate().filter(|(place, _)| place % 3 < 2)
                    {
                        batch.labels[*cell] = ((number + place) % CLASSES) as i64;
                    }
                    None
                }
                Self::Answer => {
                    let first = tokens[0] - row * batch.seq;
                    let last = first + tokens.len() - 1;
                    let start = first + (number + 1) % tokens.len();
                    Some(RowLabel::Span { start, end: last })
                }
            };
        }
        batch
    }
}

#[test]
fn gradients_through_every_head_equal_finite_differences() {
    type B = Autodiff<NdArray<f64>>;
    let base = exact_base();
    let d_model = base.config().hidden_size;
    let rows = rows()[0].left_padded();
    for name in LANDINGS {
        let method = methods().into_iter().find(|m| m.name() == name).unwrap();
        for learned in ALL {
            let tracked = Decoder::<B>::from_inner(base.clone());
            let model = PeftModel::new(tracked.clone(), init(&method, &tracked));
            let model = model.with_head(Some(learned.head(d_model)));
            check_gradients(
                model,
                &learned.label(rows.batch_on(), 0),
                &learned.label(rows.batch_on(), 0),
                &format!("{name}, {learned:?}"),
            );
        }
    }
}

on_every_backend!(a_row_with_a_head_does_not_depend_on_its_batch);

fn a_row_with_a_head_does_not_depend_on_its_batch<B: TestBackend>() {
    let base = fixture::model::<B>("tied_gqa");
    let d_model = base.config().hidden_size;
    let mut methods = methods();
    if !B::THOROUGH {
        // One for each place where an adapter lands.
        methods.dedup_by_key(|method| method.name());
        methods.retain(|method| LANDINGS.contains(&method.name()));
        assert_eq!(methods.len(), LANDINGS.len());
    }
    for method in methods {
        for learned in ALL {
            let model = PeftModel::new(base.clone(), init(&method, &base));
            let model = model.with_head(Some(learned.head(d_model)));
            let of_rows = |batch: Batch<B>| {
                let found = losses(&model, &batch).unwrap();
                let mut sums = vec![0.0; batch.batch];
                for (row, nll) in found.rows.iter().zip(found.nll.into_data().iter::<f64>()) {
                    sums[*row] += nll;
                }
                sums
            };
            for batch in [rows()[0].clone(), rows()[0].left_padded()] {
                let together = of_rows(learned.label(batch.batch_on(), 0));
                for (row, together) in together.into_iter().enumerate() {
                    let mut single = batch.row(row);
                    single.labels = Some(vec![vec![IGNORE_INDEX; single.seq()]]);
                    let alone = of_rows(learned.label(single.batch_on(), row))[0];
                    assert!(
                        // Sums over other numbers of rows are taken in another order.
                        (alone - together).abs() < 1e-5 * together.abs().max(1.0),
                        "{method:?}, {learned:?}, row {row}: {alone} {together}"
                    );
                }
            }
        }
    }
}
