//! One decoder layer and its parts. Field names are the checkpoint's.

use burn::{
    module::Module,
    tensor::{Int, Tensor, backend::Backend},
};
use burn_peft_ops::{LinearLayer, Ops, ScoreMask, SharedPrompt};

use crate::{DecoderConfig, KvCache, LayerModule, weights::TensorSource};

/// A linear layer whose weight is a constant.
#[derive(Module, Debug)]
pub(crate) struct FrozenLinear<B: Backend> {
    /// `[d_out, d_in]`.
    pub(crate) weight: Tensor<B, 2>,
    /// `[d_out]`.
    pub(crate) bias: Option<Tensor<B, 1>>,
}

/// RMSNorm whose weight is a constant.
#[derive(Module, Debug)]
pub(crate) struct FrozenRmsNorm<B: Backend> {
    /// `[d_model]`.
    pub(crate) weight: Tensor<B, 1>,
    /// `[d_model]`; Qwen2 has none, an adapter may add one.
    pub(crate) bias: Option<Tensor<B, 1>>,
    epsilon: f64,
}

/// Grouped-query attention with rotary positions.
#[derive(Module, Debug)]
pub(crate) struct Attention<B: Backend> {
    pub(crate) q_proj: FrozenLinear<B>,
    pub(crate) k_proj: FrozenLinear<B>,
    pub(crate) v_proj: FrozenLinear<B>,
    pub(crate) o_proj: FrozenLinear<B>,
    head_dim: usize,
}

/// The gated feed-forward layer.
#[derive(Module, Debug)]
pub(crate) struct Mlp<B: Backend> {
    pub(crate) gate_proj: FrozenLinear<B>,
    pub(crate) up_proj: FrozenLinear<B>,
    pub(crate) down_proj: FrozenLinear<B>,
}

/// Attention and feed-forward, each behind a norm and added to the residual stream.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer<B: Backend> {
    pub(crate) input_layernorm: FrozenRmsNorm<B>,
    pub(crate) self_attn: Attention<B>,
    pub(crate) post_attention_layernorm: FrozenRmsNorm<B>,
    pub(crate) mlp: Mlp<B>,
}

/// What all layers of one pass share.
#[derive(Clone)]
pub(crate) struct Pass<B: Backend> {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) cos: Tensor<B, 4>,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) sin: Tensor<B, 4>,
    pub(crate) sight: Sight<B>,
}

/// What the cells of a pass see beside each other.
#[derive(Clone)]
pub(crate) enum Sight<B: Backend> {
    /// What the cache holds, which they are added to.
    Cache(ScoreMask<B>),
    /// A prompt, whose tokens are the last cells.
    Prompt(SharedPrompt<B>),
}

impl<B: Backend> DecoderLayer<B> {
    pub(crate) fn assemble(
        config: &DecoderConfig,
        layer: usize,
        source: &mut impl TensorSource<B>,
    ) -> Self {
        let mut norm = |module: LayerModule| {
            let path = module.module_path(layer);
            FrozenRmsNorm::new(
                source.tensor(&format!("{path}.weight")),
                config.rms_norm_eps,
            )
        };
        let input_layernorm = norm(LayerModule::InputLayernorm);
        let post_attention_layernorm = norm(LayerModule::PostAttentionLayernorm);
        let mut linear = |module: LayerModule| {
            let path = module.module_path(layer);
            let biased = module.has_bias(config);
            FrozenLinear {
                weight: source.tensor(&format!("{path}.weight")),
                bias: biased.then(|| source.tensor(&format!("{path}.bias"))),
            }
        };
        Self {
            self_attn: Attention {
                q_proj: linear(LayerModule::QProj),
                k_proj: linear(LayerModule::KProj),
                v_proj: linear(LayerModule::VProj),
                o_proj: linear(LayerModule::OProj),
                head_dim: config.head_dim,
            },
            mlp: Mlp {
                gate_proj: linear(LayerModule::GateProj),
                up_proj: linear(LayerModule::UpProj),
                down_proj: linear(LayerModule::DownProj),
            },
            input_layernorm,
            post_attention_layernorm,
        }
    }
}

