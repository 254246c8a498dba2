//! BitFit: only biases are trained (Ben Zaken et al. 2022). What PEFT calls BEFT, where it has it.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use burn_qwen2::{LayerBiases, Qwen2Config};
use serde::{Deserialize, Serialize};

use crate::{
    Adapter, BiasKind, Error, Injection, ModuleListing,
    layers::LayerRange,
    method::Method,
    param::{Init, Source},
};

/// Options of BitFit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BitFitConfig {
    /// The modules whose biases are trained. Those without one in Qwen2 get one that starts at zero.
    pub target_modules: Vec<BiasKind>,
    /// First and last layer whose biases are trained; absent: all.
    pub layers: Option<LayerRange>,
    /// An adapter folder to start from.
    pub init_from: Option<String>,
}

impl Default for BitFitConfig {
    fn default() -> Self {
        Self {
            // All the biases that Qwen2 has.
            target_modules: BiasKind::ALL
                .into_iter()
                .filter(|kind| kind.in_qwen2())
                .collect(),
            layers: None,
            init_from: None,
        }
    }
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
        match self.target_modules.is_empty() {
            true => Err(Error::option("target_modules", "it must name a module")),
            false => Ok(()),
        }
    }

    fn check_base(&self, base: &Qwen2Config) -> Result<(), Error> {
        self.layers.map_or(Ok(()), |range| range.check(base))
    }

    fn num_trainable(&self, base: &Qwen2Config) -> usize {
        self.places(base).map(|(_, kind)| kind.width(base)).sum()
    }

    fn modules(&self, base: &Qwen2Config) -> ModuleListing {
        let places = self.places(base);
        ModuleListing::biases(places.map(|(layer, kind)| (layer, kind, kind.width(base))))
    }

    fn init_from(&self) -> Option<&str> {
        self.init_from.as_deref()
    }
}

impl BitFitConfig {
    /// Layer and module of every bias that is trained.
    pub fn places(&self, base: &Qwen2Config) -> impl Iterator<Item = (usize, BiasKind)> {
        let (first, last) = match self.layers {
            Some(range) => (range.first(), range.last()),
            None => (0, base.num_hidden_layers - 1),
        };
        // In one order and once each, however they were named.
        let kinds: Vec<BiasKind> = BiasKind::ALL
            .into_iter()
            .filter(|kind| self.target_modules.contains(kind))
            .collect();
        (first..=last).flat_map(move |layer| kinds.clone().into_iter().map(move |k| (layer, k)))
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &Qwen2Config,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> BitFit<B> {
        let mut adapter = BitFit::empty(base);
        for (layer, kind) in self.places(base) {
            let name = bias_name(layer, kind);
            let delta = source.param(&name, [kind.width(base)], Init::Zeros, device);
            *adapter.layers[layer].of_mut(kind) = Some(delta);
        }
        adapter
    }
}

/// The name of a trained bias, as a checkpoint names one.
fn bias_name(layer: usize, kind: BiasKind) -> String {
    format!("{}.bias", kind.module_path(layer))
}

/// What is added to each bias; where the base has none, all of it.
#[derive(Module, Debug)]
pub struct BitFit<B: Backend> {
    layers: Vec<BiasDeltas<B>>,
}

/// One layer's, `[d_out]` each.
#[derive(Module, Debug)]
struct BiasDeltas<B: Backend> {
    q_proj: Option<Param<Tensor<B, 1>>>,
    k_proj: Option<Param<Tensor<B, 1>>>,
    v_proj: Option<Param<Tensor<B, 1>>>,
    o_proj: Option<Param<Tensor<B, 1>>>,
    gate_proj: Option<Param<Tensor<B, 1>>>,
    up_proj: Option<Param<Tensor<B, 1>>>,
    down_proj: Option<Param<Tensor<B, 1>>>,
    input_layernorm: Option<Param<Tensor<B, 1>>>,
    post_attention_layernorm: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> BitFit<B> {
    /// An adapter from given deltas: layer, module, and the numbers added, `[d_out]`.
    ///
    /// # Panics
    /// If a layer or a length is not the base's.
    #[must_use]
    pub fn from_data(
        deltas: impl IntoIterator<Item = (usize, BiasKind, TensorData)>,
        base: &Qwen2Config,
        device: &B::Device,
    ) -> Self {
        let mut adapter = Self::empty(base);
        for (layer, kind, delta) in deltas {
            let delta =
                TensorData::new(delta.iter::<f64>().collect::<Vec<_>>(), [kind.width(base)]);
            let name = bias_name(layer, kind);
            *adapter.layers[layer].of_mut(kind) =
                Some(crate::param::trainable(&name, delta, device));
        }
        adapter
    }

    fn empty(base: &Qwen2Config) -> Self {
        let none = || BiasDeltas {
            q_proj: None,
            k_proj: None,
            v_proj: None,
            o_proj: None,
            gate_proj: None,
            up_proj: None,
            down_proj: None,
            input_layernorm: None,
            post_attention_layernorm: None,
        };
        Self {
            layers: (0..base.num_hidden_layers).map(|_| none()).collect(),
        }
    }
}

impl<B: Backend> BiasDeltas<B> {
    fn of_mut(&mut self, kind: BiasKind) -> &mut Option<Param<Tensor<B, 1>>> {
        match kind {
            BiasKind::QProj => &mut self.q_proj,
            BiasKind::KProj => &mut self.k_proj,
            BiasKind::VProj => &mut self.v_proj,
            BiasKind::OProj => &mut self.o_proj,
            BiasKind::GateProj => &mut self.gate_proj,
            BiasKind::UpProj => &mut self.up_proj,
            BiasKind::DownProj => &mut self.down_proj,
            BiasKind::InputLayernorm => &mut self.input_layernorm,
            BiasKind::PostAttentionLayernorm => &mut self.post_attention_layernorm,
        }
    }
}

impl<B: Backend> Adapter<B> for BitFit<B> {
    fn inject(&self) -> Injection<B> {
        let value = |delta: &Option<Param<Tensor<B, 1>>>| delta.as_ref().map(Param::val);
        let layers = self.layers.iter().map(|deltas| LayerBiases {
            q_proj: value(&deltas.q_proj),
            k_proj: value(&deltas.k_proj),
            v_proj: value(&deltas.v_proj),
            o_proj: value(&deltas.o_proj),
            gate_proj: value(&deltas.gate_proj),
            up_proj: value(&deltas.up_proj),
            down_proj: value(&deltas.down_proj),
            input_layernorm: value(&deltas.input_layernorm),
            post_attention_layernorm: value(&deltas.post_attention_layernorm),
        });
        Injection::Biases(layers.collect())
    }
}
