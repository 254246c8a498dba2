//! Checkpoints as GGUF files, read back here.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use super::{
    export_prompts::{adapter, export, model},
    *,
};

mod reader;
mod refusals;
use reader::{Element, Gguf};

/// The tensors of a checkpoint of one file, by name.
fn checkpoint(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32);
        let values = view.data().as_chunks().0.iter();
        let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (view.shape().to_vec(), values)
    };
    let names = file.names().into_iter();
    names.map(|name| (name.to_owned(), values(name))).collect()
}

/// llama.cpp's name for a tensor of a checkpoint.
fn name_there(name: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    names
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// The values of a tensor with its rows where llama.cpp's Llama has them: number `2i + half` of a head is the `i`th of a half.
fn turned(values: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let rows = values.len() / width;
    let from = |row: usize| {
        let (head, place) = (row / head_dim, row % head_dim);
        head * head_dim + place % 2 * (head_dim / 2) + place / 2
    };
    let row = |row: usize| &values[from(row) * width..][..width];
    (0..rows).flat_map(row).copied().collect()
}

#[test]
fn a_gguf_file_is_the_checkpoint_with_virtual_tokens() {
    let folder = tempdir().unwrap();
    for (name, case) in [
        ("tied_gqa", "tied_gqa-prompt-tuning-random"),
        ("llama_tied_gqa", "llama_tied_gqa-p-tuning-mlp"),
        ("llama_untied_mha", "llama_untied_mha-prompt-tuning-random"),
        ("qwen3_tied_gqa", "qwen3_tied_gqa-prompt-tuning-random"),
    ] {
        let (model, adapter) = (model(name), adapter(case));
        let [plain, output] = ["checkpoint", "gguf"].map(|to| folder.path().join(name).join(to));
        succeed(&mut export(&model, &adapter, "checkpoint", &plain));
        let mut command = export(&model, &adapter, "gguf", &output);
        succeed(command.args(["--outtype", "f32"]));
        assert_eq!(fs::read_dir(&output).unwrap().count(), 1);
        assert_eq!(
            fs::read_dir(output.parent().unwrap()).unwrap().count(),
            2,
            "nothing is left beside it"
        );
        let gguf = Gguf::read(&output.join("model.gguf"));

        let config = read_json(&plain.join("config.json"));
        let family = config["model_type"].as_str().unwrap();
        let is_scaled = config["rope_parameters"]["rope_type"] == "llama3";
        let tensors = checkpoint(&plain);
        assert_eq!(gguf.tensors.len(), tensors.len() + usize::from(is_scaled));
        let head_dim = config["head_dim"].as_u64().unwrap_or(16) as usize;
        for (source, (shape, values)) in &tensors {
            let found = &gguf.tensors[&name_there(source)];
            assert_eq!((&found.shape, found.element), (shape, Element::F32));
            let is_turned = source.contains("q_proj") || source.contains("k_proj");
            let expected = match family == "llama" && is_turned {
                true => &turned(values, head_dim, shape[1..].iter().product()),
                false => values,
            };
            assert!(found.values() == *expected, "{name}: {source}");
        }
        if is_scaled {
            let factors = gguf.tensors["rope_freqs.weight"].values();
            let [kept, mixed, divided @ ..] = &factors[..] else {
                panic!("{factors:?}");
            };
            assert!(*kept == 1.0 && *mixed > 1.0 && *mixed < 8.0);
            assert_eq!((divided.len(), divided), (6, &[8.0; 6][..]));
        }

        let value = |key: &str| &gguf.values[&format!("{family}.{key}")];
        assert_eq!(gguf.values["general.architecture"], family);
        assert_eq!(gguf.values["general.name"], name);
        for (key, source) in [
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
        ] {
            assert_eq!(value(key), &config[source], "{key}");
        }
        assert_eq!(value("attention.key_length"), &json!(head_dim));
        let theta = &config["rope_parameters"]["rope_theta"];
        assert_eq!(value("rope.freq_base"), theta);
        let epsilon = config["rms_norm_eps"].as_f64().unwrap() as f32;
        assert_eq!(value("attention.layer_norm_rms_epsilon"), &json!(epsilon));
        check_tokenizer(&gguf, &plain);
    }
}

fn check_tokenizer(gguf: &Gguf, plain: &Path) {
    let tokenizer = read_json(&plain.join("tokenizer.json"));
    let value = |key: &str| &gguf.values[&format!("tokenizer.ggml.{key}")];
    let [tokens, kinds] = ["tokens", "token_type"].map(|key| value(key).as_array().unwrap());
    assert_eq!(tokens.len(), gguf.tensors["token_embd.weight"].shape[0]);
    assert_eq!(kinds.len(), tokens.len());
    let mut kinds_left: BTreeMap<usize, &Value> = kinds.iter().enumerate().collect();
    for (text, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        assert_eq!(
            (&tokens[id], kinds_left.remove(&id)),
            (&json!(text), Some(&json!(1)))
        );
    }
    let added = tokenizer["added_tokens"].as_array().unwrap();
    assert!(
        added
            .iter()
            .any(|token| token["content"] == "<|virtual_0|>")
    );
    for token in added {
        let id = token["id"].as_u64().unwrap() as usize;
        assert_eq!(
            (&tokens[id], kinds_left.remove(&id)),
            (&token["content"], Some(&json!(3)))
        );
    }
    assert!(kinds_left.values().all(|kind| **kind == 5), "unused rows");
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter();
    let merges: Vec<_> = merges
        .map(|pair| {
            format!(
                "{} {}",
                pair[0].as_str().unwrap(),
                pair[1].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(value("merges"), &json!(merges));
    assert_eq!(
        (value("model"), value("pre")),
        (&json!("gpt2"), &json!("qwen2"))
    );
    assert_eq!(value("add_bos_token"), false);
    let generation = read_json(&plain.join("generation_config.json"));
    assert_eq!(value("suppress_tokens"), &generation["suppress_tokens"]);
    assert_eq!(value("bos_token_id"), &generation["bos_token_id"]);
    let ends = [value("eos_token_id"), value("eot_token_id")];
    assert_eq!(json!(ends), generation["eos_token_id"]);
    let template = fs::read_to_string(plain.join("chat_template.jinja")).unwrap();
    assert_eq!(gguf.values["tokenizer.chat_template"], template);
}

#[test]
fn narrower_types_are_near_and_vectors_stay() {
    let folder = tempdir().unwrap();
    let name = "llama_untied_mha";
    let adapter = adapter(&format!("{name}-prompt-tuning-random"));
    let write = |outtype: &str| {
        let file = folder.path().join(format!("as-{outtype}.gguf"));
        let mut command = export(&model(name), &adapter, "gguf", &file);
        if !outtype.is_empty() {
            command.args(["--outtype", outtype]);
        }
        let said = String::from_utf8(succeed(&mut command).stdout).unwrap();
        (Gguf::read(&file), said)
    };
    let (wide, _) = write("f32");
    for (outtype, file_type, element) in [
        ("", 1, Element::F16),
        ("f16", 1, Element::F16),
        ("bf16", 32, Element::Bf16),
        ("q8_0", 7, Element::Q8_0),
    ] {
        let (narrow, said) = write(outtype);
        assert_eq!(narrow.values["general.file_type"], file_type);
        assert_eq!(narrow.tensors.len(), wide.tensors.len());
        let mut not_quantised = 0;
        for (name, found) in &narrow.tensors {
            let (found_values, expected) = (found.values(), wide.tensors[name].values());
            assert_eq!(found.shape, wide.tensors[name].shape);
            let odd = found.shape.last().unwrap() % 32 != 0;
            let of_type = match (&found.shape[..], element) {
                ([_], _) => Element::F32,
                (_, Element::Q8_0) if odd => {
                    not_quantised += 1;
                    Element::F16
                }
                _ => element,
            };
            assert_eq!(found.element, of_type, "{name}");
            for (found, expected) in found_values.chunks(32).zip(expected.chunks(32)) {
                let largest = expected
                    .iter()
                    .fold(0.0_f32, |most, value| most.max(value.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    let bound = match of_type {
                        Element::F32 => 0.0,
                        // Half of the last bit of 11, or of 8; below 2⁻¹⁴ all steps of f16 are the same.
                        Element::F16 => (expected.abs() / 2048.0).max(2.0_f32.powi(-25)),
                        Element::Bf16 => expected.abs() / 256.0,
                        // Half a step, and 127 times what the scale is rounded by.
                        Element::Q8_0 => largest / 127.0 * (0.5 + 127.0 / 2048.0),
                    };
                    assert!(
                        (found - expected).abs() <= bound,
                        "{name}: {found} {expected}"
                    );
                }
            }
        }
        // Only the matrices from the inner layer have rows of a multiple of 32, one a layer.
        let matrices = wide
            .tensors
            .values()
            .filter(|tensor| tensor.shape.len() == 2)
            .count();
        let left = if outtype == "q8_0" { matrices - 2 } else { 0 };
        assert_eq!(not_quantised, left);
        assert_eq!(said.contains(&format!("{left} of")), left > 0, "{said}");
    }
}

/// `attention_bias` asks for four biases a layer; llama.cpp's Qwen3 has three of them.
#[test]
fn a_gguf_file_has_merged_biases_if_llama_cpp_has_a_place_for_them() {
    let folder = tempdir().unwrap();
    let (model, adapter) = (
        model("qwen3_untied_mha"),
        adapter("qwen3_untied_mha-beft-default"),
    );
    let [plain, file] = ["plain", "a.gguf"].map(|name| folder.path().join(name));
    succeed(&mut export(&model, &adapter, "checkpoint", &plain));
    succeed(&mut export(&model, &adapter, "gguf", &file));
    let (gguf, tensors) = (Gguf::read(&file), checkpoint(&plain));
    for module in ["q", "k", "v"] {
        let (shape, expected) = &tensors[&format!("model.layers.1.self_attn.{module}_proj.bias")];
        let found = &gguf.tensors[&format!("blk.1.attn_{module}.bias")];
        assert_eq!((&found.shape, &found.values()), (shape, expected));
    }
    assert!(tensors.contains_key("model.layers.1.self_attn.o_proj.bias"));
    assert!(!gguf.tensors.contains_key("blk.1.attn_output.bias"));
    // The model is not an exported one: there is nothing to keep from being written.
    assert!(!gguf.values.contains_key("tokenizer.ggml.suppress_tokens"));

    // The same values as biases of another module, which is as wide here.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let bytes = fs::read(Path::new(&adapter).join(name)).unwrap();
        let mut bytes = bytes.clone();
        for start in 0..bytes.len().saturating_sub(6) {
            if &bytes[start..start + 6] == b"v_proj" {
                bytes[start] = b'o';
            }
        }
        fs::write(other.join(name), bytes).unwrap();
    }
    let output = folder.path().join("out");
    let line = refused(&mut export(&model, text(&other), "gguf", &output));
    assert!(
        line.contains("no place for biases of `o_proj`") && line.contains("--to checkpoint"),
        "{line}"
    );
    assert!(
        line.contains("qwen3_untied_mha") && !line.contains("partial"),
        "{line}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}
