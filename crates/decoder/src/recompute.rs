//! A forward pass that keeps each layer's input and nothing else, and computes a layer again when its
//! gradient is due (Chen et al. 2016). The memory of activations falls to one layer's and the inputs; the
//! price is a second forward pass.
//!
//! It is not one operation of a graph with a backward pass of its own, because Burn 0.21 deadlocks when a
//! backward pass starts another (#5194). The layers' graphs are made and consumed one after the other, and
//! what is tracked outside (biases, a prefix, the embeddings of a prompt) takes part as leaves.

use burn::{
    module::AutodiffModule,
    tensor::{
        Int, Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use burn_peft_ops::Ops;

use crate::{
    AttentionMask, Decoder, KvCache, LayerModule, Past, decode::cell_indices, layer::DecoderLayer,
};

/// A forward pass whose gradient can still be computed.
#[derive(Debug)]
pub struct Recording<B: AutodiffBackend> {
    model: Decoder<B>,
    /// As it was before the pass.
    cache: KvCache<B>,
    /// The prompt beside the rows, if there is one.
    prompt: Option<Tensor<B, 2>>,
    /// `[batch, seq, d_model]`, as it was given.
    hidden: Tensor<B, 3>,
    mask: AttentionMask,
    cells: Option<Tensor<B, 1, Int>>,
    /// Each layer's input, `[batch · seq, d_model]`, with a prompt's tokens behind it.
    inputs: Vec<Tensor<B::InnerBackend, 2>>,
    /// The input of the last norm, `[cells, d_model]`.
    output: Tensor<B::InnerBackend, 2>,
}

impl<B> Decoder<B>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    /// Runs [`decode`](Self::decode) without a graph, for a gradient that is computed layer by layer.
    #[must_use]
    pub fn record(
        &self,
        hidden: Tensor<B, 3>,
        mask: &AttentionMask,
        past: Past<'_, B>,
        cells: &[usize],
    ) -> Recording<B> {
        let model = self.valid();
        let (cache, prompt) = match past {
            Past::Cache(cache) => (cache.clone(), None),
            Past::Prompt(prompt) => (KvCache::empty(self.layers.len(), 0), Some(prompt)),
        };
        let mut inner_cache = cache.clone().map(Tensor::inner);
        let inner_prompt = prompt.clone().map(Tensor::inner);
        let mut scratch = KvCache::empty(self.layers.len(), 0);
        let inner_past = past_of(&mut inner_cache, inner_prompt);
        let (pass, mut state, written) =
            model.start(hidden.clone().inner(), mask, inner_past, &mut scratch);
        let cells = Some(cell_indices(cells, &hidden.device()));
        let mut inputs = Vec::with_capacity(model.layers.len());
        for (index, layer) in model.layers.iter().enumerate() {
            inputs.push(state.clone());
            let cells = model.cells_of(index, &cells);
            state = layer.forward(index, state, cells, &pass, written);
            // Keys and values are computed again too.
            let _ = written.take(index);
        }
        Recording {
            model: self.clone(),
            hidden,
            cache,
            prompt,
            mask: mask.clone(),
            cells: cells.map(Tensor::from_inner),
            inputs,
            output: state,
        }
    }
}

fn past_of<B: Backend>(cache: &mut KvCache<B>, prompt: Option<Tensor<B, 2>>) -> Past<'_, B> {
    prompt.map_or(Past::Cache(cache), Past::Prompt)
}

impl<B> Recording<B>
where
    B: AutodiffBackend<InnerBackend: Ops> + Ops,
{
    /// The hidden states of the cells, after the last norm, `[cells, d_model]`; a leaf to build a loss on.
    #[must_use]
    pub fn leaf(&self) -> Tensor<B, 2> {
        let output = Tensor::from_inner(self.output.clone());
        self.model.norm.forward(output).detach().require_grad()
    }

    /// Carries the gradient of [`leaf`](Self::leaf) through the layers, the last one first.
    ///
    /// What comes back is a scalar, `[1]`, whose gradient with respect to everything that was tracked
    /// before the recording is that of the loss.
    #[must_use]
    pub fn backward(self, gradient: Tensor<B::InnerBackend, 2>) -> Tensor<B, 1> {
        let Self {
            model,
            hidden,
            mut cache,
            prompt,
            mask,
            cells,
            mut inputs,
            output,
        } = self;
        let layers = model.layers.len();
        let mut links = Vec::new();
        let mut scratch = KvCache::empty(layers, 0);
        let past = past_of(&mut cache, prompt);
        let (pass, first, cache) = model.start(hidden, &mask, past, &mut scratch);
        let prefix: Vec<_> = (0..layers).map(|layer| cache.take(layer)).collect();
        let mut above = {
            let output = Tensor::from_inner(output).require_grad();
            let normed = model.norm.forward(output.clone());
            let grads = (normed * Tensor::from_inner(gradient)).backward();
            output.grad(&grads).expect("the norm's input is a leaf")
        };
        for (index, prefix) in prefix.into_iter().enumerate().rev() {
            let input = inputs.pop().expect("one input a layer");
            let input = Tensor::from_inner(input).require_grad();
            let (layer, biases) = cut_biases(model.layers[index].clone());
            let prefix = prefix.map(|states| states.map(Cut::new));
            if let Some(prefix) = &prefix {
                cache.put(index, prefix.each_ref().map(|states| states.leaf.clone()));
            }
            let cells = model.cells_of(index, &cells);
            let output = layer.forward(index, input.clone(), cells, &pass, cache);
            let _ = cache.take(index);
            let grads = (output * Tensor::from_inner(above)).backward();
            above = input.grad(&grads).expect("the layer's input is a leaf");
            links.extend(biases.into_iter().filter_map(|bias| bias.link(&grads)));
            let states = prefix.into_iter().flatten();
            links.extend(states.filter_map(|states| states.link(&grads)));
        }
        links.into_iter().fold(link(first, above), Tensor::add)
    }
}

/// A scalar, `[1]`, whose gradient with respect to `tensor` is `gradient`.
fn link<B: AutodiffBackend, const D: usize>(
    tensor: Tensor<B, D>,
    gradient: Tensor<B::InnerBackend, D>,
) -> Tensor<B, 1> {
    (tensor * Tensor::from_inner(gradient)).sum()
}

/// A tensor of one graph, and a leaf that stands for it in another.
#[derive(Debug)]
struct Cut<B: AutodiffBackend, const D: usize> {
    outer: Tensor<B, D>,
    /// The same numbers.
    leaf: Tensor<B, D>,
}

impl<B: AutodiffBackend, const D: usize> Cut<B, D> {
    /// Cuts a graph at `outer`.
    fn new(outer: Tensor<B, D>) -> Self {
        let leaf = Tensor::from_inner(outer.clone().inner()).require_grad();
        Self { outer, leaf }
    }

    /// A scalar, `[1]`, that carries the leaf's gradient on in the first graph; `None` where nothing hung on
    /// the leaf.
    fn link(self, grads: &B::Gradients) -> Option<Tensor<B, 1>> {
        let gradient = self.leaf.grad(grads)?;
        Some(link(self.outer, gradient))
    }
}

/// The layer with leaves for its biases.
fn cut_biases<B: AutodiffBackend>(mut layer: DecoderLayer<B>) -> (DecoderLayer<B>, Vec<Cut<B, 1>>) {
    let mut cuts = Vec::new();
    for module in LayerModule::ALL {
        if let Some(bias) = layer.bias_mut(module) {
            let cut = Cut::new(bias.clone());
            *bias = cut.leaf.clone();
            cuts.push(cut);
        }
    }
    (layer, cuts)
}
