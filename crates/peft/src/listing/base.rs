//! The listing of the base.

use burn_peft_decoder::DecoderConfig;

use super::{ModuleListing, linear_without_parameters};

impl From<&DecoderConfig> for ModuleListing {
    /// The modules of transformers' `Qwen2ForCausalLM`. A tied head has no parameters of its own.
    fn from(config: &DecoderConfig) -> Self {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let layer = decoder_layer(config);
        let layers = vec![layer; config.num_hidden_layers];
        let model = Self::new("Qwen2Model")
            .child("embed_tokens", Self::embedding([vocab, hidden]))
            .child("layers", Self::sequence("ModuleList", layers))
            .child("norm", norm(config))
            .child("rotary_emb", Self::new("Qwen2RotaryEmbedding"));
        let head = match config.tie_word_embeddings {
            true => {
                linear_without_parameters([hidden, vocab], false).note("the weight of embed_tokens")
            }
            false => Self::linear([hidden, vocab], false),
        };
        Self::new("Qwen2ForCausalLM")
            .child("model", model)
            .child("lm_head", head)
    }
}

fn decoder_layer(config: &DecoderConfig) -> ModuleListing {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (query, kv) = (config.query_width(), config.kv_width());
    let linear = ModuleListing::linear;
    let self_attn = ModuleListing::new("Qwen2Attention")
        .child("q_proj", linear([hidden, query], true))
        .child("k_proj", linear([hidden, kv], true))
        .child("v_proj", linear([hidden, kv], true))
        .child("o_proj", linear([query, hidden], false));
    let mlp = ModuleListing::new("Qwen2MLP")
        .child("gate_proj", linear([hidden, inner], false))
        .child("up_proj", linear([hidden, inner], false))
        .child("down_proj", linear([inner, hidden], false))
        .child("act_fn", ModuleListing::new("SiLUActivation"));
    ModuleListing::new("Qwen2DecoderLayer")
        .child("self_attn", self_attn)
        .child("mlp", mlp)
        .child("input_layernorm", norm(config))
        .child("post_attention_layernorm", norm(config))
}

fn norm(config: &DecoderConfig) -> ModuleListing {
    let hidden = config.hidden_size;
    let eps = python_float(config.rms_norm_eps);
    ModuleListing::new("Qwen2RMSNorm")
        .arguments(format!("({hidden},), eps={eps}"))
        .parameter("weight", [hidden])
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
