//! Configurations as they are found in the wild.

use serde_json::{Value, json};

use super::*;

/// Qwen2.5-1.5B's numbers.
fn v4() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
        "hidden_act": "silu", "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "max_position_embeddings": 131072, "max_window_layers": 28, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": false,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 151936,
    })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn parse(config: &Value) -> Result<DecoderConfig, Error> {
    DecoderConfig::parse(&config.to_string(), "config.json")
}

#[test]
fn transformers_4_and_5_say_the_same() {
    let mut v5 = v4();
    let map = v5.as_object_mut().expect("an object");
    map.remove("rope_theta");
    map.remove("torch_dtype");
    map.insert("dtype".into(), json!("bfloat16"));
    map.insert(
        "rope_parameters".into(),
        json!({"rope_theta": 1000000.0, "rope_type": "default"}),
    );
    map.insert("layer_types".into(), json!(vec!["full_attention"; 28]));
    let v4 = parse(&v4()).expect("v4 parses");
    assert_eq!(v4, parse(&v5).expect("v5 parses"));
    assert_eq!(v4.rope_theta, 1e6);
    assert_eq!(v4.head_dim, 128);
}

/// As the model cards give them.
#[test]
fn parameters_of_the_published_sizes() {
    let parameters = DecoderConfig::NAMES.map(|name| {
        DecoderConfig::named(name)
            .expect("a known name")
            .num_parameters()
    });
    assert_eq!(
        parameters,
        [494_032_768, 1_543_714_304, 3_085_938_688, 7_615_616_512]
    );
    assert_eq!(
        parse(&v4()).expect("parses"),
        DecoderConfig::named("qwen2.5-1.5b").expect("a known name")
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (key, value, named) in [
        ("model_type", json!("mistral"), "mistral"),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0}),
            "yarn",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "dynamic"}),
            "dynamic",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 8.0}),
            "low_freq_factor",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 2.0}),
            "linear",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "linear", "factor": 1.0, "partial_rotary_factor": 0.5}),
            "partial_rotary_factor",
        ),
        ("layer_types", json!(["sliding_attention"]), "sliding"),
        (
            "layer_types",
            json!(["full_attention"]),
            "1 layer_types for 28",
        ),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_theta": 1e4}}),
            "each type of layer",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}),
            "high_freq_factor",
        ),
        ("rope_theta", json!(0.0), "`rope_theta` is 0"),
        ("rms_norm_eps", json!(-1.0), "`rms_norm_eps` is -1"),
        (
            "num_hidden_layers",
            json!(1_000_000_000_000_u64),
            "num_hidden_layers",
        ),
        ("hidden_act", json!("gelu"), "gelu"),
        (
            "quantization_config",
            json!({"bits": 4}),
            "quantization_config",
        ),
        ("num_key_value_heads", json!(5), "5 key/value heads"),
    ] {
        let error = parse(&with(v4(), key, value)).expect_err(key).to_string();
        assert!(error.contains(named), "{key}: {error}");
    }
}

#[test]
fn absurd_values_are_refused_in_plain_words() {
    let large = [10_u64.pow(12), 1 << 62, u64::MAX];
    for key in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
    ] {
        let values = large.map(|value| json!(value));
        for value in values.into_iter().chain([json!(0), json!(-1)]) {
            let error = parse(&with(v4(), key, value)).expect_err(key).to_string();
            assert!(error.contains(key) || error.contains("heads"), "{error}");
        }
    }
    let unexpected = json!([0.5, 1e300, "x", [], {}, true]);
    for value in unexpected.as_array().expect("a list") {
        for key in [
            "hidden_size",
            "max_position_embeddings",
            "tie_word_embeddings",
        ] {
            if (key, value) == ("tie_word_embeddings", &json!(true)) {
                continue;
            }
            let error = parse(&with(v4(), key, value.clone()))
                .expect_err(key)
                .to_string();
            let expected = ["expected a whole number", "expected true or false"];
            assert!(expected.iter().any(|part| error.contains(part)), "{error}");
            assert!(error.contains(&format!("`{key}` is ")), "{error}");
        }
    }
}

