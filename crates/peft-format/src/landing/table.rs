//! Prompts and prefixes: one table, a row a virtual token.

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::{ModuleListing, VirtualTokens, prefix_table};
use burn_peft_decoder::{DecoderConfig, LayerKv};

use super::Shapes;
use crate::tensors::{AdapterTensor, AdapterTensors, PROMPT_EMBEDDINGS};
use crate::virtual_tokens::VirtualTokenOptions;
use crate::{Error, Problem};

/// A width that a table may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// PEFT's `token_dim`.
    token_dim: usize,
    columns: usize,
}

pub(super) fn insert_prompt<B: Backend>(
    VirtualTokens { embeddings }: VirtualTokens<B>,
    base: &DecoderConfig,
    tensors: &mut AdapterTensors,
) -> VirtualTokenOptions {
    let [count, _] = embeddings.dims();
    tensors.insert(PROMPT_EMBEDDINGS, to_host(embeddings.into_data()));
    VirtualTokenOptions::prompt(count, base)
}

/// Refuses a prefix without layers, which injects nothing.
pub(super) fn insert_prefix<B: Backend>(
    prefix: Vec<LayerKv<B>>,
    base: &DecoderConfig,
    tensors: &mut AdapterTensors,
) -> Result<VirtualTokenOptions, Error> {
    let [heads, count, _] = prefix.first().ok_or(Error::NothingToSave)?.key.dims();
    tensors.insert(PROMPT_EMBEDDINGS, to_host(prefix_table(prefix).into_data()));
    Ok(match heads == base.num_key_value_heads {
        true => VirtualTokenOptions::prefix(count, base),
        false => VirtualTokenOptions::attention_prefix(count, base),
    })
}

fn to_host(data: TensorData) -> AdapterTensor {
    AdapterTensor::new(data.shape.to_vec(), data.iter::<f32>().collect())
}

/// The table of a folder that was checked.
pub(super) fn data(tensors: &AdapterTensors) -> TensorData {
    let table = tensors.get(PROMPT_EMBEDDINGS);
    let table = table.expect("`check` asks for the table");
    TensorData::new(table.values().to_vec(), table.shape().to_vec())
}

/// A module of this class that holds the table, where there is one.
pub(super) fn listing(class: &str, table: Option<&AdapterTensor>) -> ModuleListing {
    let modules = ModuleListing::new(class);
    match table.map(AdapterTensor::shape) {
        Some(&[tokens, width]) => {
            modules.child("embedding", ModuleListing::embedding([tokens, width]))
        }
        Some(shape) => modules.parameter(PROMPT_EMBEDDINGS, shape),
        None => modules,
    }
}

/// A prompt of the width of the hidden states.
pub(super) fn expect_prompt(
    tokens: &VirtualTokenOptions,
    base: &DecoderConfig,
    problems: &mut Vec<Problem>,
) -> Shapes {
    let layout = Layout {
        token_dim: base.hidden_size,
        columns: base.hidden_size,
    };
    expect(tokens, &[layout], base, problems)
}

/// A key and a value of every layer, with as many heads as the base has for keys or for queries.
pub(super) fn expect_prefix(
    tokens: &VirtualTokenOptions,
    base: &DecoderConfig,
    problems: &mut Vec<Problem>,
) -> Shapes {
    let mut layouts = [base.kv_width(), base.query_width()]
        .map(|token_dim| Layout {
            token_dim,
            columns: base.num_hidden_layers * 2 * token_dim,
        })
        .to_vec();
    // Every query head may have its own key; then one shape is enough.
    layouts.dedup();
    let configured = |layout: &&Layout| Some(layout.token_dim) == tokens.token_dim;
    if let Some(layout) = layouts.iter().find(configured).copied() {
        check_heads(tokens, layout, base, problems);
        layouts = vec![layout];
    }
    expect(tokens, &layouts, base, problems)
}

/// PEFT splits a prefix's `token_dim` into `num_attention_heads`; another split is another head width.
fn check_heads(
    tokens: &VirtualTokenOptions,
    layout: Layout,
    base: &DecoderConfig,
    problems: &mut Vec<Problem>,
) {
    let heads = layout.token_dim / base.head_dim.max(1);
    if let Some(found) = tokens.num_attention_heads.filter(|found| *found != heads) {
        problems.push(field("num_attention_heads", found, heads.to_string()));
    }
}

/// A table with any of these layouts.
fn expect(
    tokens: &VirtualTokenOptions,
    layouts: &[Layout],
    base: &DecoderConfig,
    problems: &mut Vec<Problem>,
) -> Shapes {
    check_configuration(tokens, problems);
    let layers = base.num_hidden_layers;
    if let Some(found) = tokens.num_layers.filter(|found| *found != layers) {
        problems.push(field("num_layers", found, layers.to_string()));
    }
    let is_known = |found: &usize| layouts.iter().any(|layout| layout.token_dim == *found);
    if let Some(found) = tokens.token_dim.filter(|found| !is_known(found)) {
        let expected = layouts.iter().map(|layout| layout.token_dim.to_string());
        let expected: Vec<_> = expected.collect();
        problems.push(field("token_dim", found, expected.join(" or ")));
    }
    let shape = |layout: &Layout| vec![tokens.num_virtual_tokens, layout.columns];
    Shapes::from([(
        PROMPT_EMBEDDINGS.into(),
        layouts.iter().map(shape).collect(),
    )])
}

/// A prompt as its configuration says, whatever the base; of any width where it does not say.
pub(super) fn expect_as_configured(
    tokens: &VirtualTokenOptions,
    table: Option<&AdapterTensor>,
    problems: &mut Vec<Problem>,
) -> Shapes {
    check_configuration(tokens, problems);
    let own_width = || table?.shape().get(1).copied();
    let width = tokens.token_dim.or_else(own_width).unwrap_or(0);
    let shape = vec![tokens.num_virtual_tokens, width];
    Shapes::from([(PROMPT_EMBEDDINGS.into(), vec![shape])])
}

/// What is wrong with the fields for any base.
fn check_configuration(tokens: &VirtualTokenOptions, problems: &mut Vec<Problem>) {
    if tokens.num_virtual_tokens == 0 {
        problems.push(field("num_virtual_tokens", 0, "at least 1".into()));
    }
    let submodules = tokens.num_transformer_submodules;
    if let Some(found) = submodules.filter(|found| *found != 1) {
        problems.push(field("num_transformer_submodules", found, "1".into()));
    }
}

fn field(field: &'static str, found: usize, expected: String) -> Problem {
    Problem::Field {
        field,
        found: found.to_string(),
        expected,
    }
}
