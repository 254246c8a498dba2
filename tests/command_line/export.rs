//! Adapters in other programs' forms.

use burn_peft_format::AdapterTensors;
use safetensors::SafeTensors;

use super::*;

fn adapter(case: &str) -> String {
    text(&fixture::path(&format!("cases/{case}/adapter"))).to_owned()
}

fn export(model: &str, adapter: &str, to: &str, output: &Path) -> Command {
    let args = [
        "export",
        "--adapter",
        adapter,
        "--to",
        to,
        "--output",
        text(output),
    ];
    let mut command = burn_peft(&args);
    if !model.is_empty() {
        command.args(["--model", model]);
    }
    command
}

/// What `evaluate` says of every row: to the last bit, for JSON keeps all digits of an f64.
fn scores(data: &str, model: &str, adapter: Option<&str>) -> Value {
    let mut args = vec!["evaluate", "--json", "--no-generate", "--per-example"];
    args.extend(["--data", data]);
    if !model.is_empty() {
        args.extend(["--model", model]);
    }
    args.extend(adapter.into_iter().flat_map(|dir| ["--adapter", dir]));
    lines(&succeed(&mut burn_peft(&args))).remove(0)
}

#[test]
fn a_merged_checkpoint_is_base_and_adapter_bit_for_bit() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 12);
    for name in ["tied_gqa", "untied_mha"] {
        let model = text(&fixture::path(&format!("models/{name}"))).to_owned();
        let adapter = adapter(&format!("{name}-beft-qkv"));
        let merged = folder.path().join(name);
        succeed(&mut export(&model, &adapter, "merged", &merged));
        let expected = scores(&data, &model, Some(&adapter));
        assert_ne!(
            expected,
            scores(&data, &model, None),
            "an adapter that does something"
        );
        assert_eq!(scores(&data, text(&merged), None), expected, "{name}");
    }
}

/// The base's type cannot hold the sums: they are stored as F32 beside it.
#[test]
fn a_merged_checkpoint_of_narrow_type_loses_nothing() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 12);
    let model = text(&fixture::path("models/sharded")).to_owned();
    let run = folder.path().join("run");
    train_bitfit(&["--model", &model, "--data", &data], &run);
    let merged = folder.path().join("merged");
    let output = succeed(&mut export(&model, text(&run), "merged", &merged));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("12 of them are stored as F32"), "{said}");
    let expected = scores(&data, &model, Some(text(&run)));
    assert_eq!(scores(&data, text(&merged), None), expected);
}

/// The biases that BitFit added to a family without get a place in the configuration, and o_proj zeros.
#[test]
fn a_model_without_biases_is_merged_into_one_with_them() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 12);
    let model = folder.path().join("llama");
    write_llama(&model);
    let model = text(&model);
    let run = folder.path().join("run");
    train_bitfit(&["--model", model, "--data", &data], &run);
    let expected = scores(&data, model, Some(text(&run)));
    assert_ne!(expected, scores(&data, model, None));
    let merged = folder.path().join("merged");
    let output = succeed(&mut export(model, text(&run), "merged", &merged));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("attention_bias set to true"), "{said}");
    assert_eq!(scores(&data, text(&merged), None), expected);
}

/// `untied_mha` without its biases, which is what a Llama has.
fn write_llama(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let original = fixture::path("models/untied_mha");
    for entry in fs::read_dir(&original).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let bytes = fs::read(original.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.ends_with(".bias"));
    let kept = safetensors::serialize(kept, None).unwrap();
    fs::write(folder.join("model.safetensors"), kept).unwrap();
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["model_type"] = "llama".into();
    config["architectures"] = serde_json::json!(["LlamaForCausalLM"]);
    fs::write(&path, config.to_string()).unwrap();
}

#[test]
fn the_built_in_model_is_merged_into_a_folder_like_any_other() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("rows.jsonl");
    fs::write(
        &data,
        r#"{"prompt": "name[x] ", "completion": "x is a place."}"#,
    )
    .unwrap();
    let run = folder.path().join("run");
    train_bitfit(&["--data", text(&data)], &run);
    let merged = folder.path().join("merged");
    succeed(&mut export("", text(&run), "merged", &merged));
    let expected = scores(text(&data), "", Some(text(&run)));
    assert_eq!(scores(text(&data), text(&merged), None), expected);
}

fn train_bitfit(args: &[&str], output: &Path) {
    let mut command = burn_peft(&[
        "train",
        "--method",
        "bitfit",
        "--max-steps",
        "2",
        "--no-tui",
    ]);
    command.args(args).args(["--output", text(output)]);
    command.args(["--set", "train.predict_with_generate=false"]);
    succeed(&mut command);
}

