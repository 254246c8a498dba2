//! Against what PyTorch prints, and against the counts of the methods.

use burn_peft_decoder::DecoderConfig;

use super::*;
use crate::{
    BitFitConfig, EncoderReparameterizationType, LayerRange, MethodConfig, PTuningConfig,
    PTuningV2Config, PrefixHeads, PrefixTuningConfig, PromptTuningConfig, parameter_line,
};

/// Qwen2.5-1.5B.
const CONFIG: &str = r#"{"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
    "rope_theta": 1000000.0, "tie_word_embeddings": true, "vocab_size": 151936}"#;

fn base() -> DecoderConfig {
    DecoderConfig::parse(CONFIG, "config.json").unwrap()
}

const TEN: Option<usize> = Some(10);

fn p_tuning(kind: EncoderReparameterizationType) -> PTuningConfig {
    PTuningConfig {
        num_virtual_tokens: TEN,
        encoder_reparameterization_type: kind,
        encoder_hidden_size: Some(1024),
        ..PTuningConfig::default()
    }
}

fn prefix_tuning() -> PrefixTuningConfig {
    PrefixTuningConfig {
        num_virtual_tokens: TEN,
        ..PrefixTuningConfig::default()
    }
}

fn p_tuning_v2() -> PTuningV2Config {
    PTuningV2Config {
        num_virtual_tokens: TEN,
        ..PTuningV2Config::default()
    }
}

/// The listing without what stands behind `#`: what PyTorch prints.
fn without_shapes(listing: &ModuleListing) -> String {
    let listing = listing.to_string();
    let lines = listing.lines().map(|line| match line.split_once("#") {
        Some((module, _)) => module.trim_end(),
        None => line,
    });
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_base_is_listed_as_transformers_prints_it() {
    // `print` of transformers 5.23's Qwen2ForCausalLM in this shape.
    let expected = "\
Qwen2ForCausalLM(
  (model): Qwen2Model(
    (embed_tokens): Embedding(151936, 1536)
    (layers): ModuleList(
      (0-27): 28 x Qwen2DecoderLayer(
        (self_attn): Qwen2Attention(
          (q_proj): Linear(in_features=1536, out_features=1536, bias=True)
          (k_proj): Linear(in_features=1536, out_features=256, bias=True)
          (v_proj): Linear(in_features=1536, out_features=256, bias=True)
          (o_proj): Linear(in_features=1536, out_features=1536, bias=False)
        )
        (mlp): Qwen2MLP(
          (gate_proj): Linear(in_features=1536, out_features=8960, bias=False)
          (up_proj): Linear(in_features=1536, out_features=8960, bias=False)
          (down_proj): Linear(in_features=8960, out_features=1536, bias=False)
          (act_fn): SiLUActivation()
        )
        (input_layernorm): Qwen2RMSNorm((1536,), eps=1e-06)
        (post_attention_layernorm): Qwen2RMSNorm((1536,), eps=1e-06)
      )
    )
    (norm): Qwen2RMSNorm((1536,), eps=1e-06)
    (rotary_emb): Qwen2RotaryEmbedding()
  )
  (lm_head): Linear(in_features=1536, out_features=151936, bias=False)
)";
    assert_eq!(without_shapes(&ModuleListing::from(&base())), expected);
}

#[test]
fn the_bases_shapes_are_those_of_a_checkpoint() {
    for tied in [true, false] {
        let mut config = base();
        config.tie_word_embeddings = tied;
        // Other widths of heads than of hidden states, so that a mistaken one shows.
        config.head_dim = 96;
        let listing = ModuleListing::from(&config);
        assert_eq!(
            listing.num_parameters(),
            config.num_parameters(),
            "{listing}"
        );
    }
}

#[test]
fn a_projected_prefix_has_an_embedding_two_linears_and_a_tanh() {
    let expected = "\
PrefixEncoder(
  (embedding): Embedding(10, 256)  # weight [10, 256]
  (transform): Sequential(
    (0): Linear(in_features=256, out_features=256, bias=True)  # weight [256, 256], bias [256]
    (1): Tanh()
    (2): Linear(in_features=256, out_features=14336, bias=True)  # weight [14336, 256], bias [14336]
  )
)
";
    let method = MethodConfig::PrefixTuning(prefix_tuning());
    assert_eq!(method.modules(&base()).to_string(), expected);
}

#[test]
fn encoders_are_listed_as_peft_prints_them() {
    // `print` of PEFT 0.21.2's `prompt_encoder["default"]` in this shape.
    let cases = [
        (
            MethodConfig::PromptTuning(PromptTuningConfig {
                num_virtual_tokens: TEN,
                ..PromptTuningConfig::default()
            }),
            "\
PromptEmbedding(
  (embedding): Embedding(10, 1536)
)",
        ),
        (
            MethodConfig::PTuning(p_tuning(EncoderReparameterizationType::Mlp)),
            "\
PromptEncoder(
  (embedding): Embedding(10, 1536)
  (mlp_head): Sequential(
    (0): Linear(in_features=1536, out_features=1024, bias=True)
    (1): ReLU()
    (2): Linear(in_features=1024, out_features=1024, bias=True)
    (3): ReLU()
    (4): Linear(in_features=1024, out_features=1536, bias=True)
  )
)",
        ),
        (
            MethodConfig::PTuning(p_tuning(EncoderReparameterizationType::Lstm)),
            "\
PromptEncoder(
  (embedding): Embedding(10, 1536)
  (lstm_head): LSTM(1536, 1024, num_layers=2, batch_first=True, bidirectional=True)
  (mlp_head): Sequential(
    (0): Linear(in_features=2048, out_features=2048, bias=True)
    (1): ReLU()
    (2): Linear(in_features=2048, out_features=1536, bias=True)
  )
)",
        ),
        (
            MethodConfig::PTuningV2(p_tuning_v2()),
            "\
PrefixEncoder(
  (embedding): Embedding(10, 14336)
)",
        ),
    ];
    for (method, expected) in cases {
        assert_eq!(without_shapes(&method.modules(&base())), expected);
    }
}

