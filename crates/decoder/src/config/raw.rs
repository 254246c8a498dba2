//! The file as it stands, before anything in it is believed.
//!
//! transformers 5 is followed in what it takes; what it refuses may be taken all the same.

use std::path::PathBuf;

use burn::tensor::DType;
use serde_json::{Map, Value};

use super::{DecoderConfig, RopeScaling};
use crate::{Error, Family, keys::Keys};

/// transformers' default `rope_theta`.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;
/// transformers' default `rms_norm_eps`.
const DEFAULT_RMS_NORM_EPS: f64 = 1e-6;
/// transformers' default `sliding_window`.
const DEFAULT_SLIDING_WINDOW: usize = 4096;
/// transformers' default `max_window_layers`.
const DEFAULT_MAX_WINDOW_LAYERS: usize = 28;
/// More layers than any model has. Beyond it a number is a mistake, and would only fill the memory.
const MOST_LAYERS: usize = 4096;
/// A larger size than any model has.
const MOST_UNITS: usize = 1 << 31;
/// More parameters than any model has.
const MOST_PARAMETERS: f64 = (1_u64 << 44) as f64;

pub(super) fn parse(text: &str, path: PathBuf) -> Result<DecoderConfig, Error> {
    let map: Map<String, Value> = Error::json(&path, text, "a model's configuration")?;
    check(Keys(&map)).map_err(|refusal| match refusal {
        Refusal::Value(reason) => Error::Json { path, reason },
        Refusal::Unsupported(what) => Error::Unsupported { path, what },
    })
}

/// Why a configuration is not taken.
enum Refusal {
    /// A value that is missing or makes no sense.
    Value(String),
    /// A value that asks for what is not computed.
    Unsupported(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Value(reason)
    }
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unsupported(what.into()))
}

/// The configuration, or why it is not taken.
fn check(keys: Keys<'_>) -> Result<DecoderConfig, Refusal> {
    let family = family(keys)?;
    refuse_what_is_not_computed(keys)?;
    let hidden_size = size(keys, "hidden_size")?;
    let layers = keys.size("num_hidden_layers")?;
    if layers > MOST_LAYERS {
        return Err(
            format!("`num_hidden_layers` is {layers}; expected at most {MOST_LAYERS}").into(),
        );
    }
    let positions = match keys.get("max_position_embeddings") {
        Some(_) => keys.size("max_position_embeddings")?,
        None => family.default_positions(),
    };
    check_windows(keys, family, layers, positions)?;
    let n_heads = size(keys, "num_attention_heads")?;
    // Older files leave the key/value heads out: every query head has its own.
    let n_kv_heads = keys.whole("num_key_value_heads")?.unwrap_or(n_heads);
    if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
        return Err(
            format!("{n_heads} attention heads cannot share {n_kv_heads} key/value heads").into(),
        );
    }
    let head_dim = keys.whole("head_dim")?.or(family.default_head_dim());
    if head_dim.is_none() && n_heads > hidden_size {
        return Err(format!(
            "`num_attention_heads` is {n_heads}; expected at most `hidden_size`, {hidden_size}"
        )
        .into());
    }
    let head_dim = head_dim.unwrap_or(hidden_size / n_heads);
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(format!("`head_dim` is {head_dim}; rotary embedding needs an even one").into());
    }
    let rms_norm_eps = keys.number("rms_norm_eps")?;
    let rms_norm_eps = rms_norm_eps.unwrap_or(DEFAULT_RMS_NORM_EPS);
    positive("rms_norm_eps", rms_norm_eps)?;
    let (rope_theta, rope_scaling) = rope(keys, family, positions)?;
    let mut asked = Vec::new();
    for key in family.bias_keys() {
        if keys.flag(key)? {
            asked.push(key);
        }
    }
    let config = DecoderConfig {
        family,
        vocab_size: size(keys, "vocab_size")?,
        hidden_size,
        intermediate_size: size(keys, "intermediate_size")?,
        num_hidden_layers: layers,
        num_attention_heads: n_heads,
        num_key_value_heads: n_kv_heads,
        head_dim,
        rms_norm_eps,
        rope_theta,
        rope_scaling,
        max_position_embeddings: positions,
        tie_word_embeddings: keys.flag("tie_word_embeddings")?,
        biases: family.biases(&asked),
        dtype: stored_dtype(keys),
    };
    check_sizes(&config)?;
    Ok(config)
}

