//! Tokens that a copy has and the original has not.

use super::*;
use crate::{NewTokens, SideFiles};

#[test]
fn new_rows_stand_behind_the_old_ones_and_the_head_apart() {
    for name in ["tied_gqa", "sharded", "untied_mha"] {
        let (from, root) = (model(name), tempdir().unwrap());
        let to = root.path().join("model");
        let open = Checkpoint::open(from.path()).unwrap();
        let (rows, width) = (open.config().vocab_size, open.config().hidden_size);
        // A number that bf16 does not hold: a table of that type becomes F32.
        let tokens = |exact| NewTokens {
            first_id: rows - 1,
            embeddings: vec![1.0 + 2f32.powi(-20); 3 * width],
            head: vec![-0.5; 3 * width],
            exact,
        };
        open.save_with_tokens(&tokens(true), SideFiles::default(), &to, &mut |_, _| {})
            .unwrap();
        // It opens, so names, shapes, index and checksums fit each other.
        let copy = Checkpoint::open(&to).unwrap();
        assert_eq!(copy.config().vocab_size, rows + 2, "{name}");
        assert!(!copy.config().tie_word_embeddings);
        let (before, after) = (tensors(from.path()), tensors(&to));
        let old =
            |tensor: &(Dtype, Vec<usize>, Vec<u8>)| widened(tensor)[..(rows - 1) * width].to_vec();
        let table = before
            .keys()
            .find(|name| name.ends_with("embed_tokens.weight"));
        let table = table.unwrap();
        let head = before.get("lm_head.weight").unwrap_or(&before[table]);
        assert_eq!(old(&after[table]), old(&before[table]), "{name}");
        assert_eq!(old(&after["lm_head.weight"]), old(head), "{name}");
        let new = &widened(&after[table])[(rows - 1) * width..];
        assert_eq!(new, tokens(true).embeddings, "{name}");
        assert_eq!(
            after["lm_head.weight"].0, head.0,
            "{name}: the head keeps its type"
        );
        let rounded = root.path().join("rounded");
        open.save_with_tokens(
            &tokens(false),
            SideFiles::default(),
            &rounded,
            &mut |_, _| {},
        )
        .unwrap();
        assert_eq!(tensors(&rounded)[table].0, before[table].0, "{name}");
    }
}