#[test]
fn an_lstm_names_the_shapes_of_a_layer_and_direction_on_a_line() {
    let method = MethodConfig::PTuning(p_tuning(EncoderReparameterizationType::Lstm));
    let listing = method.modules(&base()).to_string();
    let last = "    # weight_ih_l1_reverse [4096, 2048], weight_hh_l1_reverse [4096, 1024], \
                bias_ih_l1_reverse [4096], bias_hh_l1_reverse [4096]";
    let shapes: Vec<_> = listing
        .lines()
        .filter(|line| line.starts_with("    # "))
        .collect();
    assert_eq!((shapes.len(), shapes[3]), (4, last));
}

#[test]
fn bitfit_lists_the_biases_of_its_layers() {
    let expected = "\
BitFit(
  (layers): ModuleList(
    (4-7): 4 x BiasDeltas(
      (k_proj): Bias(256)  # bias [256]
      (down_proj): Bias(1536)  # bias [1536]
    )
  )
)
";
    let method = MethodConfig::BitFit(BitFitConfig {
        target_modules: Some(vec![LayerModule::DownProj, LayerModule::KProj]),
        layers: Some(LayerRange::new(4, 7)),
        ..BitFitConfig::default()
    });
    assert_eq!(method.modules(&base()).to_string(), expected);
}

#[test]
fn every_methods_modules_hold_all_that_it_trains() {
    use EncoderReparameterizationType::{Lstm, Mlp};
    // Counted by hand: tables, (d_in + 1) · d_out a linear layer, 4 · units · (d_in + units + 2) a direction of an
    // LSTM's layer.
    let methods = [
        (
            MethodConfig::PromptTuning(PromptTuningConfig::default()),
            30_720,
        ),
        (MethodConfig::PTuning(p_tuning(Mlp)), 4_213_248),
        (MethodConfig::PTuning(p_tuning(Lstm)), 53_529_088),
        (
            MethodConfig::PTuning(PTuningConfig {
                encoder_num_layers: 3,
                lstm_half_width: true,
                ..p_tuning(Lstm)
            }),
            23_635_456,
        ),
        (
            MethodConfig::PrefixTuning(PrefixTuningConfig {
                encoder_hidden_size: Some(512),
                prefix_heads: PrefixHeads::Attention,
                ..prefix_tuning()
            }),
            44_928_512,
        ),
        (
            MethodConfig::PrefixTuning(PrefixTuningConfig {
                prefix_projection: false,
                ..prefix_tuning()
            }),
            143_360,
        ),
        (
            MethodConfig::PTuningV2(PTuningV2Config {
                layers: Some(LayerRange::new(14, 27)),
                ..p_tuning_v2()
            }),
            71_680,
        ),
        (MethodConfig::BitFit(BitFitConfig::default()), 57_344),
        (
            MethodConfig::BitFit(BitFitConfig {
                target_modules: Some(LayerModule::ALL.to_vec()),
                ..BitFitConfig::default()
            }),
            731_136,
        ),
    ];
    let base = base();
    for (method, expected) in methods {
        let listing = method.modules(&base);
        assert_eq!(listing.num_parameters(), expected, "{listing}");
    }
}

#[test]
fn the_parameter_lines_of_the_1_5b_shape_are_pefts() {
    use EncoderReparameterizationType::{Lstm, Mlp};
    let prompt_tuning = MethodConfig::PromptTuning(PromptTuningConfig {
        num_virtual_tokens: TEN,
        ..PromptTuningConfig::default()
    });
    let cases = [
        (
            prompt_tuning,
            "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010",
        ),
        (
            MethodConfig::PTuning(p_tuning(Mlp)),
            "trainable params: 4,213,248 || all params: 1,547,927,552 || trainable%: 0.2722",
        ),
        (
            MethodConfig::PTuning(p_tuning(Lstm)),
            "trainable params: 53,529,088 || all params: 1,597,243,392 || trainable%: 3.3513",
        ),
        (
            MethodConfig::PrefixTuning(prefix_tuning()),
            "trainable params: 3,752,704 || all params: 1,547,467,008 || trainable%: 0.2425",
        ),
        (
            MethodConfig::PTuningV2(p_tuning_v2()),
            "trainable params: 143,360 || all params: 1,543,857,664 || trainable%: 0.0093",
        ),
        // PEFT's BEFT on q_proj, k_proj and v_proj.
        (
            MethodConfig::BitFit(BitFitConfig::default()),
            "trainable params: 57,344 || all params: 1,543,771,648 || trainable%: 0.0037",
        ),
    ];
    let base = base();
    for (method, expected) in cases {
        let trainable = method.num_trainable(&base);
        let line = parameter_line(trainable, base.num_parameters() + trainable);
        assert_eq!(line, expected);
    }
}
