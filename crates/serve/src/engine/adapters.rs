//! What adapters do to a row: computed once, when they are added.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use burn::tensor::{Tensor, backend::Backend};
use burn_peft::{Head, Injection};
use burn_peft_decoder::{BiasTables, Decoder, LayerBiases, LayerKv};
use burn_peft_ops::Ops;

/// Names an adapter to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub u64);

/// The bare base.
pub const BASE: AdapterId = AdapterId(0);

/// An adapter as it is given to the engine.
#[derive(Debug, Clone)]
pub struct AdapterValues<B: Backend> {
    /// What it does to rows.
    pub injection: Injection<B>,
    /// What reads its rows in place of the language-model head, where it has one.
    pub head: Option<Head<B>>,
}

impl<B: Backend> From<Injection<B>> for AdapterValues<B> {
    fn from(injection: Injection<B>) -> Self {
        Self {
            injection,
            head: None,
        }
    }
}

/// An adapter as its rows find it.
#[derive(Debug)]
pub(crate) struct Loaded<B: Backend> {
    /// What stands in front of a row, or among its tokens.
    pub(crate) front: Front<B>,
    /// What it adds to the biases of the base.
    biases: Option<Vec<LayerBiases<B>>>,
    pub(crate) head: Option<Head<B>>,
}

/// Virtual tokens of an adapter.
#[derive(Debug)]
pub(crate) enum Front<B: Backend> {
    /// None.
    Nothing,
    /// Keys and values of every layer.
    Prefix(Vec<LayerKv<B>>),
    /// Embeddings, `[tokens, d_model]`, and the keys and values that they have at the beginning of a row.
    Prompt {
        embeddings: Tensor<B, 2>,
        prefix: Vec<LayerKv<B>>,
    },
}

impl<B: Ops> Loaded<B> {
    /// Computes what an adapter is to rows of `base`.
    pub(crate) fn new(base: &Decoder<B>, adapter: AdapterValues<B>) -> Self {
        let AdapterValues { injection, head } = adapter;
        let prefix = injection.keys_and_values(base);
        let (front, biases) = match injection {
            Injection::Nothing => (Front::Nothing, None),
            Injection::Biases(biases) => (Front::Nothing, Some(biases)),
            Injection::Prefix(_) => (Front::Prefix(prefix), None),
            Injection::Prompt(prompt) => {
                let embeddings = prompt.embeddings.cast(base.dtype());
                (Front::Prompt { embeddings, prefix }, None)
            }
        };
        Self {
            front,
            biases,
            head,
        }
    }
}

impl<B: Backend> Loaded<B> {
    /// Heads of its keys, where it has some.
    pub(crate) fn heads(&self) -> Option<usize> {
        self.prefix().first().map(|layer| layer.key.dims()[0])
    }

    /// Number of virtual tokens.
    pub(crate) fn virtual_tokens(&self) -> usize {
        match &self.front {
            Front::Nothing => 0,
            Front::Prefix(layers) => layers.first().map_or(0, |layer| layer.key.dims()[1]),
            Front::Prompt { embeddings, .. } => embeddings.dims()[0],
        }
    }

    /// The keys and values in front of a row, or among its tokens.
    pub(crate) fn prefix(&self) -> &[LayerKv<B>] {
        match &self.front {
            Front::Nothing => &[],
            Front::Prefix(layers) | Front::Prompt { prefix: layers, .. } => layers,
        }
    }
}

/// The adapters that rows may have.
#[derive(Debug)]
pub(crate) struct Adapters<B: Backend> {
    loaded: BTreeMap<AdapterId, Arc<Loaded<B>>>,
    /// Those that were removed, as long as rows run with them.
    leaving: BTreeMap<AdapterId, Weak<Loaded<B>>>,
    /// The biases of those that change some, if any does.
    tables: Option<BiasTables<B>>,
    /// The row of the tables that an adapter has; others have row 0.
    sets: BTreeMap<AdapterId, usize>,
}

impl<B: Ops> Adapters<B> {
    pub(crate) fn new() -> Self {
        let nothing = Loaded {
            front: Front::Nothing,
            biases: None,
            head: None,
        };
        Self {
            loaded: BTreeMap::from([(BASE, Arc::new(nothing))]),
            leaving: BTreeMap::new(),
            tables: None,
            sets: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, id: AdapterId) -> Option<Arc<Loaded<B>>> {
        self.loaded.get(&id).cloned()
    }

    pub(crate) fn add(&mut self, base: &Decoder<B>, id: AdapterId, adapter: Loaded<B>) {
        self.loaded.insert(id, Arc::new(adapter));
        self.make_tables(base);
    }

    pub(crate) fn remove(&mut self, base: &Decoder<B>, id: AdapterId) {
        if let Some(adapter) = self.loaded.remove(&id) {
            self.leaving.insert(id, Arc::downgrade(&adapter));
        }
        self.make_tables(base);
    }

    fn make_tables(&mut self, base: &Decoder<B>) {
        self.leaving.retain(|_, adapter| adapter.strong_count() > 0);
        let loaded = self
            .loaded
            .iter()
            .map(|(id, adapter)| (*id, adapter.clone()));
        let leaving = self.leaving.iter();
        let leaving = leaving.filter_map(|(id, adapter)| Some((*id, adapter.upgrade()?)));
        let changing = loaded
            .chain(leaving)
            .filter_map(|(id, adapter)| Some((id, adapter.biases.clone()?)));
        let (ids, biases): (Vec<_>, Vec<_>) = changing.unzip();
        self.tables = (!ids.is_empty()).then(|| BiasTables::new(base, &biases));
        self.sets = ids.into_iter().zip(1..).collect();
    }

    /// The tables, and the row of them that each of `adapters` has; `None` where none of them changes a bias.
    pub(crate) fn biases(&self, adapters: &[AdapterId]) -> Option<(&BiasTables<B>, Vec<usize>)> {
        let sets = adapters
            .iter()
            .map(|id| self.sets.get(id).copied().unwrap_or(0));
        let sets: Vec<usize> = sets.collect();
        let tables = self.tables.as_ref()?;
        sets.iter().any(|set| *set > 0).then_some((tables, sets))
    }
}
