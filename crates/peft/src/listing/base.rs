//! The listing of the base.

use burn_peft_decoder::{DecoderConfig, LayerModule, QK_NORMS};

use super::{ModuleListing, linear_without_parameters};

impl From<&DecoderConfig> for ModuleListing {
    /// The modules of transformers' class, such as `Qwen2ForCausalLM`. A tied head has no parameters of its own.
    fn from(config: &DecoderConfig) -> Self {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let class = config.family.class();
        let layers = vec![decoder_layer(config); config.num_hidden_layers];
        let model = Self::new(format!("{class}Model"))
            .child("embed_tokens", Self::embedding([vocab, hidden]))
            .child("layers", Self::sequence("ModuleList", layers))
            .child("norm", norm(config, hidden))
            .child("rotary_emb", Self::new(format!("{class}RotaryEmbedding")));
        let head = match config.tie_word_embeddings {
            true => {
                linear_without_parameters([hidden, vocab], false).note("the weight of embed_tokens")
            }
            false => Self::linear([hidden, vocab], false),
        };
        Self::new(config.family.architecture())
            .child("model", model)
            .child("lm_head", head)
    }
}

fn decoder_layer(config: &DecoderConfig) -> ModuleListing {
    let class = config.family.class();
    let mut layer = ModuleListing::new(format!("{class}DecoderLayer"));
    let mut self_attn = ModuleListing::new(format!("{class}Attention"));
    let mut mlp = ModuleListing::new(format!("{class}MLP"));
    let mut norms = Vec::new();
    for module in LayerModule::ALL {
        let (name, shape) = (module.name(), module.weight_shape(config));
        let linear = || ModuleListing::linear([shape[1], shape[0]], module.has_bias(config));
        match module.path().split_once('.') {
            Some(("self_attn", _)) => self_attn = self_attn.child(name, linear()),
            Some(_) => mlp = mlp.child(name, linear()),
            None => norms.push((name, norm(config, shape[0]))),
        }
    }
    if config.family.has_qk_norm() {
        for name in QK_NORMS {
            self_attn = self_attn.child(name, norm(config, config.head_dim));
        }
    }
    layer = layer.child("self_attn", self_attn).child(
        "mlp",
        mlp.child("act_fn", ModuleListing::new("SiLUActivation")),
    );
    norms
        .into_iter()
        .fold(layer, |layer, (name, norm)| layer.child(name, norm))
}

fn norm(config: &DecoderConfig, width: usize) -> ModuleListing {
    let eps = python_float(config.rms_norm_eps);
    ModuleListing::new(format!("{}RMSNorm", config.family.class()))
        .arguments(format!("({width},), eps={eps}"))
        .parameter("weight", [width])
}

/// A small number as Python prints it: `1e-06`, and `0.0001` from there on.
fn python_float(value: f64) -> String {
    if value >= 1e-4 {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}
