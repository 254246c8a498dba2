//! Measurements: that they are made of what was asked, not how they come out.

use serde_json::json;

use super::*;

/// The built-in model's shape, from its folder.
const SHAPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/model");

fn bench(args: &[&str]) -> Value {
    let shape = [
        "bench", "--json", "--shape", SHAPE, "--batch", "2", "--seq", "16",
    ];
    let output = succeed(burn_peft(&shape).args(args));
    let mut lines = lines(&output);
    assert_eq!(lines.len(), 1, "one object");
    lines.remove(0)
}

#[test]
fn a_step_of_every_method_is_timed_with_and_without_recomputation() {
    for (method, tokens) in [
        ("bitfit", 0),
        ("prompt-tuning", 3),
        ("p-tuning", 3),
        ("prefix-tuning", 3),
        ("p-tuning-v2", 3),
    ] {
        let size = ["--labels", "4", "--virtual-tokens", "3", "--steps", "2"];
        let mut args = vec!["--method", method];
        args.extend(size);
        let plain = bench(&args);
        args.push("--recompute");
        let again = bench(&args);
        for (report, recompute) in [(&plain, false), (&again, true)] {
            assert_eq!(report["method"], method);
            assert_eq!(report["virtual_tokens"], tokens);
            assert_eq!(report["recompute"], recompute);
            assert_eq!((&report["batch"], &report["seq"]), (&json!(2), &json!(16)));
            let number = |key: &str| report[key].as_f64().unwrap();
            assert!(number("step_min_s") <= number("step_s"));
            assert!(number("step_s") <= number("step_max_s"));
            // Batch times tokens a row, virtual ones not counted.
            let tokens = number("tokens_per_s") * number("step_s");
            assert!((tokens - 32.0).abs() < 1e-6, "{tokens}");
            assert!(number("trainable") > 0.0);
            #[cfg(unix)]
            assert!(number("peak_gib") > 0.0);
        }
        assert_eq!(plain["trainable"], again["trainable"]);
    }
}

#[test]
fn decoding_is_timed_token_by_token() {
    let report = bench(&["--new-tokens", "5", "--dtype", "bf16"]);
    assert_eq!(report["new_tokens"], 5);
    assert_eq!(report["dtype"], "bf16");
    let rows = report["tokens_per_s"].as_f64().unwrap() * report["token_s"].as_f64().unwrap();
    assert!((rows - 2.0).abs() < 1e-6, "{rows}");
}
