//! BitFit: only biases are trained (Ben Zaken et al. 2022). PEFT has it as BEFT.

use std::collections::HashMap;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, backend::Backend},
};
use burn_peft_decoder::{DecoderConfig, LayerBiases};

use crate::{
    Adapter, AdapterPath, Error, Injection, LayerModule, LayerRange, ModuleListing,
    method::{Method, RateBasis, StartsFrom},
    param::{Init, Source},
};

crate::options! {
    /// Options of BitFit.
    pub struct BitFitConfig {
        /// The modules whose biases are trained. A module without a bias gets one that starts at zero.
        pub target_modules: Option<Vec<LayerModule>> = None,
            shown as "all biases that the model has; `q_proj`, `k_proj` and `v_proj` where it has none",
            source "Ben Zaken et al. 2022. PEFT's BEFT has `v_proj`";
        /// First and last layer whose biases are trained, counted from 0.
        pub layers: Option<LayerRange> = None,
            shown as "all",
            source "Ben Zaken et al. 2022";
        /// An adapter to start from (`BEFT`): its folder, or a hub id.
        pub init_from: Option<AdapterPath> = None;
    }
}

impl Method for BitFitConfig {
    fn default_learning_rate(&self, base: RateBasis<'_>) -> f64 {
        // docs/results.md: with 30 layers 1e-2 is best, with 5 layers 1e-1.
        0.3 / base.layers()
    }

    fn validate(&self) -> Result<(), Error> {
        match self.target_modules.as_deref() {
            Some([]) => Err(Error::option("target_modules", "it must name a module")),
            _ => Ok(()),
        }
    }

    fn check_base(&self, base: &DecoderConfig) -> Result<(), Error> {
        self.layers.map_or(Ok(()), |range| range.check(base))
    }

    fn modules(&self, base: &DecoderConfig) -> ModuleListing {
        let places = self.places(base).into_iter();
        ModuleListing::biases(places.map(|(layer, kind)| (layer, kind, kind.width(base))))
    }

    fn decided_by_folder(&self) -> Vec<&'static str> {
        let modules = self.target_modules.as_ref().map(|_| "target_modules");
        let layers = self.layers.map(|_| "layers");
        modules.into_iter().chain(layers).collect()
    }

    fn fill_in(&mut self, base: &DecoderConfig) {
        if self.init_from.is_none() {
            self.target_modules = Some(self.targets(base).to_vec());
            self.layers.get_or_insert(LayerRange::all(base));
        }
    }

    fn init_from_mut(&mut self) -> Option<&mut AdapterPath> {
        self.init_from.as_mut()
    }

    fn starts_from(&self) -> StartsFrom<'_> {
        StartsFrom::Nothing.or_folder(self.init_from.as_ref())
    }
}

impl BitFitConfig {
    fn targets<'a>(&'a self, base: &'a DecoderConfig) -> &'a [LayerModule] {
        let of_the_base = match base.biases.as_slice() {
            [] => &LayerModule::QKV,
            biases => biases,
        };
        self.target_modules.as_deref().unwrap_or(of_the_base)
    }

    /// Layer and module of every bias that is trained: layer by layer, in the order of [`LayerModule::ALL`].
    fn places(&self, base: &DecoderConfig) -> Vec<(usize, LayerModule)> {
        let targets = self.targets(base);
        let modules = LayerModule::ALL.into_iter();
        let modules = modules.filter(|module| targets.contains(module));
        let layers = self.layers.unwrap_or(LayerRange::all(base));
        (layers.first()..=layers.last())
            .flat_map(|layer| modules.clone().map(move |module| (layer, module)))
            .collect()
    }

    pub(crate) fn build<B: Backend>(
        &self,
        base: &DecoderConfig,
        source: Source<'_>,
        device: &B::Device,
    ) -> Result<BitFit<B>, Error> {
        Ok(BitFit::new(self.places(base), base, source, device))
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
        let mut places = Vec::new();
        let mut values = HashMap::new();
        for (layer, kind, delta) in deltas {
            let shape = [delta.num_elements()].into();
            places.push((layer, kind));
            values.insert(bias_name(layer, kind), TensorData { shape, ..delta });
        }
        let value = |name: &str| values[name].clone();
        Self::new(places, base, Source::Given(&value), device)
    }

    /// An adapter for the biases of these modules.
    fn new(
        places: impl IntoIterator<Item = (usize, LayerModule)>,
        base: &DecoderConfig,
        mut source: Source<'_>,
        device: &B::Device,
    ) -> Self {
        let no_deltas = |_| std::array::from_fn(|_| None);
        let mut layers: Vec<BiasDeltas<B>> = (0..base.num_hidden_layers).map(no_deltas).collect();
        for (layer, kind) in places {
            let name = bias_name(layer, kind);
            let delta = source.param(&name, [kind.width(base)], Init::Zeros, device);
            layers[layer][kind as usize] = Some(delta);
        }
        Self { layers }
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
