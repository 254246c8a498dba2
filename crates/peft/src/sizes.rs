//! What fits: parameters into memory, and rows beside virtual tokens.

use burn_peft_decoder::DecoderConfig;

use crate::{Error, MethodConfig};

/// Parameter, gradient, two moments, and a copy that is on its way somewhere: five numbers of f32.
const BYTES_A_PARAMETER: usize = 20;
/// More than one machine has for an adapter.
pub(crate) const MOST_BYTES: u64 = 1 << 40;
/// The largest size of an option: products of three of them with sizes of a base are still numbers.
const MOST_UNITS: usize = 1 << 31;

/// Bytes in units of 2³⁰.
fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

/// The most tokens that a row can have beside so many virtual ones.
///
/// # Errors
/// Virtual tokens that leave no room for rows.
pub fn room_for_rows(virtual_tokens: usize, base: &DecoderConfig) -> Result<usize, Error> {
    let room = base.positions_left(virtual_tokens);
    // A row of two tokens is the shortest that teaches anything.
    if room < 2 {
        let positions = base.max_position_embeddings;
        return Err(Error::option(
            "num_virtual_tokens",
            format!("{virtual_tokens} leave no room for rows; the base has {positions} positions"),
        ));
    }
    Ok(room)
}

/// The line that PEFT's `print_trainable_parameters` prints.
#[must_use]
pub fn parameter_line(trainable: usize, all: usize) -> String {
    let share = 100.0 * trainable as f64 / all as f64;
    format!(
        "trainable params: {} || all params: {} || trainable%: {share:.4}",
        with_commas(trainable),
        with_commas(all)
    )
}

/// Digits in groups of three.
#[must_use]
pub fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl MethodConfig {
    /// Makes sure that the adapter can be trained in so many bytes of memory. Nothing is allocated for that.
    ///
    /// # Errors
    /// The option that makes it too large, by name.
    pub fn check_memory(&self, base: &DecoderConfig, memory: u64) -> Result<(), Error> {
        let sizes = self.sizes();
        let largest = sizes.iter().max_by_key(|(_, size)| *size);
        let (name, size) = largest.copied().unwrap_or(("type", 0));
        if size > MOST_UNITS {
            return Err(Error::option(
                name,
                format!("{size} is more than can be trained"),
            ));
        }
        let parameters = self.num_trainable(base);
        let bytes = parameters.saturating_mul(BYTES_A_PARAMETER);
        match bytes as u64 <= memory {
            true => Ok(()),
            false => Err(Error::option(
                name,
                format!(
                    "with {size}, there would be {} trainable parameters, which take {} GiB of memory; there are {}",
                    with_commas(parameters),
                    gib(bytes as u64),
                    gib(memory)
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EncoderReparameterizationType, PTuningConfig, PrefixTuningConfig, PromptTuningConfig,
    };

    #[test]
    fn the_parameter_line_is_pefts() {
        assert_eq!(
            parameter_line(15_360, 1_543_729_664),
            "trainable params: 15,360 || all params: 1,543,729,664 || trainable%: 0.0010"
        );
    }

    #[test]
    fn sizes_out_of_reach_are_refused_by_name_before_anything_is_made() {
        let base = DecoderConfig::named("qwen2.5-0.5b").expect("a known name");
        let lstm = PTuningConfig {
            encoder_reparameterization_type: EncoderReparameterizationType::Lstm,
            ..PTuningConfig::default()
        };
        for size in [1 << 28, 1_000_000_000, 1 << 62, usize::MAX] {
            let p_tuning = |lstm: PTuningConfig| MethodConfig::PTuning(lstm);
            let prefix = PrefixTuningConfig {
                encoder_hidden_size: Some(size),
                ..PrefixTuningConfig::default()
            };
            let prompt = PromptTuningConfig {
                num_virtual_tokens: Some(size),
                ..PromptTuningConfig::default()
            };
            for (method, name) in [
                (
                    p_tuning(PTuningConfig {
                        encoder_hidden_size: Some(size),
                        ..PTuningConfig::default()
                    }),
                    "encoder_hidden_size",
                ),
                (
                    p_tuning(PTuningConfig {
                        encoder_hidden_size: Some(size),
                        ..lstm.clone()
                    }),
                    "encoder_hidden_size",
                ),
                (
                    p_tuning(PTuningConfig {
                        encoder_num_layers: size,
                        ..lstm.clone()
                    }),
                    "encoder_num_layers",
                ),
                (MethodConfig::PrefixTuning(prefix), "encoder_hidden_size"),
                (MethodConfig::PromptTuning(prompt), "num_virtual_tokens"),
            ] {
                let checked = method.validate().and_then(|()| method.check_base(&base));
                let error = checked.expect_err(name).to_string();
                assert!(error.starts_with(&format!("method.{name}: ")), "{error}");
            }
        }
    }

    #[test]
    fn an_adapter_that_fits_no_memory_is_refused_with_both_sizes() {
        let base = DecoderConfig::named("qwen2.5-0.5b").expect("a known name");
        let method = MethodConfig::default();
        let needed = 20 * method.num_trainable(&base) as u64;
        method.check_memory(&base, needed).expect("it fits exactly");
        let error = method
            .check_memory(&base, needed - 1)
            .expect_err("one byte less");
        let expected =
            "method.num_virtual_tokens: with 20, there would be 17,920 trainable parameters";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
