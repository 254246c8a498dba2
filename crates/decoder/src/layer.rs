//! One decoder layer and its parts. Field names are the checkpoint's.

use burn::{
    module::Module,
    tensor::{Int, Tensor, backend::Backend},
};
use burn_peft_ops::{FrozenWeight, LinearLayer, Ops, ScoreMask, SharedPrompt};

use crate::{
    DecoderConfig, Error, KvCache, LayerModule,
    shapes::{QK_NORMS, qk_norm_path},
    weights::TensorSource,
};

/// A linear layer whose weight is a constant.
#[derive(Module, Debug)]
pub(crate) struct FrozenLinear<B: Backend> {
    /// `[d_out, d_in]`.
    weight: FrozenWeight<B>,
    /// `[d_out]`.
    bias: Option<Tensor<B, 1>>,
}

/// RMSNorm whose weight is a constant.
#[derive(Module, Debug)]
pub(crate) struct FrozenRmsNorm<B: Backend> {
    /// `[d_model]`.
    weight: Tensor<B, 1>,
    /// `[d_model]`; no family has one, an adapter may add it.
    bias: Option<Tensor<B, 1>>,
    epsilon: f64,
}

/// Grouped-query attention with rotary positions.
#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: FrozenLinear<B>,
    k_proj: FrozenLinear<B>,
    v_proj: FrozenLinear<B>,
    o_proj: FrozenLinear<B>,
    /// Over each head's queries, `[head_dim]`, in families that have it; see [`Family::has_qk_norm`](crate::Family::has_qk_norm).
    q_norm: Option<FrozenRmsNorm<B>>,
    /// Over each head's keys, `[head_dim]`.
    k_norm: Option<FrozenRmsNorm<B>>,
    head_dim: usize,
}

/// The gated feed-forward layer.
#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    gate_proj: FrozenLinear<B>,
    up_proj: FrozenLinear<B>,
    down_proj: FrozenLinear<B>,
}

/// Attention and feed-forward, each behind a norm and added to the residual stream.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer<B: Backend> {
    input_layernorm: FrozenRmsNorm<B>,
    self_attn: Attention<B>,
    post_attention_layernorm: FrozenRmsNorm<B>,
    mlp: Mlp<B>,
}

/// What all layers of one forward pass share.
#[derive(Clone)]
pub(crate) struct Pass<B: Backend> {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) cos: Tensor<B, 4>,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) sin: Tensor<B, 4>,
    pub(crate) attention: AttentionMode<B>,
}

/// What the cells of a pass attend to.
#[derive(Clone)]
pub(crate) enum AttentionMode<B: Backend> {
    /// Everything that the cache holds, the cells' own keys and values included.
    Cached(ScoreMask<B>),
    /// Their own row, and a prompt that all rows share, whose tokens are the last cells.
    SharedPrompt(SharedPrompt<B>),
}

impl<B: Ops> DecoderLayer<B> {
    pub(crate) fn assemble(
        config: &DecoderConfig,
        layer: usize,
        source: &mut impl TensorSource<B>,
    ) -> Result<Self, Error> {
        let mut norm = |path: String| {
            let weight = source.tensor(&format!("{path}.weight"))?;
            Ok::<_, Error>(FrozenRmsNorm::new(weight, config.rms_norm_eps))
        };
        let input_layernorm = norm(LayerModule::InputLayernorm.module_path(layer))?;
        let post_attention_layernorm =
            norm(LayerModule::PostAttentionLayernorm.module_path(layer))?;
        let [q_norm, k_norm] = QK_NORMS.map(|name| {
            let path = qk_norm_path(layer, name);
            config.family.has_qk_norm().then(|| norm(path)).transpose()
        });
        let (q_norm, k_norm) = (q_norm?, k_norm?);
        let mut linear = |module: LayerModule| {
            let path = module.module_path(layer);
            let weight = source.weight(&format!("{path}.weight"))?;
            let bias = match module.has_bias(config) {
                true => Some(source.tensor(&format!("{path}.bias"))?),
                false => None,
            };
            Ok::<_, Error>(FrozenLinear { weight, bias })
        };
        Ok(Self {
            self_attn: Attention {
                q_proj: linear(LayerModule::QProj)?,
                k_proj: linear(LayerModule::KProj)?,
                v_proj: linear(LayerModule::VProj)?,
                o_proj: linear(LayerModule::OProj)?,
                q_norm,
                k_norm,
                head_dim: config.head_dim,
            },
            mlp: Mlp {
                gate_proj: linear(LayerModule::GateProj)?,
                up_proj: linear(LayerModule::UpProj)?,
                down_proj: linear(LayerModule::DownProj)?,
            },
            input_layernorm,
            post_attention_layernorm,
        })
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

impl<B: Backend> FrozenRmsNorm<B> {
    pub(crate) fn device(&self) -> B::Device {
        self.weight.device()
    }
}

impl<B: Backend> FrozenLinear<B> {
    /// Weight and bias.
    fn parts(&self) -> LinearLayer<B> {
        (self.weight.clone(), self.bias.clone())
    }
}

impl<B: Ops> FrozenLinear<B> {
    fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        B::frozen_linear(input, &self.weight, self.bias.clone())
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
    /// Runs the layer.
    ///
    /// # Shapes
    /// - hidden: `[batch · seq, d_model]`
    /// - cells: those whose output is asked for; `None` for all
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
        let projections = [&self.q_proj, &self.k_proj, &self.v_proj].map(FrozenLinear::parts);
        let projected = B::frozen_linears(hidden, &projections);
        let [query, key, value]: [_; 3] = projected.try_into().expect("one output a layer");
        let [query, key] = [(query, &self.q_norm), (key, &self.k_norm)]
            .map(|(states, norm)| self.normalise_heads(states, norm))
            .map(heads)
            .map(rotate);
        let value = heads(value);
        let attended = match &pass.attention {
            AttentionMode::Cached(mask) => {
                let [key, value] = cache.append(layer, key, value);
                B::grouped_attention(query, key, value, mask)
            }
            AttentionMode::SharedPrompt(shared) => {
                B::shared_prompt_attention(query, key, value, shared)
            }
        };
        attended
            .swap_dims(1, 2) // [batch, seq, n_heads, head_dim]
            .reshape([pass.batch * pass.seq, self.o_proj.weight.dims()[1]])
    }

    /// Each head's states over their own root mean square, where the family has that:
    /// `[tokens, heads · head_dim]`.
    fn normalise_heads(
        &self,
        states: Tensor<B, 2>,
        norm: &Option<FrozenRmsNorm<B>>,
    ) -> Tensor<B, 2> {
        let Some(norm) = norm else {
            return states;
        };
        let [tokens, width] = states.dims();
        let heads = states.reshape([tokens * width / self.head_dim, self.head_dim]);
        norm.forward(heads).reshape([tokens, width])
    }
}

impl<B: Ops> Mlp<B> {
    fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let layers = [&self.gate_proj, &self.up_proj, &self.down_proj].map(FrozenLinear::parts);
        B::gated_mlp(hidden, &layers)
    }
}
