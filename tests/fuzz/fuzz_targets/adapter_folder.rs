//! Both files of an adapter folder: the configuration, and behind it the weights.
#![no_main]

use std::sync::LazyLock;

use burn_flex::Flex;
use burn_peft_decoder::{Checkpoint, DecoderConfig};
use burn_peft_format::{AdapterFolder, adapter_from_folder, head_from_folder};
use burn_peft_fuzz::{model, put, scratch, two_parts};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(scratch);
static BASE: LazyLock<DecoderConfig> = LazyLock::new(|| {
    let folder = model("config.json");
    Checkpoint::read_config(folder.parent().expect("a folder"))
        .expect("the fixture's configuration")
});

fuzz_target!(|data: &[u8]| {
    let Some((config, weights)) = two_parts(data) else {
        return;
    };
    let folder = FOLDER.path();
    put(folder, "adapter_config.json", config);
    put(folder, "adapter_model.safetensors", weights);
    let Ok(found) = AdapterFolder::load(folder) else {
        return;
    };
    let _ = (
        found.config.notes(),
        found.modules(),
        found.labels(),
        found.check_values(folder),
    );
    if found.check(&BASE, folder).is_ok() {
        let device = Default::default();
        let adapter = adapter_from_folder::<Flex>(&found, &BASE, folder, &device);
        let head = head_from_folder::<Flex>(&found, &BASE, folder, &device);
        assert!(
            (adapter.is_ok() && head.is_ok()) || found.check_values(folder).is_err(),
            "what fits loads"
        );
    }
    // What is read can be written, and what is written can be read.
    let json = found.config.to_json();
    let again = burn_peft_format::AdapterConfig::parse(json.as_bytes(), folder);
    assert!(again.is_ok(), "{again:?}: {json}");
});
