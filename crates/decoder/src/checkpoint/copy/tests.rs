//! Copies of the fixture models.

mod families;
mod tokens;

use std::fs;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use burn_peft_files::CHECKSUMS_FILE;

use super::super::{INDEX_FILE, convert::through_f32, tests::model};
use super::*;

const FIRST: &str = "model.layers.0.self_attn.q_proj.bias";
const LAST: &str = "model.layers.1.self_attn.v_proj.bias";

fn save(from: &Path, deltas: &[(&str, &[f32])], to: &Path) -> Result<Copied, Error> {
    let deltas = deltas.iter().map(|(name, delta)| (place(name), *delta));
    Checkpoint::open(from)?.save_with_biases(&deltas.collect(), to, &mut |_, _| {})
}

/// Layer and module of a bias.
fn place(name: &str) -> (usize, LayerModule) {
    let of_layer = |layer| LayerModule::ALL.map(|module| (layer, module));
    let mut places = (0..2).flat_map(of_layer);
    let found = places.find(|(layer, module)| name == bias(*layer, *module));
    found.unwrap_or_else(|| panic!("{name} is no bias"))
}

fn bias(layer: usize, module: LayerModule) -> String {
    format!("{}.bias", module.module_path(layer))
}

/// Type, shape and bytes of every tensor of a folder.
fn tensors(folder: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for name in names(folder) {
        if name.ends_with(".safetensors") {
            let bytes = fs::read(folder.join(name)).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                let shape = view.shape().to_vec();
                all.insert(name.into(), (view.dtype(), shape, view.data().to_vec()));
            }
        }
    }
    all
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn widened((dtype, _, bytes): &(Dtype, Vec<usize>, Vec<u8>)) -> Vec<f32> {
    through_f32(bytes, *dtype, |value| value)
}

/// As many values as the tensor has, none of which a narrow type adds exactly.
fn odd_delta(folder: &Path, name: &str) -> Vec<f32> {
    let count = widened(&tensors(folder)[name]).len();
    (0..count).map(|i| 1e-3 * (i as f32 + 0.7)).collect()
}

#[test]
fn the_named_tensors_change_and_everything_else_stays() {
    for name in ["tied_gqa", "untied_mha", "sharded"] {
        let (from, to) = (model(name), tempdir().unwrap());
        let to = to.path().join("new/model");
        let deltas = [FIRST, LAST].map(|name| (name, odd_delta(from.path(), name)));
        let given = deltas.each_ref().map(|(name, delta)| (*name, &delta[..]));
        save(from.path(), &given, &to).unwrap();

        let (before, after) = (tensors(from.path()), tensors(&to));
        assert!(before.keys().eq(after.keys()), "{name}");
        for (tensor, found) in &after {
            let old = &before[tensor];
            match deltas.iter().find(|(name, _)| name == tensor) {
                None => assert!(found == old, "{name}: {tensor}"),
                Some((_, delta)) => {
                    let sum = widened(old).into_iter().zip(delta).map(|(a, b)| a + b);
                    assert_eq!(widened(found), sum.collect::<Vec<f32>>(), "{name}");
                    assert_eq!((found.0, &found.1), (Dtype::F32, &old.1), "{name}");
                }
            }
        }
        let mut expected = names(from.path());
        expected.push(CHECKSUMS_FILE.into());
        expected.sort();
        assert_eq!(names(&to), expected);
        for file in names(from.path()) {
            if !file.contains("safetensors") {
                let [old, new] = [from.path(), &to].map(|dir| fs::read(dir.join(&file)));
                assert_eq!(old.unwrap(), new.unwrap(), "{name}: {file}");
            }
        }
        // And it is a checkpoint.
        Checkpoint::open(&to).unwrap();
        assert_eq!(names(to.parent().unwrap()), ["model"], "nothing temporary");
    }
}

