//! What cannot be a GGUF file.

use super::*;

#[test]
fn what_llama_cpp_has_not_is_refused_with_what_can_be_done() {
    let folder = tempdir().unwrap();
    let output = folder.path().join("out");
    let prompt = adapter("tied_gqa-prompt-tuning-random");
    let prefix = adapter("tied_gqa-prefix-tuning");
    let line = refused(&mut export(&model("tied_gqa"), &prefix, "gguf", &output));
    assert!(line.contains("--to mlx-cache"), "{line}");

    let edited = copy_model("tied_gqa");
    let path = edited.path().join("tokenizer.json");
    let mut tokenizer = read_json(&path);
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("\\s+");
    fs::write(&path, tokenizer.to_string()).unwrap();
    let line = refused(&mut export(text(edited.path()), &prompt, "gguf", &output));
    assert!(
        line.contains(
            "tokenizer.json: llama.cpp has no tokenizer like this one: its pre-tokenizer"
        ) && line.contains("--to checkpoint"),
        "{line}"
    );

    let scaled = copy_model("tied_gqa");
    let path = scaled.path().join("config.json");
    let mut config = read_json(&path);
    config["rope_parameters"] =
        read_json(&fixture::path("models/llama_tied_gqa/config.json"))["rope_parameters"].take();
    fs::write(&path, config.to_string()).unwrap();
    let line = refused(&mut export(text(scaled.path()), &prompt, "gguf", &output));
    assert!(
        line.contains("no rotary scaling of Llama 3 in qwen2"),
        "{line}"
    );

    for (to, option, belongs) in [
        ("checkpoint", ["--outtype", "q8_0"], "--to gguf"),
        ("gguf", ["--prompt", "x"], "--to vllm"),
    ] {
        let mut command = export(&model("tied_gqa"), &prompt, to, &output);
        let line = refused(command.args(option));
        assert!(line.contains(belongs), "{line}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
