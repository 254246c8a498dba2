//! A training checkpoint: its state, and behind that the adapter's record.
#![no_main]

use std::sync::LazyLock;

use burn::tensor::DType;
use burn_flex::Flex;
use burn_peft::MethodConfig;
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::Decoder;
use burn_peft_files::{CHECKSUMS_FILE, Checksum, Checksums};
use burn_peft_fuzz::{model, put, scratch, two_parts};
use burn_peft_train::Checkpoint;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(scratch);
static BASE: LazyLock<(Decoder<Flex>, TextTokenizer)> = LazyLock::new(|| {
    let file = model("config.json");
    let folder = file.parent().expect("a folder");
    let base = burn_peft_decoder::Checkpoint::open(folder).expect("the fixture");
    let base = base.load(DType::F32, &Default::default(), &mut |_, _| {});
    (
        base.expect("its weights"),
        TextTokenizer::load(folder).expect("its tokenizer"),
    )
});

fuzz_target!(|data: &[u8]| {
    let Some((state, record)) = two_parts(data) else {
        return;
    };
    let folder = FOLDER.path();
    let mut checksums = Checksums::new();
    for (name, bytes) in [
        ("trainer_state.json", state),
        ("model.mpk", record),
        ("optimizer.mpk", b""),
        ("scheduler.mpk", b""),
    ] {
        put(folder, name, bytes);
        checksums.insert(name, Checksum::of(bytes));
    }
    put(folder, CHECKSUMS_FILE, checksums.to_text().as_bytes());
    let Ok(checkpoint) = Checkpoint::open(folder) else {
        return;
    };
    let (base, tokenizer) = &*BASE;
    let _ = checkpoint.load_adapter(&MethodConfig::default(), base.clone(), tokenizer);
});
