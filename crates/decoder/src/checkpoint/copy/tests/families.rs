//! Biases that a family does not have of its own.

use super::*;

#[test]
fn a_family_that_can_have_biases_gets_all_that_its_configuration_asks_for() {
    use LayerModule::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
    const ATTENTION: [LayerModule; 4] = [QProj, KProj, VProj, OProj];
    const MLP: [LayerModule; 3] = [GateProj, UpProj, DownProj];
    let (from, root) = (without_biases("llama", "Llama"), tempdir().unwrap());
    let original = Checkpoint::open(from.path()).unwrap();
    for (module, key, asked) in [
        (KProj, "attention_bias", &ATTENTION[..]),
        (DownProj, "mlp_bias", &MLP[..]),
    ] {
        let width = module.width(original.config());
        let delta: Vec<f32> = (0..width).map(|i| 0.1 * (i as f32 - 3.0)).collect();
        let to = root.path().join(key);
        let copied = save(from.path(), &[(&bias(1, module), &delta)], &to).unwrap();
        let mut expected: Vec<String> = (0..original.config().num_hidden_layers)
            .flat_map(|layer| asked.iter().map(move |module| bias(layer, *module)))
            .collect();
        expected.sort();
        assert_eq!(
            (copied.added, copied.config_keys),
            (expected.clone(), vec![key])
        );

        let merged = Checkpoint::open(&to).unwrap();
        assert_eq!(merged.config().biases, asked);
        let (before, after) = (tensors(from.path()), tensors(&to));
        assert_eq!(after.len(), before.len() + expected.len());
        for (name, found) in &after {
            match before.get(name) {
                Some(old) => assert!(found == old, "{name}"),
                None if *name == bias(1, module) => assert_eq!(widened(found), delta),
                None => assert!(widened(found).iter().all(|value| *value == 0.0), "{name}"),
            }
        }
        let config = fs::read(to.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config[key], true);
    }
}

#[test]
fn a_new_bias_stands_in_the_index_beside_its_weight() {
    let (from, root) = (model("sharded"), tempdir().unwrap());
    let index_of = |folder: &Path| -> Value {
        serde_json::from_slice(&fs::read(folder.join(INDEX_FILE)).unwrap()).unwrap()
    };
    // The same checkpoint as a Llama whose biases were never there.
    let mut index = index_of(from.path());
    let map = index["weight_map"].as_object_mut().unwrap();
    map.retain(|name, _| !name.ends_with(".bias"));
    fs::write(from.path().join(INDEX_FILE), index.to_string()).unwrap();
    for name in names(from.path()) {
        if name.ends_with(".safetensors") {
            let path = from.path().join(name);
            let bytes = fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let kept = file.iter().filter(|(name, _)| !name.ends_with(".bias"));
            fs::write(&path, safetensors::serialize(kept, None).unwrap()).unwrap();
        }
    }
    let path = from.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["model_type"] = json!("llama");
    config["architectures"] = json!(["LlamaForCausalLM"]);
    fs::write(&path, config.to_string()).unwrap();

    let module = LayerModule::VProj;
    let original = Checkpoint::open(from.path()).unwrap();
    let delta = vec![0.5; module.width(original.config())];
    let to = root.path().join("model");
    let copied = save(from.path(), &[(LAST, &delta)], &to).unwrap();
    // Zeros and halves are exact in any type.
    assert!(copied.widened.is_empty());
    let merged = index_of(&to);
    for name in &copied.added {
        let weight = name.replace(".bias", ".weight");
        assert_eq!(
            merged["weight_map"][name], merged["weight_map"][weight],
            "{name}"
        );
    }
    assert_eq!(tensors(&to)[LAST].0, Dtype::BF16);
    Checkpoint::open(&to).unwrap();
}

#[test]
fn only_llama_has_a_key_for_biases_of_the_feed_forward_layer() {
    use crate::Family;
    let key = |family: Family, module| family.bias_key(module);
    assert_eq!(key(Family::Llama, LayerModule::UpProj), Some("mlp_bias"));
    assert_eq!(key(Family::Qwen3, LayerModule::UpProj), None);
    assert_eq!(
        key(Family::Qwen3, LayerModule::OProj),
        Some("attention_bias")
    );
    assert_eq!(key(Family::Qwen2, LayerModule::OProj), None);
    assert_eq!(key(Family::Llama, LayerModule::InputLayernorm), None);
}
