//! One decoder layer and its parts. Field names are the checkpoint's.

use burn::{
    module::Module,
    tensor::{Int, Tensor, backend::Backend},
};
use burn_peft_ops::{FrozenWeight, LinearLayer, Ops, ScoreMask, SharedPrompt};

use crate::{
    DecoderConfig, Error, KvCache, LayerModule,
    shapes::{QK_NORMS, qk_norm_path},
    slots::{KvSlots, SlotPass},
    token_biases::TokenBiases,
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
    pub(crate) cells: Cells<B>,
    pub(crate) attention: AttentionMode<B>,
}

/// The cells of a pass, and their positions.
#[derive(Clone)]
pub(crate) struct Cells<B: Backend> {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) cos: Tensor<B, 4>,
    /// `[batch or 1, 1, seq, head_dim / 2]`.
    pub(crate) sin: Tensor<B, 4>,
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

impl<B: Ops> FrozenRmsNorm<B> {
    pub(crate) fn forward(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.with_bias_of_each(hidden, None)
    }

    /// With the bias of each token, `[tokens, d_model]`, in place of its own.
    fn with_bias_of_each(
        &self,
        hidden: Tensor<B, 2>,
        biases: Option<Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let normed = B::rms_norm(hidden, self.weight.clone(), self.epsilon);
        match (biases, &self.bias) {
            (Some(biases), _) => normed + biases,
            (None, Some(bias)) => normed + bias.clone().unsqueeze(),
            (None, None) => normed,
        }
    }
}

/// The outputs of several layers of one input, with the bias of each token where `biases` has them.
fn linears<B: Ops, const N: usize>(
    input: Tensor<B, 2>,
    layers: [(&FrozenLinear<B>, LayerModule); N],
    biases: &EachBias<'_, B>,
) -> [Tensor<B, 2>; N] {
    let mut of_each = layers.map(|(_, module)| biases.get(module));
    let parts: Vec<LinearLayer<B>> = layers
        .iter()
        .zip(&of_each)
        .map(|((layer, _), biases)| match biases {
            Some(_) => (layer.weight.clone(), None),
            None => layer.parts(),
        })
        .collect();
    let outputs = B::frozen_linears(input, &parts).into_iter();
    let outputs = outputs
        .zip(&mut of_each)
        .map(|(output, biases)| match biases.take() {
            Some(biases) => output + biases,
            None => output,
        });
    let outputs: Vec<_> = outputs.collect();
    outputs.try_into().expect("one output a layer")
}

/// The biases of each token in one layer, if they differ.
struct EachBias<'a, B: Backend> {
    layer: usize,
    biases: Option<TokenBiases<'a, B>>,
}

impl<B: Backend> EachBias<'_, B> {
    /// `[tokens, d_out]`.
    fn get(&self, module: LayerModule) -> Option<Tensor<B, 2>> {
        self.biases.as_ref()?.get(self.layer, module)
    }

    /// Those of some of the tokens.
    fn at(&self, cells: &Option<Tensor<B, 1, Int>>) -> Self {
        let biases = self.biases.as_ref().map(|biases| match cells {
            Some(cells) => biases.at(cells.clone()),
            None => biases.clone(),
        });
        Self { biases, ..*self }
    }
}

impl<B: Ops> DecoderLayer<B> {
    /// Runs the layer.
    ///
    /// # Shapes
    /// - hidden: `[batch · seq, d_model]`
    /// - wanted: the cells whose output is asked for; `None` for all
    /// - output: `[batch · seq or wanted, d_model]`
    pub(crate) fn forward(
        &self,
        layer: usize,
        hidden: Tensor<B, 2>,
        wanted: Option<Tensor<B, 1, Int>>,
        pass: &Pass<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let biases = EachBias {
            layer,
            biases: None,
        };
        let attend = |query, key, value| match &pass.attention {
            AttentionMode::Cached(mask) => {
                let [key, value] = cache.append(layer, key, value);
                B::grouped_attention(query, key, value, mask)
            }
            AttentionMode::SharedPrompt(shared) => {
                B::shared_prompt_attention(query, key, value, shared)
            }
        };
        self.run(hidden, wanted, &pass.cells, &biases, attend)
    }

