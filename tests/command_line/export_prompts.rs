//! Virtual tokens in other programs' forms.

use std::io::Read;

use safetensors::{Dtype, SafeTensors};

use super::*;

pub(super) fn adapter(case: &str) -> String {
    text(&fixture::path(&format!("cases/{case}/adapter"))).to_owned()
}

pub(super) fn model(name: &str) -> String {
    text(&fixture::path(&format!("models/{name}"))).to_owned()
}

pub(super) fn export(model: &str, adapter: &str, to: &str, output: &Path) -> Command {
    burn_peft(&[
        "export",
        "--model",
        model,
        "--adapter",
        adapter,
        "--to",
        to,
        "--output",
        text(output),
    ])
}

/// The tokens that a model writes behind some texts, with `front` in front of them.
fn texts(front: &str, more: &[&str]) -> Vec<Value> {
    let texts = ["the cat 0 ", "sat", "on a mat 5"];
    let text = |text: &&str| {
        let mut command = burn_peft(&["generate", "--json", "--temperature", "0"]);
        command.args([
            "--max-new-tokens",
            "12",
            "--prompt",
            &format!("{front}{text}"),
        ]);
        lines(&succeed(command.args(more))).remove(0)["token_ids"].take()
    };
    texts.iter().map(text).collect()
}

#[test]
fn a_checkpoint_with_virtual_tokens_is_base_and_adapter() {
    let folder = tempdir().unwrap();
    for (name, case) in [
        ("tied_gqa", "tied_gqa-prompt-tuning-random"),
        ("untied_mha", "untied_mha-p-tuning-lstm"),
        ("llama_tied_gqa", "llama_tied_gqa-p-tuning-mlp"),
        ("qwen3_tied_gqa", "qwen3_tied_gqa-prompt-tuning-random"),
    ] {
        let (model, adapter) = (model(name), adapter(case));
        let output = folder.path().join(name);
        let said = succeed(&mut export(&model, &adapter, "checkpoint", &output));
        let said = String::from_utf8(said.stdout).unwrap();
        let config = read_json(&Path::new(&adapter).join("adapter_config.json"));
        let tokens = config["num_virtual_tokens"].as_u64().unwrap() as usize;
        assert!(said.contains(&format!("{tokens} virtual tokens")), "{said}");
        let names: String = (0..tokens).map(|i| format!("<|virtual_{i}|>")).collect();
        let expected = texts("", &["--model", &model, "--adapter", &adapter]);
        assert_eq!(
            texts(&names, &["--model", text(&output)]),
            expected,
            "{name}"
        );
        let bare = texts("", &["--model", &model]);
        assert_ne!(expected, bare, "a prompt that does something");
        // Every old row of the head is as it was.
        let written = fs::read(output.join("model.safetensors")).unwrap();
        let written = SafeTensors::deserialize(&written).unwrap();
        let original = fs::read(Path::new(&model).join("model.safetensors")).unwrap();
        let original = SafeTensors::deserialize(&original).unwrap();
        let head = original.tensor("lm_head.weight");
        let head = head.or_else(|_| original.tensor("model.embed_tokens.weight"));
        let (head, new) = (head.unwrap(), written.tensor("lm_head.weight").unwrap());
        let first = read_json(&output.join("tokenizer.json"))["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .find(|token| token["content"] == "<|virtual_0|>")
            .unwrap()["id"]
            .as_u64()
            .unwrap() as usize;
        let kept = first * head.data().len() / head.shape()[0];
        assert!(new.data()[..kept] == head.data()[..kept], "{name}");
        let config = read_json(&output.join("config.json"));
        assert_eq!(config["tie_word_embeddings"], false);
        assert_eq!(config["vocab_size"], new.shape()[0]);
        let generation = read_json(&output.join("generation_config.json"));
        assert_eq!(
            generation["suppress_tokens"].as_array().unwrap().len(),
            tokens
        );
        let template = fs::read_to_string(output.join("chat_template.jinja")).unwrap();
        assert!(template.starts_with("{{ '<|virtual_0|>"), "{template}");
        let readme = fs::read_to_string(output.join("README.md")).unwrap();
        assert!(readme.contains("<|virtual_0|>"), "{readme}");
    }
}

#[test]
fn a_post_processor_puts_the_tokens_in_front_of_every_text() {
    let folder = tempdir().unwrap();
    let (model, adapter) = (model("tied_gqa"), adapter("tied_gqa-prompt-tuning-random"));
    let [plain, output] = ["plain", "out"].map(|name| folder.path().join(name));
    succeed(&mut export(&model, &adapter, "checkpoint", &plain));
    let mut command = export(&model, &adapter, "checkpoint", &output);
    let said = succeed(command.arg("--post-processor"));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("in front of every text"), "{said}");
    assert_eq!(
        texts("", &["--model", text(&output)]),
        texts("", &["--model", &model, "--adapter", &adapter])
    );
    let readme = |folder: &Path| fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme(&output).contains("post-processor puts the names"));
    assert!(!readme(&plain).contains("post-processor"));
    // Nothing else is different.
    let mut tokenizers = [&plain, &output].map(|folder| read_json(&folder.join("tokenizer.json")));
    let [before, after] = tokenizers
        .each_mut()
        .map(|tokenizer| tokenizer["post_processor"].take());
    assert_ne!(before, after);
    assert_eq!(tokenizers[0], tokenizers[1]);

    let none = folder.path().join("none");
    let bitfit = self::adapter("tied_gqa-beft-qkv");
    let mut command = export(&model, &bitfit, "checkpoint", &none);
    let line = refused(command.arg("--post-processor"));
    assert!(line.contains("BEFT has none"), "{line}");
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let weights = Path::new(&adapter).join("adapter_model.safetensors");
    fs::copy(weights, elsewhere.join("adapter_model.safetensors")).unwrap();
    let mut config = config_to_edit(Path::new(&adapter));
    let tokens = &config["num_virtual_tokens"];
    config["burn_peft_template"] = format!("say {{prompt:{tokens}}}{{completion}}").into();
    write_config(&elsewhere, &config);
    let mut command = export(&model, text(&elsewhere), "checkpoint", &none);
    let line = refused(command.arg("--post-processor"));
    assert!(
        line.contains("these stand elsewhere: \"say {prompt:"),
        "{line}"
    );
    assert!(!none.exists());
}