/// What transformers 5.23 does with each.
#[test]
fn what_transformers_takes_is_taken() {
    let plain = parse(&v4()).expect("parses");
    for (key, value) in [
        ("architectures", json!(null)),
        ("architectures", json!([])),
        ("architectures", json!("x")),
        ("architectures", json!(["Qwen2Model"])),
        ("dtype", json!("torch.bfloat16")),
        ("dtype", json!(null)),
        ("rope_scaling", json!(null)),
        ("rope_scaling", json!({})),
        ("rope_scaling", json!([])),
        (
            "rope_scaling",
            json!({"type": "default", "rope_type": "default"}),
        ),
        ("rope_scaling", json!({"mrope_section": [1, 2]})),
        ("rope_parameters", json!({"rope_theta": 1_000_000})),
        ("hidden_act", json!("swish")),
        ("quantization_config", json!(null)),
        ("partial_rotary_factor", json!(1)),
        // Looked at in Llama only.
        ("partial_rotary_factor", json!(0.5)),
        (
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
        ),
        ("rope_scaling", json!({"type": "linear", "factor": 1.0})),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 1})),
        ("layer_types", json!(null)),
        ("attention_bias", json!(1)),
        ("original_max_position_embeddings", json!(64)),
    ] {
        let found = parse(&with(v4(), key, value)).expect(key);
        assert_eq!(found, plain, "{key}");
    }
    for name in [json!("int8"), json!("fp32"), json!(1)] {
        let found = parse(&with(v4(), "torch_dtype", name)).expect("any type");
        assert_eq!(found.dtype, None);
    }
    let both = with(
        with(v4(), "torch_dtype", json!("int8")),
        "dtype",
        json!("float16"),
    );
    assert_eq!(parse(&both).expect("parses").dtype, Some(DType::F16));
}

#[test]
fn a_part_of_a_head_is_not_rotated_in_llama() {
    let llama = with(v4(), "model_type", json!("llama"));
    let partial = with(llama.clone(), "partial_rotary_factor", json!(0.5));
    let nested = with(
        llama,
        "rope_parameters",
        json!({"partial_rotary_factor": 0.5}),
    );
    for config in [partial, nested] {
        let error = parse(&config).expect_err("a part of a head").to_string();
        assert!(error.contains("partial_rotary_factor 0.5"), "{error}");
    }
}

#[test]
fn a_window_is_refused_only_where_a_layer_slides() {
    // 28 layers, 131,072 positions.
    let windowed = |keys: Value| {
        let mut config = with(v4(), "use_sliding_window", json!(true));
        let map = config.as_object_mut().expect("an object");
        map.remove("sliding_window");
        map.remove("max_window_layers");
        for (key, value) in keys.as_object().expect("an object") {
            map.insert(key.clone(), value.clone());
        }
        parse(&config)
    };
    let all = json!(vec!["full_attention"; 28]);
    for keys in [
        json!({"sliding_window": null, "max_window_layers": 0}),
        json!({"sliding_window": 4, "max_window_layers": 28}),
        json!({"sliding_window": 4}),
        json!({"sliding_window": 131_072, "max_window_layers": 0}),
        json!({"sliding_window": 4, "max_window_layers": 0, "layer_types": all}),
        json!({"sliding_window": 4, "max_window_layers": 0, "model_type": "llama"}),
    ] {
        let found = windowed(keys.clone());
        assert!(found.is_ok(), "{keys}: {found:?}");
    }
    for keys in [
        json!({"sliding_window": 4, "max_window_layers": 27}),
        json!({"max_window_layers": 0}),
    ] {
        let error = windowed(keys).expect_err("a layer slides").to_string();
        assert!(error.contains("use_sliding_window"), "{error}");
    }
}

#[test]
fn rope_scaling_may_have_both_of_its_names() {
    let scaling = |names: Value| {
        let mut scaling = json!({
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        for (key, value) in names.as_object().expect("an object") {
            scaling[key] = value.clone();
        }
        parse(&with(v4(), "rope_scaling", scaling)).map(|config| config.rope_scaling)
    };
    let llama3 = Some(RopeScaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    for names in [
        json!({"rope_type": "llama3"}),
        json!({"type": "llama3"}),
        json!({"rope_type": "llama3", "type": "llama3"}),
    ] {
        assert_eq!(scaling(names).expect("parses"), llama3);
    }
    assert_eq!(scaling(json!({"type": "default"})).expect("parses"), None);
}

/// Llama 3.1's numbers, as Meta's reference code has them.
#[test]
fn scaled_frequencies_stay_are_interpolated_or_shrink_by_wavelength() {
    let scaling = RopeScaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let frequency = |wavelength: f64| 2.0 * std::f64::consts::PI / wavelength;
    let ratio = |wavelength: f64| scaling.stretch(frequency(wavelength)) / frequency(wavelength);
    assert_eq!(ratio(2000.0), 1.0);
    assert_eq!(ratio(9000.0), 0.125);
    // Half way between 8192 / 4 and 8192 / 1, counted in wavelengths that fit the context: 2.5 of 1 to 4.
    let between = ratio(8192.0 / 2.5);
    assert!((between - (0.5 + 0.5 / 8.0)).abs() < 1e-12, "{between}");
}