#[test]
fn a_type_is_widened_only_where_it_cannot_hold_the_sum() {
    let (from, to) = (model("sharded"), tempdir().unwrap());
    let before = tensors(from.path());
    let odd = odd_delta(from.path(), LAST);
    // Twice a number is as exact as the number.
    let double = widened(&before[FIRST]);
    let copied = save(from.path(), &[(FIRST, &double), (LAST, &odd)], to.path()).unwrap();
    assert_eq!(copied.widened, [LAST]);
    let after = tensors(to.path());
    assert_eq!(after[FIRST].0, Dtype::BF16);
    let doubled: Vec<f32> = double.iter().map(|value| 2.0 * value).collect();
    assert_eq!(widened(&after[FIRST]), doubled);

    let size = |folder: &Path| {
        let index = fs::read_to_string(folder.join(INDEX_FILE)).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        index["metadata"]["total_size"].as_u64().unwrap()
    };
    let growth = 2 * odd.len() as u64;
    assert_eq!(size(to.path()), size(from.path()) + growth);
}

#[test]
fn a_shard_that_nothing_changes_in_is_the_same_file() {
    let (from, to) = (model("sharded"), tempdir().unwrap());
    let index = fs::read_to_string(from.path().join(INDEX_FILE)).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let shard = index["weight_map"][FIRST].as_str().unwrap();
    let odd = odd_delta(from.path(), FIRST);
    save(from.path(), &[(FIRST, &odd)], to.path()).unwrap();
    for name in names(to.path()) {
        if name.ends_with(".safetensors") {
            let [old, new] = [from.path(), to.path()].map(|dir| fs::read(dir.join(&name)));
            assert_eq!(old.unwrap() == new.unwrap(), name != shard, "{name}");
        }
    }
}

#[test]
fn weights_that_were_not_changed_do_not_come_along() {
    let (from, to) = (model("tied_gqa"), tempdir().unwrap());
    let clean = names(from.path());
    for name in [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "consolidated.safetensors",
        "model-q4.gguf",
        INDEX_FILE,
        ".gitattributes",
    ] {
        fs::write(from.path().join(name), "{}").unwrap();
    }
    fs::create_dir(from.path().join("onnx")).unwrap();
    save(from.path(), &[], to.path()).unwrap();
    let mut copied = names(to.path());
    copied.retain(|name| name != CHECKSUMS_FILE);
    assert_eq!(copied, clean);
}

#[test]
fn a_copy_has_checksums_of_what_results_depend_on() {
    let (from, root) = (model("sharded"), tempdir().unwrap());
    for (name, text) in [
        ("README.md", "a description"),
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "x"),
    ] {
        fs::write(from.path().join(name), text).unwrap();
    }
    let to = root.path().join("model");
    save(from.path(), &[], &to).unwrap();
    Checkpoint::open(&to).unwrap();
    for name in names(&to) {
        let path = to.join(&name);
        let whole = fs::read(&path).unwrap();
        let mut spoiled = whole.clone();
        // A blank is no change to JSON.
        spoiled.push(b' ');
        fs::write(&path, spoiled).unwrap();
        match (&name[..], Checkpoint::open(&to)) {
            ("README.md", opened) => assert!(opened.is_ok()),
            (_, opened) => {
                let message = opened.expect_err(&name).to_string();
                assert!(message.contains(&name), "{message}");
            }
        }
        fs::write(&path, whole).unwrap();
    }
    // A list that lost its last line, and a file that is not there.
    let list = fs::read_to_string(to.join(CHECKSUMS_FILE)).unwrap();
    let (_, last) = list.trim_end().rsplit_once("  ").unwrap();
    let shorter = list.trim_end().rsplit_once('\n').unwrap().0;
    for (text, removed) in [(shorter, None), (&list, Some(last))] {
        fs::write(to.join(CHECKSUMS_FILE), text).unwrap();
        let kept = removed.map(|name| fs::read(to.join(name)).unwrap());
        if let Some(name) = removed {
            fs::remove_file(to.join(name)).unwrap();
        }
        let message = Checkpoint::open(&to).unwrap_err().to_string();
        let is_named = message.contains(CHECKSUMS_FILE) && message.contains(last);
        assert!(is_named, "{message}");
        if let Some(bytes) = kept {
            fs::write(to.join(last), bytes).unwrap();
        }
    }
    // A copy of a copy has a list of its own.
    let again = root.path().join("again");
    let delta = odd_delta(&to, FIRST);
    save(&to, &[(FIRST, &delta)], &again).unwrap();
    Checkpoint::open(&again).unwrap();
}