#[test]
fn a_conversation_with_an_exported_checkpoint_is_one_with_the_adapter() {
    let folder = tempdir().unwrap();
    let (model, adapter) = (model("tied_gqa"), adapter("tied_gqa-prompt-tuning-random"));
    let output = folder.path().join("out");
    succeed(&mut export(&model, &adapter, "checkpoint", &output));
    let generate = |more: &[&str]| {
        let mut command = burn_peft(&["generate", "--chat", "--prompt", "the cat", "--json"]);
        command.args(["--max-new-tokens", "12", "--temperature", "0"]);
        lines(&succeed(command.args(more))).remove(0)["token_ids"].take()
    };
    assert_eq!(
        generate(&["--model", text(&output)]),
        generate(&["--model", &model, "--adapter", &adapter])
    );
    // It is exported already.
    let again = folder.path().join("again");
    let line = refused(&mut export(text(&output), &adapter, "checkpoint", &again));
    assert!(line.contains("<|virtual_0|> already"), "{line}");
    assert!(!again.exists());
}

#[test]
fn vllm_gets_a_tensor_as_torch_writes_it_and_a_request() {
    let folder = tempdir().unwrap();
    let (model, case) = (model("tied_gqa"), "tied_gqa-prompt-tuning-random");
    let adapter = adapter(case);
    let shapes = [None, Some("the cat")].map(|prompt| {
        let output = folder
            .path()
            .join(if prompt.is_some() { "whole" } else { "part" });
        let mut command = export(&model, &adapter, "vllm", &output);
        command.args(prompt.into_iter().flat_map(|prompt| ["--prompt", prompt]));
        let said = succeed(&mut command);
        let file = fs::File::open(output.join("prompt_embeds.pt")).unwrap();
        let mut zip = zip::ZipArchive::new(file).unwrap();
        let mut data = Vec::new();
        let mut entry = zip.by_name("archive/data/0").unwrap();
        assert_eq!(entry.data_start() % 64, 0);
        entry.read_to_end(&mut data).unwrap();
        let request = read_json(&output.join("request.json"));
        let is_chat = request.get("messages").is_some();
        assert_eq!(is_chat, prompt.is_none(), "{request}");
        let said = String::from_utf8(said.stdout).unwrap();
        (data, said)
    });
    let [(part, said), (whole, _)] = shapes;
    let table = burn_peft_format::AdapterTensors::load(
        &Path::new(&adapter).join("adapter_model.safetensors"),
    );
    let table = table.unwrap();
    let table = table.get("prompt_embeddings").unwrap();
    let bytes: Vec<u8> = table
        .values()
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert!(part == bytes && said.contains(&format!("{:?}", table.shape())));
    assert!(whole.starts_with(&part) && whole.len() > part.len());
}

#[test]
fn a_prompt_cache_has_the_keys_and_values_of_every_layer() {
    let folder = tempdir().unwrap();
    for (case, old) in [
        ("tied_gqa-p-tuning-v2", false),
        ("tied_gqa-prompt-tuning-random", false),
        ("tied_gqa-prefix-tuning", true),
    ] {
        let output = folder.path().join(case);
        let mut command = export(&model("tied_gqa"), &adapter(case), "mlx-cache", &output);
        succeed(command.args(old.then_some("--old-layout")));
        let bytes = fs::read(output.join("prompt_cache.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let config = read_json(&fixture::path("models/tied_gqa/config.json"));
        let [layers, heads] = ["num_hidden_layers", "num_key_value_heads"]
            .map(|key| config[key].as_u64().unwrap() as usize);
        for layer in 0..layers {
            for part in 0..2 {
                let states = tensors.tensor(&format!("{layer}.{part}")).unwrap();
                assert_eq!((states.dtype(), states.shape()[1]), (Dtype::F32, heads));
            }
            let class = format!("{}.{layer}", if old { 2 } else { 1 });
            assert_eq!(metadata[&class], "KVCache");
        }
        let states = if old { 2 } else { 3 };
        assert_eq!(tensors.len(), states * layers, "{case}");
    }
}

#[test]
fn what_has_no_place_in_a_form_is_refused_with_what_has() {
    let folder = tempdir().unwrap();
    let model = model("tied_gqa");
    let output = folder.path().join("out");
    for (case, to, named) in [
        ("tied_gqa-beft-qkv", "vllm", "--to checkpoint"),
        ("tied_gqa-prefix-tuning", "vllm", "--to mlx-cache"),
        ("tied_gqa-beft-qkv", "mlx-cache", "--to checkpoint"),
        ("tied_gqa-prefix-tuning", "checkpoint", "--to mlx-cache"),
    ] {
        let line = refused(&mut export(&model, &adapter(case), to, &output));
        assert!(line.contains(named), "{case} to {to}: {line}");
        assert!(!output.exists());
    }
    let case = adapter("tied_gqa-prompt-tuning-random");
    let mut command = export(&model, &case, "checkpoint", &output);
    let line = refused(command.args(["--prompt", "x"]));
    assert!(line.contains("--prompt belongs to --to vllm"), "{line}");
}
