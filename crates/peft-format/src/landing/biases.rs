//! Biases: one tensor for each module of a layer that has one.

use std::collections::BTreeSet;

use burn::tensor::{TensorData, backend::Backend};
use burn_peft::LayerModule;
use burn_peft_decoder::{DecoderConfig, LayerBiases};

use super::Shapes;
use crate::beft::{TargetModules, beft_bias_name, parse_beft_bias_name};
use crate::fields::shortened;
use crate::folder::AdapterFolder;
use crate::task::CAUSAL_BACKBONE;
use crate::tensors::{AdapterTensor, AdapterTensors};
use crate::{Error, Problem};

impl AdapterFolder {
    /// The biases of a BEFT folder, as changes to the base's, by layer and module; empty for every
    /// other method.
    pub fn biases(&self) -> Vec<(usize, LayerModule, &[f32])> {
        let mut biases: Vec<_> = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| {
                let (layer, module) = parse_beft_bias_name(name)?;
                Some((layer, module, tensor.values()))
            })
            .collect();
        biases.sort_by_key(|&(layer, module, _)| (layer, module));
        biases
    }
}

pub(super) fn insert<B: Backend>(
    layers: Vec<LayerBiases<B>>,
    base: &DecoderConfig,
    tensors: &mut AdapterTensors,
) -> Result<TargetModules, Error> {
    let mut found = BTreeSet::new();
    for (layer, biases) in layers.into_iter().enumerate() {
        for (module, delta) in biases.iter() {
            let values: Vec<f32> = delta.to_data().iter::<f32>().collect();
            let tensor = AdapterTensor::new([1, values.len()], values);
            tensors.insert(beft_bias_name(CAUSAL_BACKBONE, layer, module), tensor);
            found.insert((layer, module));
        }
    }
    if found.is_empty() {
        return Err(Error::NothingToSave);
    }
    Ok(TargetModules::of(&found, base.num_hidden_layers))
}

/// Biases that change nothing: zeros where PEFT's BEFT has its own by default.
pub(super) fn insert_zeros(base: &DecoderConfig, tensors: &mut AdapterTensors) -> TargetModules {
    let module = LayerModule::VProj;
    let biases: BTreeSet<_> = (0..base.num_hidden_layers)
        .map(|layer| (layer, module))
        .collect();
    let width = module.width(base);
    for &(layer, module) in &biases {
        let tensor = AdapterTensor::new([1, width], vec![0.0; width]);
        tensors.insert(beft_bias_name(CAUSAL_BACKBONE, layer, module), tensor);
    }
    TargetModules::of(&biases, base.num_hidden_layers)
}

/// The biases of a folder that was checked, `[d_out]` each.
pub(super) fn data(
    folder: &AdapterFolder,
) -> impl Iterator<Item = (usize, LayerModule, TensorData)> {
    let biases = folder.biases().into_iter();
    biases.map(|(layer, module, values)| {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        (layer, module, data)
    })
}

/// One bias for every module that is targeted, under the name that it has in a model with this backbone.
pub(super) fn expect(
    targets: &TargetModules,
    backbone: &str,
    base: &DecoderConfig,
    problems: &mut Vec<Problem>,
) -> Shapes {
    let every: Vec<_> = (0..base.num_hidden_layers)
        .flat_map(|layer| LayerModule::ALL.map(|module| (layer, module)))
        .collect();
    let biases = match targets.among(&every, backbone) {
        Ok((biases, naming_none)) => {
            let none = naming_none.into_iter();
            problems.extend(none.map(|target| names_nothing(target, base)));
            biases
        }
        Err(reason) => {
            problems.push(no_pattern(targets, &reason));
            BTreeSet::new()
        }
    };
    let shape = |(layer, module): (usize, LayerModule)| {
        let shape = vec![1, module.width(base)];
        (beft_bias_name(backbone, layer, module), vec![shape])
    };
    biases.into_iter().map(shape).collect()
}

fn names_nothing(target: &str, base: &DecoderConfig) -> Problem {
    Problem::Field {
        field: "target_modules",
        found: format!("`{}`", shortened(target)),
        expected: format!(
            "any of {} in layers 0 to {}",
            LayerModule::ALL.map(LayerModule::name).join(", "),
            base.num_hidden_layers.saturating_sub(1)
        ),
    }
}

fn no_pattern(targets: &TargetModules, reason: &str) -> Problem {
    let pattern = match targets {
        TargetModules::Pattern(pattern) => shortened(pattern),
        TargetModules::Names(names) => shortened(&names.join(", ")),
    };
    Problem::Field {
        field: "target_modules",
        found: format!("`{pattern}` ({})", shortened(reason)),
        expected: "a list of module names or a regular expression".into(),
    }
}