    /// Runs the layer for a step of a server: tokens of many rows, in one list.
    ///
    /// # Shapes
    /// - hidden: `[tokens, d_model]`
    /// - wanted: the tokens whose output is asked for; `None` for all
    /// - output: `[tokens or wanted, d_model]`
    pub(crate) fn step(
        &self,
        layer: usize,
        hidden: Tensor<B, 2>,
        wanted: Option<Tensor<B, 1, Int>>,
        (cells, pass): (&Cells<B>, &SlotPass<B>),
        biases: Option<TokenBiases<'_, B>>,
        slots: &mut KvSlots<B>,
    ) -> Tensor<B, 2> {
        let biases = EachBias { layer, biases };
        let attend = |query, key, value| slots.attend(layer, query, [key, value], pass);
        self.run(hidden, wanted, cells, &biases, attend)
    }

    /// Runs the layer. `attend` is given queries, keys and values, `[batch, heads, seq, head_dim]`, and returns what
    /// the queries gather.
    fn run(
        &self,
        hidden: Tensor<B, 2>,
        wanted: Option<Tensor<B, 1, Int>>,
        cells: &Cells<B>,
        biases: &EachBias<'_, B>,
        attend: impl FnOnce(Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>) -> Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        let of_wanted = |states: Tensor<B, 2>| match &wanted {
            Some(cells) => states.select(0, cells.clone()),
            None => states,
        };
        let normed = self
            .input_layernorm
            .with_bias_of_each(hidden.clone(), biases.get(LayerModule::InputLayernorm));
        let attended = of_wanted(self.self_attn.attend(normed, cells, biases, attend));
        let biases = &biases.at(&wanted);
        let o_proj = (&self.self_attn.o_proj, LayerModule::OProj);
        let [output] = linears(attended, [o_proj], biases);
        let hidden = output + of_wanted(hidden);
        let normed = self.post_attention_layernorm.with_bias_of_each(
            hidden.clone(),
            biases.get(LayerModule::PostAttentionLayernorm),
        );
        self.mlp.forward(normed, biases) + hidden
    }
}

impl<B: Ops> Attention<B> {
    /// What each position gathers, before the output projection: `[batch · seq, n_heads · head_dim]`.
    fn attend(
        &self,
        hidden: Tensor<B, 2>,
        cells: &Cells<B>,
        biases: &EachBias<'_, B>,
        attend: impl FnOnce(Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>) -> Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        let heads = |states: Tensor<B, 2>| {
            let heads = states.dims()[1] / self.head_dim;
            states
                .reshape([cells.batch, cells.seq, heads, self.head_dim])
                .swap_dims(1, 2) // [batch, heads, seq, head_dim]
        };
        let rotate = |states| B::rotary(states, cells.cos.clone(), cells.sin.clone());
        let projections = [
            (&self.q_proj, LayerModule::QProj),
            (&self.k_proj, LayerModule::KProj),
            (&self.v_proj, LayerModule::VProj),
        ];
        let [query, key, value] = linears(hidden, projections, biases);
        let [query, key] = [(query, &self.q_norm), (key, &self.k_norm)]
            .map(|(states, norm)| self.normalise_heads(states, norm))
            .map(heads)
            .map(rotate);
        attend(query, key, heads(value))
            .swap_dims(1, 2) // [batch, seq, n_heads, head_dim]
            .reshape([cells.batch * cells.seq, self.o_proj.weight.dims()[1]])
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
    fn forward(&self, hidden: Tensor<B, 2>, biases: &EachBias<'_, B>) -> Tensor<B, 2> {
        let gate_up = [
            (&self.gate_proj, LayerModule::GateProj),
            (&self.up_proj, LayerModule::UpProj),
        ];
        let down = [(&self.down_proj, LayerModule::DownProj)];
        let mut modules = gate_up.iter().chain(&down).map(|(_, module)| *module);
        if modules.any(|module| biases.get(module).is_some()) {
            let [gate, up] = linears(hidden, gate_up, biases);
            let [output] = linears(B::swiglu(gate, up), down, biases);
            return output;
        }
        let layers = [&self.gate_proj, &self.up_proj, &self.down_proj].map(FrozenLinear::parts);
        B::gated_mlp(hidden, &layers)
    }
}