#[test]
fn templates_in_their_subfolder_come_along_and_are_covered() {
    const TOOLS: &str = "additional_chat_templates/tool_use.jinja";
    let (from, root) = (model("tied_gqa"), tempdir().unwrap());
    let [plain, with] = ["plain", "with"].map(|name| root.path().join(name));
    save(from.path(), &[], &plain).unwrap();
    let add = |folder: &Path| {
        fs::create_dir(folder.join("additional_chat_templates")).unwrap();
        fs::write(folder.join(TOOLS), "x").unwrap();
    };
    // Added to a list that was made without it.
    add(&plain);
    let message = Checkpoint::open(&plain).unwrap_err().to_string();
    assert!(
        message.contains(&format!("does not list `{TOOLS}`")),
        "{message}"
    );

    add(from.path());
    save(from.path(), &[], &with).unwrap();
    assert_eq!(fs::read(with.join(TOOLS)).unwrap(), b"x");
    Checkpoint::open(&with).unwrap();
    fs::write(with.join(TOOLS), "y").unwrap();
    let message = Checkpoint::open(&with).unwrap_err().to_string();
    assert!(message.contains(TOOLS), "{message}");
}

#[test]
fn a_folder_with_something_in_it_is_refused_and_left_as_it_is() {
    let (from, to) = (model("tied_gqa"), tempdir().unwrap());
    fs::write(to.path().join("mine"), "x").unwrap();
    let message = save(from.path(), &[], to.path()).unwrap_err().to_string();
    assert!(message.ends_with("the folder is not empty; give one that is, or a new one"));
    assert_eq!(names(to.path()), ["mine"]);
    let file = to.path().join("mine");
    let message = save(from.path(), &[], &file).unwrap_err().to_string();
    assert!(message.starts_with(file.to_str().unwrap()), "{message}");
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let (from, to) = (model("sharded"), tempdir().unwrap());
    let open = Checkpoint::open(from.path()).unwrap();
    // Gone after the shards were opened, needed when they are written.
    fs::remove_file(from.path().join(INDEX_FILE)).unwrap();
    let output = to.path().join("model");
    let saved = open.save_with_biases(&BTreeMap::new(), &output, &mut |_, _| {});
    assert!(saved.unwrap_err().to_string().contains(INDEX_FILE));
    assert!(names(to.path()).is_empty());
}

/// `untied_mha` as a model of another family: without biases, and without what only Qwen2 has.
fn without_biases(model_type: &str, class: &str) -> TempDir {
    let folder = model("untied_mha");
    let all = tensors(folder.path());
    let kept = all.iter().filter(|(name, _)| !name.ends_with(".bias"));
    let views = kept.map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let file = folder.path().join("model.safetensors");
    fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["model_type"] = json!(model_type);
    config["architectures"] = json!([format!("{class}ForCausalLM")]);
    config["attention_bias"] = json!(false);
    fs::write(&path, config.to_string()).unwrap();
    folder
}

#[test]
fn biases_are_found_under_other_names_and_f64_holds_every_sum() {
    let (from, to) = (model("tied_gqa"), tempdir().unwrap());
    let before = tensors(from.path());
    let renamed: BTreeMap<_, _> = before
        .iter()
        .map(|(name, (_, shape, _))| {
            let wide = widened(&before[name]).into_iter().map(f64::from);
            let bytes: Vec<u8> = wide.flat_map(f64::to_le_bytes).collect();
            let name = name.strip_prefix("model.").unwrap_or(name).to_owned();
            (name, (shape.clone(), bytes))
        })
        .collect();
    let views = renamed.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap();
        (name, view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(from.path().join("model.safetensors"), bytes).unwrap();
    let delta: Vec<f32> = widened(&before[FIRST]).iter().map(|_| 1e-3).collect();
    let copied = save(from.path(), &[(FIRST, &delta)], to.path()).unwrap();
    assert_eq!((copied.widened.len(), copied.added.len()), (0, 0));
    let after = tensors(to.path());
    assert!(after.keys().eq(renamed.keys()));
    let (found, old) = (&after[&FIRST["model.".len()..]], &before[FIRST]);
    assert_eq!(found.0, Dtype::F64);
    let sums = widened(old).into_iter().zip(&delta).map(|(a, b)| a + b);
    assert_eq!(widened(found), sums.collect::<Vec<f32>>());
    Checkpoint::open(to.path()).unwrap();
}