/// A size that some model may have.
fn size(keys: Keys<'_>, key: &str) -> Result<usize, Refusal> {
    match keys.size(key)? {
        size if size > MOST_UNITS => {
            Err(format!("`{key}` is {size}; expected at most {MOST_UNITS}").into())
        }
        size => Ok(size),
    }
}

fn positive(key: &str, value: f64) -> Result<(), Refusal> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("`{key}` is {value}; expected above 0").into()),
    }
}

/// Sizes that no model has would overflow the sizes of tensors.
fn check_sizes(config: &DecoderConfig) -> Result<(), Refusal> {
    // In floating point nothing overflows.
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads", config.num_attention_heads),
        ("head_dim", config.head_dim),
    ];
    let [vocab, hidden, inner, heads, head_dim] = sizes.map(|(_, size)| size as f64);
    let kv_heads = config.num_key_value_heads as f64;
    let attention = 2.0 * (heads + kv_heads) * head_dim;
    let layer = hidden * (attention + 3.0 * inner + 4.0);
    let parameters = 2.0 * vocab * hidden + config.num_hidden_layers as f64 * layer;
    if parameters <= MOST_PARAMETERS {
        return Ok(());
    }
    let largest = sizes.iter().max_by_key(|(_, size)| *size);
    let (key, size) = largest.expect("there are sizes");
    Err(format!("`{key}` is {size}; the model would have {parameters:.0e} parameters").into())
}

fn refuse_what_is_not_computed(keys: Keys<'_>) -> Result<(), Refusal> {
    let hidden_act = keys.text("hidden_act")?.unwrap_or("silu");
    // Two names of one function.
    if !["silu", "swish"].contains(&hidden_act) {
        return unsupported(format!("hidden_act `{hidden_act}`; supported: `silu`"));
    }
    match keys.get("quantization_config") {
        Some(_) => unsupported("quantised weights (`quantization_config`)"),
        None => Ok(()),
    }
}

/// Refuses layers that see a part of the row only.
fn check_windows(
    keys: Keys<'_>,
    family: Family,
    layers: usize,
    positions: usize,
) -> Result<(), Refusal> {
    if let Some(kinds) = keys.get("layer_types") {
        let kinds = kinds.as_array();
        let kinds = kinds.ok_or_else(|| "`layer_types` is no list".to_owned())?;
        if let Some(kind) = kinds.iter().find(|kind| *kind != "full_attention") {
            return unsupported(format!("layers of type {kind} (`layer_types`)"));
        }
        return match kinds.len() == layers {
            true => Ok(()),
            false => Err(format!("{} layer_types for {layers} layers", kinds.len()).into()),
        };
    }
    if !family.has_sliding_windows() || !keys.flag("use_sliding_window")? {
        return Ok(());
    }
    let window = match keys.0.contains_key("sliding_window") {
        true => keys.whole("sliding_window")?,
        false => Some(DEFAULT_SLIDING_WINDOW),
    };
    let first = keys.whole("max_window_layers")?;
    let first = first.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    // A window as long as the longest row hides nothing.
    match window.is_some_and(|window| window < positions) && first < layers {
        true => unsupported("sliding-window attention (`use_sliding_window: true`)"),
        false => Ok(()),
    }
}

/// The family that `model_type` names. `architectures` is not looked at, as in transformers: what kind of model it
/// is, the names of the weights say.
fn family(keys: Keys<'_>) -> Result<Family, Refusal> {
    let supported = Family::ALL.map(|family| format!("`{}`", family.model_type()));
    let supported = supported.join(", ");
    let Some(model_type) = keys.text("model_type")? else {
        return Err(format!("it has no `model_type`; supported: {supported}").into());
    };
    match Family::of_model_type(model_type) {
        Some(family) => Ok(family),
        None => unsupported(format!("model type `{model_type}`; supported: {supported}")),
    }
}

