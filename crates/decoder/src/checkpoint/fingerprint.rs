//! What tells one base from another.

use std::{collections::BTreeMap, fmt::Write};

use burn_peft_files::Checksum;
use rayon::prelude::*;

use super::{Checkpoint, file::PIECE};
use crate::{DecoderConfig, Error, LayerModule};

/// Begins the text that is hashed. A change of what is hashed, or how, needs another number.
const VERSION: &str = "burn-peft base 1";

impl Checkpoint {
    /// A fingerprint of the function that the checkpoint is: 32 hexadecimal digits, XXH3 of 128 bits.
    ///
    /// It is over what decides the function in the configuration (family, sizes, epsilon, rotary embedding), and
    /// over name, type, shape and bytes of every tensor that is used. So it stays the same when a checkpoint is
    /// sharded otherwise, renamed, or described otherwise, and when a head that is the embedding table is stored
    /// or left out. The same numbers in another type are another base. What a model is asked to do (generation,
    /// tokenizer, the number of its positions) is no part of it.
    ///
    /// The weights are read once, on all threads; later calls return the same value.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn fingerprint(&self) -> Result<Checksum, Error> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(*known);
        }
        let computed = self.hash()?;
        Ok(*self.fingerprint.get_or_init(|| computed))
    }

    fn hash(&self) -> Result<Checksum, Error> {
        let tensors: BTreeMap<_, _> = self.config.tensor_shapes().into_iter().collect();
        // Pieces are hashed in parallel and put together in the order of names.
        let mut jobs = Vec::new();
        for (index, name) in tensors.keys().enumerate() {
            let (file, info) = self.find(name);
            let range = file.range(info);
            let starts = range.clone().step_by(PIECE);
            jobs.extend(starts.map(|start| (index, file, start..range.end.min(start + PIECE))));
        }
        let pieces = jobs.into_par_iter().map_init(
            || vec![0; PIECE],
            |buffer, (index, file, range)| {
                let piece = &mut buffer[..range.len()];
                file.read_at(piece, range.start as u64)?;
                Ok((index, Checksum::of(piece)))
            },
        );
        let pieces: Vec<(usize, Checksum)> = pieces.collect::<Result<_, Error>>()?;
        let mut pieces = pieces.into_iter().peekable();
        let mut text = format!("{VERSION}\n{}\n", function(&self.config));
        for (index, (name, shape)) in tensors.iter().enumerate() {
            let (_, info) = self.find(name);
            let _ = write!(text, "{name} {} {shape:?}", info.dtype);
            while let Some((_, checksum)) = pieces.next_if(|(of, _)| *of == index) {
                let _ = write!(text, " {checksum}");
            }
            text.push('\n');
        }
        Ok(Checksum::of(text.as_bytes()))
    }
}

/// What of the configuration decides the function, as text. Numbers are given to the last bit.
fn function(config: &DecoderConfig) -> String {
    let DecoderConfig {
        family,
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        rms_norm_eps,
        rope_theta,
        rope_scaling,
        max_position_embeddings: _,
        tie_word_embeddings,
        biases,
        dtype: _,
    } = config;
    let biases: Vec<&str> = biases
        .iter()
        .map(|module| LayerModule::name(*module))
        .collect();
    let mut text = format!(
        "{} vocab {vocab_size} hidden {hidden_size} inner {intermediate_size} layers {num_hidden_layers} \
         heads {num_attention_heads}/{num_key_value_heads} of {head_dim} eps {:x} theta {:x} \
         tied {tie_word_embeddings} biases {biases:?}",
        family.model_type(),
        rms_norm_eps.to_bits(),
        rope_theta.to_bits(),
    );
    if let Some(scaling) = rope_scaling {
        let _ = write!(
            text,
            " llama3 {:x} {:x} {:x} {}",
            scaling.factor.to_bits(),
            scaling.low_freq_factor.to_bits(),
            scaling.high_freq_factor.to_bits(),
            scaling.original_max_position_embeddings,
        );
    }
    text
}
