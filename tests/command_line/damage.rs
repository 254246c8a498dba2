//! Damaged checkpoints.

use std::fs;

use super::{
    refused,
    short_run::{adapter, metrics, place, train},
    succeed,
};

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_taken() {
    let (_folder, data, output) = place(20);
    let more = ["--max-steps", "12"];
    succeed(&mut train(&data, &output, &more));
    let (whole, records) = (adapter(&output), metrics(&output));
    let file = output.join("checkpoints/step-12/optimizer.mpk");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&file, bytes).unwrap();
    let resumed = succeed(&mut train(
        &data,
        &output,
        &[&more[..], &["--resume"]].concat(),
    ));
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("step-12/optimizer.mpk"), "{said}");
    assert!(said.contains("resuming at step 8"), "{said}");
    assert_eq!((adapter(&output), metrics(&output)), (whole, records));

    for step in [4, 8, 12] {
        fs::remove_file(output.join(format!("checkpoints/step-{step}/model.mpk"))).unwrap();
    }
    let line = refused(&mut train(
        &data,
        &output,
        &[&more[..], &["--resume"]].concat(),
    ));
    assert!(line.contains("step-12/model.mpk"), "{line}");
}

#[test]
fn a_checkpoint_under_another_steps_name_is_refused() {
    let (_folder, data, output) = place(20);
    succeed(&mut train(&data, &output, &["--max-steps", "4"]));
    let checkpoints = output.join("checkpoints");
    fs::rename(checkpoints.join("step-4"), checkpoints.join("step-6")).unwrap();
    let line = refused(&mut train(
        &data,
        &output,
        &["--max-steps", "8", "--resume"],
    ));
    assert!(line.contains("step 4") && line.contains("step 6"), "{line}");
}

#[test]
fn a_damaged_later_checkpoint_takes_no_place_of_a_whole_one() {
    let (_folder, data, output) = place(20);
    succeed(&mut train(&data, &output, &["--max-steps", "8"]));
    let later = output.join("checkpoints/step-8/model.mpk");
    fs::write(&later, "damaged").unwrap();
    let more = [
        "--resume",
        "--max-steps",
        "6",
        "--set",
        "train.save_total_limit=1",
    ];
    succeed(&mut train(&data, &output, &more));
    let resumed = succeed(&mut train(&data, &output, &more));
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(said.contains("resuming at step 6"), "{said}");
}
