//! Virtual tokens do where they stand what the same input assembled by hand does.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend, s},
};
use burn_peft::{Adapter, Injection, Inputs, PeftModel, Placement, PromptTuning, VirtualTokens};
use burn_peft_decoder::{AttentionMask, KvCache, LayerKv};

use crate::{
    backends::TestBackend,
    fixture::{self, Rows},
    training::{prompt, rows},
};

on_every_backend!(
    virtual_tokens_in_the_middle_equal_the_same_input_assembled_by_hand,
    a_prefix_in_the_middle_stands_where_its_tokens_would,
);

fn virtual_tokens_in_the_middle_equal_the_same_input_assembled_by_hand<B: TestBackend>() {
    let base = fixture::model::<B>("tied_gqa");
    let prompt = PromptTuning::<B>::from_data(prompt(5, 64), &base.device());
    let Injection::Prompt(VirtualTokens { embeddings }) = prompt.inject() else {
        panic!("a prompt is injected among the embeddings");
    };
    let rows = rows()[0].left_padded();
    let model = PeftModel::new(base.clone(), prompt);
    // Two tokens somewhere in each row's own cells, three behind its last.
    let padding: Vec<usize> = (0..rows.batch())
        .map(|row| rows.seq() - rows.row(row).seq())
        .collect();
    let before: Vec<Vec<usize>> = padding
        .iter()
        .enumerate()
        .map(|(row, padding)| {
            vec![
                padding + row,
                padding + row + 1,
                rows.seq(),
                rows.seq(),
                rows.seq(),
            ]
        })
        .collect();
    let inputs = Inputs {
        placement: Placement::Cells(before.clone()),
        ..rows.inputs()
    };
    let prepared = model.prepare(inputs);
    let together = prepared.hidden_states();
    assert_eq!(together.dims()[1], rows.seq() + 5);
    for (row, padding) in padding.into_iter().enumerate() {
        let ids = rows.row(row);
        let own = base.embed(ids.ids());
        let parts = vec![
            own.clone().slice(s![.., ..row]),
            embeddings.clone().slice(s![..1]).unsqueeze(),
            own.clone().slice(s![.., row..row + 1]),
            embeddings.clone().slice(s![1..2]).unsqueeze(),
            own.slice(s![.., row + 1..]),
            embeddings.clone().slice(s![2..]).unsqueeze(),
        ];
        let assembled = Tensor::cat(parts.into_iter().filter(|p| p.dims()[1] > 0).collect(), 1);
        let seq = assembled.dims()[1];
        let mut cache = KvCache::empty(base.config().num_hidden_layers, 1);
        let alone = base.decode(assembled, &AttentionMask::full(1, seq), &mut cache, None);
        let alone = alone.unsqueeze::<3>();
        let found = together.clone().slice(s![row..row + 1, padding..]);
        assert_eq!(found.dims(), alone.dims());
        // Hidden states reach about 5; sums over a row with and without padding differ by roundings.
        assert!(largest_difference(found, alone) < 5e-5, "row {row}");
        // Real cells are found where they went.
        let cells = &prepared.cells()[row * rows.seq()..(row + 1) * rows.seq()];
        let expected = (0..rows.seq()).map(|c| c + before[row].iter().filter(|b| **b <= c).count());
        assert_eq!(cells, expected.collect::<Vec<_>>());
    }
}

/// Keys and values that the base itself has for some tokens, put there as a prefix, are those tokens.
fn a_prefix_in_the_middle_stands_where_its_tokens_would<B: TestBackend>() {
    #[derive(Module, Debug)]
    struct Fixed<B: Backend> {
        layers: Vec<[Tensor<B, 3>; 2]>,
    }
    impl<B: Backend> Adapter<B> for Fixed<B> {
        fn inject(&self) -> Injection<B> {
            let layers = self.layers.iter().cloned();
            let layers = layers.map(|[key, value]| LayerKv { key, value });
            Injection::Prefix(layers.collect())
        }
    }
    let base = fixture::model::<B>("tied_gqa");
    let layers = base.config().num_hidden_layers;
    let row = rows()[0].row(0);
    let (start, end) = (3, 5); // the tokens that become a prefix
    let mut cache = KvCache::empty(layers, 1);
    let mask = AttentionMask::full(1, row.seq());
    let whole = base.decode(base.embed(row.ids()), &mask, &mut cache, None);
    let middle = |states: Tensor<B, 3>| states.slice(s![.., start..end, ..]);
    let adapter = Fixed {
        layers: (0..layers)
            .map(|layer| cache.row(layer, 0))
            .map(|LayerKv { key, value }| [middle(key), middle(value)])
            .collect(),
    };
    let ids = &row.input_ids[0];
    let rest = Rows {
        input_ids: vec![[&ids[..start], &ids[end..]].concat()],
        attention_mask: None,
        labels: None,
    };
    let prepared = PeftModel::new(base, adapter).prepare(Inputs {
        placement: Placement::Cells(vec![vec![start; end - start]]),
        ..rest.inputs()
    });
    let found = prepared.hidden_states();
    let expected = Tensor::cat(
        vec![whole.clone().slice(s![..start]), whole.slice(s![end..])],
        0,
    );
    assert!(largest_difference(found, expected.unsqueeze()) < 5e-5);
}

fn largest_difference<B: Backend>(a: Tensor<B, 3>, b: Tensor<B, 3>) -> f64 {
    let largest = (a - b).abs().max().into_data();
    largest.iter::<f64>().sum()
}
