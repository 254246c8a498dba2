//! Loading a checkpoint costs little more than the model itself.
//!
//! The peak of a process can only be read in a process of its own: the claim starts this test
//! program once more, for [`loads_the_checkpoint_it_is_given`] alone.

use std::{env, fs, fs::File, io::Write, path::Path, process::Command};

use burn::tensor::DType;
use burn_flex::Flex;
use burn_peft_decoder::{Checkpoint, DecoderConfig};
use serde_json::{Map, json};

const CHECKPOINT: &str = "BURN_PEFT_TEST_CHECKPOINT";
const DTYPE: &str = "BURN_PEFT_TEST_DTYPE";

/// A bf16 checkpoint of this shape with zeros for weights. The file is sparse: it takes no disk.
fn write_checkpoint(folder: &Path, config: &serde_json::Value) -> u64 {
    let text = config.to_string();
    fs::write(folder.join("config.json"), &text).unwrap();
    let config = DecoderConfig::parse(&text, "config.json").unwrap();
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in config.tensor_shapes() {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name,
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    let size = (8 + header.len() + end) as u64;
    file.set_len(size).unwrap();
    size
}

/// Peak resident size of a process that loads `folder`, in bytes.
fn peak_of_loading(folder: &Path, dtype: &str) -> u64 {
    let output = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "memory::loads_the_checkpoint_it_is_given",
            "--nocapture",
            "--ignored",
        ])
        .env(CHECKPOINT, folder)
        .env(DTYPE, dtype)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let peak = stdout
        .lines()
        .find_map(|line| line.split_once("peak: ")?.1.parse().ok());
    peak.unwrap_or_else(|| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
#[ignore = "no claim by itself: the others start it with a checkpoint"]
fn loads_the_checkpoint_it_is_given() {
    let folder = env::var(CHECKPOINT).unwrap();
    let dtype = match env::var(DTYPE).unwrap().as_str() {
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let checkpoint = Checkpoint::open(folder).unwrap();
    let model = checkpoint.load::<Flex>(dtype, &Default::default(), &mut |_, _| {});
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    println!("\npeak: {}", kib * 1024);
    drop(model);
}

#[test]
fn loading_peaks_at_little_more_than_the_model() {
    // A quarter of Qwen2.5-0.5B, with its proportions: 250 MB.
    let small = json!({
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 6, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "rope_theta": 1000000.0,
        "tie_word_embeddings": true, "vocab_size": 38000,
    });
    claim(&small);
}

#[test]
#[ignore = "takes 6 GiB of memory: Qwen2.5-1.5B's shape"]
fn loading_qwen_1_5b_peaks_at_little_more_than_the_model() {
    claim(&json!({
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "max_position_embeddings": 131072, "rope_theta": 1000000.0,
        "tie_word_embeddings": true, "vocab_size": 151936,
    }));
}

fn claim(config: &serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let size = write_checkpoint(folder.path(), config) as f64;
    for (dtype, limit) in [("bf16", 1.25), ("f32", 2.25)] {
        let ratio = peak_of_loading(folder.path(), dtype) as f64 / size;
        println!("{dtype}: {ratio:.3} of the file");
        assert!(ratio < limit, "as {dtype}: {ratio:.3} of the file");
    }
}
