//! Checkpoints of the fixture models, whole and spoiled.

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::DType;
use burn_flex::Flex;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;

/// A copy of a fixture model, to be spoiled.
pub(super) fn model(name: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    let folder = tempdir().unwrap();
    for entry in fs::read_dir(from.join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// Name, and type, shape and bytes of a tensor.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn edit_weights(path: &Path, edit: impl FnOnce(&mut Tensors)) {
    let bytes = fs::read(path).unwrap();
    let mut tensors: Tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
        let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        tensors.insert(name.into(), tensor);
    }
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn fingerprint(folder: &TempDir) -> Checksum {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let fingerprint = checkpoint.fingerprint().unwrap();
    assert_eq!(checkpoint.fingerprint().unwrap(), fingerprint);
    fingerprint
}

fn load(folder: &TempDir) -> Result<Decoder<Flex>, Error> {
    Checkpoint::open(folder)?.load(DType::F32, &Default::default(), &mut |_, _| {})
}

fn error(folder: &TempDir) -> String {
    let error = load(folder).expect_err("it is spoiled").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_fingerprint_does_not_depend_on_files_and_descriptions() {
    let (one, other) = (model("tied_gqa"), model("tied_gqa"));
    let found = fingerprint(&one);
    // Two files instead of one, and what no number of the model depends on.
    let path = other.path();
    let (mut first, mut second) = (Tensors::new(), Tensors::new());
    edit_weights(&path.join(SINGLE_FILE), |all| {
        for (index, (name, tensor)) in all.clone().into_iter().enumerate() {
            let half = if index % 2 == 0 {
                &mut first
            } else {
                &mut second
            };
            half.insert(name, tensor);
        }
    });
    let mut map = BTreeMap::new();
    for (name, half) in [("1.safetensors", first), ("2.safetensors", second)] {
        map.extend(half.keys().map(|tensor| (tensor.clone(), name)));
        fs::copy(path.join(SINGLE_FILE), path.join(name)).unwrap();
        edit_weights(&path.join(name), |all| *all = half);
    }
    fs::remove_file(path.join(SINGLE_FILE)).unwrap();
    fs::write(
        path.join(INDEX_FILE),
        json!({"weight_map": map}).to_string(),
    )
    .unwrap();
    edit_json(&path.join(CONFIG_FILE), |config| {
        config["transformers_version"] = json!("0");
        config["max_position_embeddings"] = json!(7);
    });
    assert_eq!(fingerprint(&other), found);
}

#[test]
fn a_fingerprint_depends_on_every_number_and_on_what_is_done_with_them() {
    let whole = fingerprint(&model("tied_gqa"));
    let mut seen = vec![whole];
    for key in ["rope_theta", "rms_norm_eps"] {
        let folder = model("tied_gqa");
        edit_json(&folder.path().join(CONFIG_FILE), |config| {
            config.as_object_mut().unwrap().remove("rope_parameters");
            config[key] = json!(0.25);
        });
        seen.push(fingerprint(&folder));
    }
    for name in [weights::EMBED_TOKENS, weights::NORM] {
        let folder = model("tied_gqa");
        edit_weights(&folder.path().join(SINGLE_FILE), |tensors| {
            let (_, _, bytes) = tensors.get_mut(name).unwrap();
            // The last bit of the first number.
            bytes[0] ^= 1;
        });
        seen.push(fingerprint(&folder));
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn a_stored_head_is_the_table_only_where_it_equals_it() {
    let tied = fingerprint(&model("tied_gqa"));
    let with_head = |change: fn(&mut Vec<u8>)| {
        let folder = model("tied_gqa");
        edit_weights(&folder.path().join(SINGLE_FILE), |tensors| {
            let mut head = tensors[weights::EMBED_TOKENS].clone();
            change(&mut head.2);
            tensors.insert(weights::LM_HEAD.into(), head);
        });
        folder
    };
    let same = with_head(|_| ());
    assert!(
        Checkpoint::open(&same)
            .unwrap()
            .config()
            .tie_word_embeddings
    );
    assert_eq!(fingerprint(&same), tied);
    let other = with_head(|bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(
        !Checkpoint::open(&other)
            .unwrap()
            .config()
            .tie_word_embeddings
    );
    assert_ne!(fingerprint(&other), tied);

    // As transformers 5 does: where one of the two is missing, it is the other.
    let only_head = model("tied_gqa");
    edit_weights(&only_head.path().join(SINGLE_FILE), |tensors| {
        let table = tensors.remove(weights::EMBED_TOKENS).unwrap();
        tensors.insert(weights::LM_HEAD.into(), table);
    });
    load(&only_head).unwrap();
    assert_eq!(fingerprint(&only_head), tied);
}

#[test]
fn weights_that_are_shortened_after_they_were_opened_are_named() {
    let folder = model("tied_gqa");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let path = folder.path().join(SINGLE_FILE);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(checkpoint.size() / 2).unwrap();
    let loaded = checkpoint.load::<Flex>(DType::F32, &Default::default(), &mut |_, _| {});
    for error in [loaded.unwrap_err(), checkpoint.fingerprint().unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains(SINGLE_FILE), "{error}");
        assert!(
            error.contains("became shorter while it was read"),
            "{error}"
        );
    }
}

#[test]
fn a_number_that_is_not_finite_is_named_by_its_tensor() {
    for bytes in [f32::NAN, f32::INFINITY].map(f32::to_le_bytes) {
        let folder = model("tied_gqa");
        edit_weights(&folder.path().join(SINGLE_FILE), |tensors| {
            let (dtype, _, values) = tensors.get_mut(weights::NORM).unwrap();
            assert_eq!(*dtype, Dtype::F32);
            let last = values.len() - 4;
            values[last..].copy_from_slice(&bytes);
        });
        let error = error(&folder);
        assert!(
            error.contains("tensor `model.norm.weight` holds NaN or infinity"),
            "{error}"
        );
    }
}

#[test]
fn a_spoiled_weights_file_is_refused_in_plain_words() {
    type Spoil = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Spoil); 7] = [
        ("it has only 5 bytes", |whole| whole[..5].to_vec()),
        ("it has only 0 bytes", |_| Vec::new()),
        ("it ends within its header", |whole| whole[..100].to_vec()),
        ("its header says", |whole| whole[..whole.len() - 1].to_vec()),
        ("no length of a header", |whole| {
            [&[255; 8], &whole[8..]].concat()
        }),
        ("its header is not JSON", |whole| {
            [&whole[..9], b"x", &whole[10..]].concat()
        }),
        ("its header is not text", |whole| {
            [&whole[..9], b"\xff", &whole[10..]].concat()
        }),
    ];
    for (reason, spoil) in cases {
        let folder = model("tied_gqa");
        let path = folder.path().join(SINGLE_FILE);
        fs::write(&path, spoil(&fs::read(&path).unwrap())).unwrap();
        let error = error(&folder);
        assert!(
            error.contains(SINGLE_FILE) && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn an_index_names_files_of_its_own_folder_only() {
    for name in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "",
        ".",
        "./a",
        "a/",
    ] {
        let folder = model("sharded");
        edit_json(&folder.path().join(INDEX_FILE), |index| {
            index["weight_map"][weights::NORM] = json!(name);
        });
        let error = error(&folder);
        assert!(error.contains(&format!("it names `{name}`")), "{error}");
    }
    let folder = model("sharded");
    edit_json(&folder.path().join(INDEX_FILE), |index| {
        index["weight_map"] = json!(3)
    });
    assert!(error(&folder).contains("it is not an index of weights"));
}

#[test]
fn a_folder_in_place_of_a_file_is_named() {
    for name in [SINGLE_FILE, CONFIG_FILE] {
        let folder = model("tied_gqa");
        fs::remove_file(folder.path().join(name)).unwrap();
        fs::create_dir(folder.path().join(name)).unwrap();
        assert!(error(&folder).contains(name));
    }
}

#[test]
fn a_message_has_the_first_of_many_differences() {
    let folder = model("tied_gqa");
    edit_json(&folder.path().join(CONFIG_FILE), |config| {
        config["intermediate_size"] = json!(3)
    });
    let error = error(&folder);
    assert!(
        error.contains("down_proj") && error.contains("; … and "),
        "{error}"
    );
    assert!(error.len() < 1000, "{error}");
}

#[test]
fn tensors_are_found_under_the_names_that_transformers_knows() {
    let plain = fingerprint(&model("untied_mha"));
    let renamed = |rename: &dyn Fn(&str) -> String| {
        let folder = model("untied_mha");
        edit_weights(&folder.path().join(SINGLE_FILE), |tensors| {
            let all = std::mem::take(tensors).into_iter();
            tensors.extend(all.map(|(name, tensor)| (rename(&name), tensor)));
        });
        folder
    };
    let without = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
    let twice = |name: &str| format!("model.{name}");
    let one = |name: &str| match name == weights::NORM {
        true => without(name),
        false => name.to_owned(),
    };
    for rename in [&without as &dyn Fn(&str) -> String, &twice, &one] {
        let folder = renamed(rename);
        assert_eq!(fingerprint(&folder), plain);
        assert_eq!(Checkpoint::open(&folder).unwrap().notes(), [""; 0]);
        load(&folder).unwrap();
    }
    let other = renamed(&|name| format!("base_model.model.{name}"));
    assert!(error(&other).contains("tensor `lm_head.weight` is missing"));
}

#[test]
fn tensors_that_the_model_does_not_have_are_ignored_and_named() {
    let folder = model("tied_gqa");
    let plain = fingerprint(&folder);
    let names = ["score.weight", "foo.bar", "lm_head.bias", "norm.weight"];
    edit_weights(&folder.path().join(SINGLE_FILE), |tensors| {
        for name in names {
            tensors.insert(name.into(), (Dtype::I64, vec![1], vec![1; 8]));
        }
        let redundant = "model.layers.0.self_attn.rotary_emb.inv_freq";
        tensors.insert(redundant.into(), (Dtype::F32, vec![1], vec![1; 4]));
    });
    assert_eq!(fingerprint(&folder), plain);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let [note] = checkpoint.notes() else {
        panic!("one note: {:?}", checkpoint.notes());
    };
    let expected = "tensors that the model does not have are ignored: `foo.bar`, `lm_head.bias`, `norm.weight`, \
                    `score.weight`";
    assert!(note.ends_with(expected), "{note}");
}

#[test]
fn weights_in_f64_are_those_in_f32() {
    let (folder, wide) = (model("tied_gqa"), model("tied_gqa"));
    edit_weights(&wide.path().join(SINGLE_FILE), |tensors| {
        for (dtype, _, bytes) in tensors.values_mut() {
            assert_eq!(*dtype, Dtype::F32);
            let (values, _) = bytes.as_chunks::<4>();
            let values = values.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
            *bytes = values.flat_map(f64::to_le_bytes).collect();
            *dtype = Dtype::F64;
        }
    });
    let table = |folder: &TempDir| {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let (file, info) = checkpoint.find(weights::EMBED_TOKENS);
        file.read(weights::EMBED_TOKENS, info, DType::F32).unwrap()
    };
    assert_eq!(table(&wide), table(&folder));
    load(&wide).unwrap();
}

#[test]
fn a_head_that_contradicts_the_configuration_is_noted() {
    let folder = model("untied_mha");
    edit_json(&folder.path().join(CONFIG_FILE), |config| {
        config["tie_word_embeddings"] = json!(true);
    });
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let notes = checkpoint.notes();
    assert!(notes.len() == 1 && notes[0].contains("`lm_head.weight` is not the embedding table"));
}

/// As in transformers, which reads config.json then.
#[test]
fn a_broken_generation_configuration_is_ignored_and_noted() {
    for text in [&b""[..], b"{", b"\xef\xbb\xbf{}", b"{\"a\": \"\xff\"}"] {
        let folder = model("tied_gqa");
        fs::write(folder.path().join(GENERATION_FILE), text).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.generation_config().stop_ids, [314]);
        let notes = checkpoint.notes();
        assert!(notes.len() == 1 && notes[0].contains("it is not JSON, and is ignored"));
    }
}
