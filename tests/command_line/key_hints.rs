//! What is said of keys that other programs have.

use super::*;

fn said(set: &[&str]) -> String {
    let mut command = burn_peft(&["train", "--no-tui", "--max-steps", "1"]);
    for set in set {
        command.args(["--set", set]);
    }
    refused(&mut command)
}

#[test]
fn a_hint_names_the_right_key_or_none() {
    for (key, hint) in [
        (
            "train.batch_size",
            "; did you mean `per_device_train_batch_size`?",
        ),
        ("train.bf16", "; did you mean `model.dtype`?"),
        ("train.max_seq_length", "; did you mean `data.max_length`?"),
        ("method.pre_seq_len", "; did you mean `num_virtual_tokens`?"),
        ("train.dtype", "; it belongs in [model]"),
        (
            "train.resume_from_checkpoint",
            "; there is a flag for it, --resume",
        ),
        ("train.packing", ""),
        ("method.lora_r", ""),
    ] {
        let line = said(&[&format!("{key}=1")]);
        let (section, key) = key.split_once('.').unwrap();
        let section = match section {
            "method" => "[method] of type prompt-tuning".to_owned(),
            other => format!("[{other}]"),
        };
        assert_eq!(
            line,
            format!("error: --set: {section} has no key `{key}`{hint}")
        );
    }
}

#[test]
fn the_flags_that_hints_name_are_there() {
    let help = succeed(&mut burn_peft(&["train", "--help"]));
    let help = String::from_utf8(help.stdout).unwrap();
    for (key, flag) in [
        ("resume_from_checkpoint", "--resume"),
        ("use_cpu", "--backend"),
    ] {
        assert!(said(&[&format!("train.{key}=true")]).ends_with(flag));
        assert!(help.contains(flag), "{flag}");
    }
}
