//! What `train --help` says of the options of the methods.

/// Every option of every method. They are set as `--set method.KEY=VALUE`, or in `[method]` of run.toml.
pub(crate) const OPTIONS: &str = "\
Options of the methods, as --set method.KEY=VALUE or in [method] of run.toml:

  prompt-tuning
    num_virtual_tokens         tokens of the prompt [default: 20, or the text's with TEXT]
    prompt_tuning_init         SAMPLE_VOCAB (default), RANDOM, TEXT or CLASS_LABELS
    prompt_tuning_init_text    the text of TEXT
    prompt_tuning_init_labels  the labels of CLASS_LABELS, as [\"yes\", \"no\"]
    random_init                scaled (default), or normal for PEFT's N(0, 1)
    init_from                  folder of an adapter to start from
  p-tuning
    num_virtual_tokens         virtual tokens [default: 20]
    encoder_reparameterization_type  MLP (default) or LSTM
    encoder_hidden_size        width of the encoder [default: the model's]
    encoder_num_layers         layers of the LSTM [default: 2]
    encoder_dropout            between layers of the LSTM [default: 0]
    lstm_half_width            true: half the width in each direction, as in the paper
  prefix-tuning
    num_virtual_tokens         length of the prefix [default: 20, or the text's with text]
    prefix_projection          false: keys and values without the MLP
    encoder_hidden_size        width of the MLP [default: that of a layer's keys]
    prefix_heads               kv (default), or attention: a prefix for every query head
    init_weights               sample_vocab (default), text, zero or random
    prefix_init_text           the text of init_weights=text
    prefix_dropout             on keys and values in training [default: 0]
  p-tuning-v2
    num_virtual_tokens         length of the prompt [default: 20, or the text's with text]
    layers                     [FIRST, LAST] of those that get a prompt [default: all]
    prefix_heads, init_weights, prefix_init_text, prefix_dropout
                               as for prefix-tuning
    init_from                  folder of an adapter to start from
  bitfit
    target_modules             of q_proj, k_proj, v_proj (the default), o_proj, gate_proj, up_proj,
                               down_proj, input_layernorm, post_attention_layernorm
    layers                     [FIRST, LAST] of those whose biases train [default: all]
    init_from                  folder of an adapter to start from

docs/methods has a page for each.";

#[cfg(test)]
mod tests {
    use burn_peft::MethodConfig;
    use burn_peft_train::method_keys;

    #[test]
    fn the_help_has_every_option_of_every_method() {
        let sections: Vec<&str> = super::OPTIONS.split("\n  ").collect();
        for method in MethodConfig::NAMES {
            let start = sections.iter().position(|line| line == method);
            let start = start.unwrap_or_else(|| panic!("{method} is missing"));
            let section = &sections[start + 1..];
            let end = section
                .iter()
                .position(|line| MethodConfig::NAMES.contains(line));
            let section = section[..end.unwrap_or(section.len())].join("\n");
            for key in method_keys(method) {
                let words = || section.split(|c: char| !c.is_alphanumeric() && c != '_');
                assert!(
                    words().any(|word| word == key),
                    "{method}: {key} is missing"
                );
            }
        }
    }
}