#[test]
fn what_cannot_be_merged_is_refused_in_one_line() {
    let folder = tempdir().unwrap();
    let model = model_path();
    let output = folder.path().join("out");
    for (case, named) in [
        (
            "tied_gqa-beft-linears",
            "no place for biases of `o_proj`, `gate_proj`, `up_proj`, `down_proj`",
        ),
        ("tied_gqa-prefix-tuning", "PREFIX_TUNING"),
        ("untied_mha-beft-qkv", "has shape [1, 48], expected [1, 64]"),
    ] {
        let line = refused(&mut export(&model, &adapter(case), "merged", &output));
        assert!(line.contains(named) && line.contains(case), "{line}");
        assert!(!output.exists());
    }
    fs::create_dir(&output).unwrap();
    fs::write(output.join("mine"), "").unwrap();
    let line = refused(&mut export(
        &model,
        &adapter("tied_gqa-beft-qkv"),
        "merged",
        &output,
    ));
    assert!(
        line.contains(text(&output)) && line.contains("not empty"),
        "{line}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_prompt_becomes_one_tensor() {
    let folder = tempdir().unwrap();
    for case in ["tied_gqa-prompt-tuning-random", "tied_gqa-p-tuning-lstm"] {
        let adapter = adapter(case);
        // A folder, and a file in it; the base need not be named.
        let file = folder.path().join(format!("{case}.safetensors"));
        succeed(&mut export("", &adapter, "prompt-embeds", &file));
        succeed(&mut export(
            &model_path(),
            &adapter,
            "prompt-embeds",
            folder.path(),
        ));
        let held = AdapterTensors::load(&Path::new(&adapter).join("adapter_model.safetensors"));
        let held = held.unwrap();
        for file in [&file, &folder.path().join("prompt_embeds.safetensors")] {
            let found = AdapterTensors::load(file).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found.get("prompt_embeds"), held.get("prompt_embeddings"));
        }
    }
    for (model, case, named) in [
        ("", "tied_gqa-beft-qkv", "BEFT has no prompt"),
        ("", "tied_gqa-prefix-tuning", "PREFIX_TUNING has no prompt"),
        (&model_path(), "untied_mha-p-tuning-mlp", "expected 64"),
    ] {
        let output = folder.path().join("none");
        let line = refused(&mut export(model, &adapter(case), "prompt-embeds", &output));
        assert!(line.contains(named), "{line}");
        assert!(!output.exists());
    }
}

/// PEFT saves an adapter that has a name of its own in a subfolder.
#[test]
fn an_adapter_with_a_name_is_given_as_its_subfolder() {
    let folder = tempdir().unwrap();
    let data = rows_file(folder.path(), 4);
    let (parent, named) = (folder.path().join("both"), folder.path().join("both/poet"));
    fs::create_dir_all(&named).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let from = Path::new(&adapter("tied_gqa-beft-qkv")).join(file);
        fs::copy(from, named.join(file)).unwrap();
    }
    let model = model_path();
    let found = scores(&data, &model, Some(text(&named)));
    assert_eq!(
        found,
        scores(&data, &model, Some(&adapter("tied_gqa-beft-qkv")))
    );
    let args = [
        "evaluate",
        "--data",
        &data,
        "--model",
        &model,
        "--adapter",
        text(&parent),
    ];
    let line = refused(&mut burn_peft(&args));
    assert!(line.contains("`poet`"), "{line}");
}

#[test]
fn inspect_says_how_far_each_bias_moved() {
    let folder = tempdir().unwrap();
    let adapter = adapter("tied_gqa-beft-layers");
    let picture = folder.path().join("new/moved.svg");
    let args = ["inspect", &adapter, "--biases", "--picture", text(&picture)];
    let report = lines(&succeed(burn_peft(&args).arg("--json"))).remove(0);
    let moved = report["biases"].as_array().unwrap();
    let tensors = AdapterTensors::load(&Path::new(&adapter).join("adapter_model.safetensors"));
    let tensors = tensors.unwrap();
    assert_eq!(moved.len(), tensors.len());
    for bias in moved {
        let (layer, kind) = (&bias["layer"], bias["kind"].as_str().unwrap());
        let name = format!("base_model.model.model.layers.{layer}.self_attn.{kind}.beft_bias");
        let values = tensors.get(&name).unwrap().values();
        let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
        let found = bias["mean_abs_change"].as_f64().unwrap();
        // A sum of at most 64 numbers in f64, in whatever order.
        assert!(
            (found * values.len() as f64 / sum - 1.0).abs() < 1e-13,
            "{name}"
        );
    }
    let svg = fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("q_proj"), "{svg}");

    let table = succeed(&mut burn_peft(&args));
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("\nlayer    q_proj    k_proj    v_proj    o_proj\n"),
        "{table}"
    );
    assert!(
        table.contains("\n    0         -"),
        "layer 0 was not trained: {table}"
    );
    let other = fixture::path("cases/tied_gqa-p-tuning-mlp/adapter");
    let line = refused(&mut burn_peft(&["inspect", text(&other), "--biases"]));
    assert!(
        line.contains("--biases") && line.contains("p-tuning"),
        "{line}"
    );
}
