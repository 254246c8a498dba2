//! `config.json` and `generation_config.json`.
#![no_main]

use burn_peft::MethodConfig;
use burn_peft_decoder::{DecoderConfig, GenerationConfig, GenerationOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(config) = DecoderConfig::parse(text, "config.json") {
        let _ = (config.num_parameters(), config.tensor_shapes().len());
        for method in MethodConfig::all() {
            if method.check_base(&config).is_ok() {
                let _ = method.num_trainable(&config);
            }
        }
    }
    if let Ok(config) = GenerationConfig::parse(text, "generation_config.json") {
        let _ = GenerationOptions::from_config(&config, 4);
    }
});