/// The type that the file says; other programs' names of types say nothing, for each tensor has its own.
fn stored_dtype(keys: Keys<'_>) -> Option<DType> {
    let name = keys.get("dtype").or(keys.get("torch_dtype"))?.as_str()?;
    match name.trim_start_matches("torch.") {
        "float32" => Some(DType::F32),
        "bfloat16" => Some(DType::BF16),
        "float16" => Some(DType::F16),
        _ => None,
    }
}

/// `rope_theta`, and the scaling. transformers 5 has both in `rope_parameters`, transformers 4 beside and in
/// `rope_scaling`, which goes before the newer key where it is set.
fn rope(
    keys: Keys<'_>,
    family: Family,
    positions: usize,
) -> Result<(f64, Option<RopeScaling>), Refusal> {
    let parameters = match keys.object("rope_scaling")? {
        None => keys.object("rope_parameters")?,
        older => older,
    };
    let of = |key| match parameters.map_or(Ok(None), |rope| rope.number(key))? {
        None => keys.number(key),
        found => Ok(found),
    };
    let theta = of("rope_theta")?.unwrap_or(DEFAULT_ROPE_THETA);
    positive("rope_theta", theta)?;
    let factor = of("partial_rotary_factor")?;
    let Some(parameters) = parameters else {
        refuse_partial(factor, family == Family::Llama)?;
        return Ok((theta, None));
    };
    // transformers 5 nests the parameters for models whose layers differ.
    let nested = ["full_attention", "sliding_attention"];
    if nested.iter().any(|kind| parameters.get(kind).is_some()) {
        return unsupported("rope parameters of each type of layer");
    }
    // Files may have both: transformers reads `rope_type`.
    let kind = match parameters.text("rope_type")? {
        None => parameters.text("type")?,
        newer => newer,
    };
    let scaling = match kind {
        None | Some("default") => None,
        // A factor of 1 changes nothing within the model's positions.
        Some("linear" | "dynamic") if parameters.number("factor")? == Some(1.0) => None,
        Some("llama3") => Some(llama3(parameters, keys, positions)?),
        Some(kind) => {
            return unsupported(format!(
                "rope scaling of kind `{kind}`; supported: `default`, `llama3`"
            ));
        }
    };
    let is_scaled = !matches!(kind, None | Some("default"));
    refuse_partial(factor, is_scaled || family == Family::Llama)?;
    Ok((theta, scaling))
}

/// Refuses a rotation of a part of each head, where transformers looks at the key: in Llama, and with scaling.
fn refuse_partial(factor: Option<f64>, is_looked_at: bool) -> Result<(), Refusal> {
    match factor.filter(|factor| *factor != 1.0 && is_looked_at) {
        Some(factor) => unsupported(format!("partial_rotary_factor {factor}; supported: 1")),
        None => Ok(()),
    }
}

/// The scaling of Llama 3. The context's length may stand outside, and where it stands nowhere it is the model's.
fn llama3(parameters: Keys<'_>, keys: Keys<'_>, positions: usize) -> Result<RopeScaling, Refusal> {
    let given = |key| {
        let value = parameters.number(key)?;
        let value =
            value.ok_or_else(|| format!("rope scaling of kind `llama3` without `{key}`"))?;
        positive(key, value)?;
        Ok::<_, Refusal>(value)
    };
    let key = "original_max_position_embeddings";
    let original = match keys.whole(key)? {
        None => parameters.whole(key)?,
        outside => outside,
    };
    let scaling = RopeScaling {
        factor: given("factor")?,
        low_freq_factor: given("low_freq_factor")?,
        high_freq_factor: given("high_freq_factor")?,
        original_max_position_embeddings: original.unwrap_or(positions),
    };
    match scaling.high_freq_factor > scaling.low_freq_factor {
        true => Ok(scaling),
        false => Err(Refusal::Value(
            "high_freq_factor is not above low_freq_factor".into(),
        )),
    }
}
