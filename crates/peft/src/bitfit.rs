//! BitFit: only biases are trained (Ben Zaken et al. 2022). What PEFT calls BEFT, where it has it.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use burn_peft_decoder::{DecoderConfig, LayerBiases};
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, Error, Injection, LayerModule, ModuleListing,
    layers::LayerRange,
    method::Method,
    param::{Init, Source},
};

/// Options of BitFit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BitFitConfig {
    /// The modules whose biases are trained; those without one get one that starts at zero. Absent: all that
    /// the base has, or `q_proj`, `k_proj` and `v_proj` where it has none.
    pub target_modules: Option<Vec<LayerModule>>,
    /// First and last layer whose biases are trained; absent: all.
    pub layers: Option<LayerRange>,
    /// An adapter folder to start from.
    pub init_from: Option<String>,
}

impl Method for BitFitConfig {
    fn name(&self) -> &'static str {
        "bitfit"
    }

    fn default_learning_rate(&self) -> f64 {
        // Ben Zaken et al. 2022: AdamW at 1e-3.
        1e-3
    }

    fn validate(&self) -> Result<(), Error> {
        match &self.target_modules {
            Some(modules) if modules.is_empty() => {
                Err(Error::option("target_modules", "it must name a module"))
            }
            _ => Ok(()),
        }
    }

    fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        self.layers.map_or(Ok(()), |range| range.check(base))
    }

    fn num_trainable(&self, base: &DecoderConfig) -> usize {
        self.places(base).map(|(_, kind)| kind.width(base)).sum()
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let places = self.places(base);
        ModuleListing::biases(places.map(|(layer, kind)| (layer, kind, kind.width(base))))
    }

    fn init_from(&self) -> Option<&str> {
        self.init_from.as_deref()
    }
}

impl BitFitConfig {
    /// Layer and module of every bias that is trained.
    pub fn places(&self, base: &DecoderConfig) -> impl Iterator<Item = (usize, LayerModule)> {
        let (first, last) = match self.layers {
            Some(range) => (range.first(), range.last()),
            None => (0, base.num_hidden_layers - 1),
        };
        let kinds = self.modules_of_a_layer(base);
        (first..=last).flat_map(move |layer| kinds.clone().into_iter().map(move |k| (layer, k)))
    }

    /// The modules of a layer whose biases are trained, in one order and once each.
    fn modules_of_a_layer(&self, base: &DecoderConfig) -> Vec<LayerModule> {
        const ATTENTION_INPUTS: &[LayerModule] =
            &[LayerModule::QProj, LayerModule::KProj, LayerModule::VProj];
        let targets = match &self.target_modules {
            Some(modules) => modules,
            None if base.biases.is_empty() => ATTENTION_INPUTS,
            None => &base.biases,
        };
        LayerModule::ALL
            .into_iter()
            .filter(|module| targets.contains(module))
            .collect()
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> BitFit<B> {
        let mut adapter = BitFit::empty(base);
        for (layer, kind) in self.places(base) {
            let name = bias_name(layer, kind);
            let delta = source.param(&name, [kind.width(base)], Init::Zeros, device);
            adapter.layers[layer][kind as usize] = Some(delta);
        }
        adapter
    }
}

/// The name of a trained bias, as a checkpoint names one.
fn bias_name(layer: usize, kind: LayerModule) -> String {
    format!("{}.bias", kind.module_path(layer))
}

/// What is added to each bias; where the base has none, all of it.
#[derive(Module, Debug)]
pub struct BitFit<B: Backend> {
    layers: Vec<BiasDeltas<B>>,
}

/// One layer's, `[d_out]` each, in the order of [`LayerModule::ALL`].
type BiasDeltas<B> = [Option<Param<Tensor<B, 1>>>; LayerModule::ALL.len()];

impl<B: Backend> BitFit<B> {
    /// An adapter from given deltas: layer, module, and the numbers added, `[d_out]`.
    ///
    /// # Panics
    /// If a layer or a length is not the base's.
    #[must_use]
    pub fn from_data(
        deltas: impl IntoIterator<Item = (usize, LayerModule, TensorData)>,
        base: &DecoderConfig,
        device: &B::Device,
    ) -> Self {
        let mut adapter = Self::empty(base);
        for (layer, kind, delta) in deltas {
            let delta =
                TensorData::new(delta.iter::<f64>().collect::<Vec<_>>(), [kind.width(base)]);
            let name = bias_name(layer, kind);
            adapter.layers[layer][kind as usize] =
                Some(crate::param::trainable(&name, delta, device));
        }
        adapter
    }

    fn empty(base: &DecoderConfig) -> Self {
        Self {
            layers: (0..base.num_hidden_layers)
                .map(|_| std::array::from_fn(|_| None))
                .collect(),
        }
    }
}

impl<B: Backend> Adapter<B> for BitFit<B> {
    fn inject(&self) -> Injection<B> {
        let layer = |deltas: &BiasDeltas<B>| {
            let deltas = LayerModule::ALL.into_iter().zip(deltas);
            let deltas = deltas.filter_map(|(module, delta)| Some((module, delta.as_ref()?.val())));
            deltas.collect::<LayerBiases<B>>()
        };
        Injection::Biases(self.layers.iter().map(layer).collect())
    }
}
