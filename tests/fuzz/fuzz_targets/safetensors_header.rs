//! The header of a model's weights, with as many bytes behind it as it asks for.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use burn::tensor::DType;
use burn_flex::Flex;
use burn_peft_decoder::Checkpoint;
use burn_peft_fuzz::{model, put, scratch};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// More than the fixture's weights.
const LARGEST: usize = 1 << 20;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = scratch();
    let config = fs::read(model("config.json")).expect("the fixture's configuration");
    put(folder.path(), "config.json", &config);
    folder
});

fuzz_target!(|header: &[u8]| {
    // The largest number in it is where the last tensor ends, if it is a header at all.
    let numbers = header.split(|byte| !byte.is_ascii_digit());
    let numbers = numbers.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let body: usize = numbers.max().unwrap_or(0);
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], header, &vec![0; body.min(LARGEST)]].concat();
    put(FOLDER.path(), "model.safetensors", &bytes);
    let Ok(checkpoint) = Checkpoint::open(FOLDER.path()) else {
        return;
    };
    checkpoint.fingerprint().expect("what opens can be read");
    let loaded = checkpoint.load::<Flex>(DType::F32, &Default::default(), &mut |_, _| {});
    loaded.expect("what opens can be loaded");
});