impl<B: Backend> DecoderLayer<B> {
    /// The bias of `module`.
    pub(crate) fn bias_mut(&mut self, module: LayerModule) -> &mut Option<Tensor<B, 1>> {
        let Self {
            input_layernorm,
            self_attn,
            post_attention_layernorm,
            mlp,
        } = self;
        match module {
            LayerModule::QProj => &mut self_attn.q_proj.bias,
            LayerModule::KProj => &mut self_attn.k_proj.bias,
            LayerModule::VProj => &mut self_attn.v_proj.bias,
            LayerModule::OProj => &mut self_attn.o_proj.bias,
            LayerModule::GateProj => &mut mlp.gate_proj.bias,
            LayerModule::UpProj => &mut mlp.up_proj.bias,
            LayerModule::DownProj => &mut mlp.down_proj.bias,
            LayerModule::InputLayernorm => &mut input_layernorm.bias,
            LayerModule::PostAttentionLayernorm => &mut post_attention_layernorm.bias,
        }
    }
}

impl<B: Backend> FrozenRmsNorm<B> {
    pub(crate) fn new(weight: Tensor<B, 1>, epsilon: f64) -> Self {
        Self {
            weight,
            bias: None,
            epsilon,
        }
    }
}

impl<B: Backend> FrozenLinear<B> {
    /// Weight and bias.
    fn tensors(&self) -> LinearLayer<B> {
        (self.weight.clone(), self.bias.clone())
    }
}

impl<B: Ops> FrozenLinear<B> {
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let (weight, bias) = self.tensors();
        B::frozen_linear(input, weight, bias)
    }
}

impl<B: Ops> FrozenRmsNorm<B> {
    pub(crate) fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = B::rms_norm(hidden, self.weight.clone(), self.epsilon);
        match &self.bias {
            Some(bias) => normed + bias.clone().unsqueeze(),
            None => normed,
        }
    }
}

impl<B: Ops> DecoderLayer<B> {
    /// # Shapes
    /// - hidden: `[batch · seq, d_model]`
    /// - cells: those that are wanted, of all; `None` for all
    /// - output: `[batch · seq or cells, d_model]`
    pub(crate) fn forward(
        &self,
        layer: usize,
        hidden: Tensor<B, 2>,
        cells: Option<Tensor<B, 1, Int>>,
        pass: &Pass<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let wanted = |states: Tensor<B, 2>| match &cells {
            Some(cells) => states.select(0, cells.clone()),
            None => states,
        };
        let normed = self.input_layernorm.forward(hidden.clone());
        let attended = wanted(self.self_attn.attend(layer, normed, pass, cache));
        let hidden = self.self_attn.o_proj.forward(attended) + wanted(hidden);
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        self.mlp.forward(normed) + hidden
    }
}

impl<B: Ops> Attention<B> {
    /// What each position gathers, before the output projection: `[batch · seq, n_heads · head_dim]`.
    fn attend(
        &self,
        layer: usize,
        hidden: Tensor<B, 2>,
        pass: &Pass<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let heads = |states: Tensor<B, 2>| {
            let heads = states.dims()[1] / self.head_dim;
            states
                .reshape([pass.batch, pass.seq, heads, self.head_dim])
                .swap_dims(1, 2) // [batch, heads, seq, head_dim]
        };
        let rotate = |states| B::rotary(states, pass.cos.clone(), pass.sin.clone());
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [query, key, value] =
            B::frozen_linears(hidden, projections.map(FrozenLinear::tensors)).map(heads);
        let [query, key] = [query, key].map(rotate);
        let attended = match &pass.sight {
            Sight::Cache(mask) => {
                let [key, value] = cache.append(layer, key, value);
                B::grouped_attention(query, key, value, mask)
            }
            Sight::Prompt(shared) => B::shared_prompt_attention(query, key, value, shared),
        };
        attended
            .swap_dims(1, 2) // [batch, seq, n_heads, head_dim]
            .reshape([pass.batch * pass.seq, self.o_proj.weight.dims()[1]])
    }
}

impl<B: Ops> Mlp<B> {
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let Self {
            gate_proj,
            up_proj,
            down_proj,
        } = self;
        let layers = [gate_proj, up_proj, down_proj].map(FrozenLinear::tensors);
        match layers {
            [(gate, None), (up, None), (down, None)] => B::gated_mlp(hidden, [gate, up], down),
            // Biases may be trained.
            [gate, up, (down, bias)] => {
                let [gate, up] = B::frozen_linears(hidden, [gate, up]);
                B::frozen_linear(B::swiglu(gate, up), down, bias)
            }
        }
    }
}
