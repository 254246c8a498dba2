//! `run.toml`: what is read can be written, and is then the same run.
#![no_main]

use burn_peft_train::{Plan, RunConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = RunConfig::parse(text, "run.toml", &[]) else {
        return;
    };
    let written = config.to_toml().expect("what is read can be written");
    let again = RunConfig::parse(&written, "again", &[]).expect("what is written can be read");
    assert_eq!(again.to_toml().expect("again"), written);
    for rows in [1, 1000] {
        let plan = Plan::new(&config.train, rows);
        let _ = (plan.epochs(), plan.position(plan.total_steps));
    }
});
