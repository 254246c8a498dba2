//! What a training step takes of memory, estimated before it is made.

use std::path::Path;

use burn::tensor::DType;
use burn_peft_decoder::DecoderConfig;

use crate::GradientCheckpointing;

/// What does not grow with the batch: a chunk of logits, the program, buffers of the matrix
/// multiplications.
const FIXED: usize = 1 << 28;

/// The sizes on which a step's memory depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Type of the base and of its states.
    pub dtype: DType,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Tokens of its longest row, virtual ones included.
    pub seq: usize,
}

impl StepSize {
    /// Bytes of a step on the CPU: the base, and the states that are kept for the backward pass. (Layers'
    /// inputs, queries, keys and values, gate and up; docs/performance.md has it next to measurements.)
    #[must_use]
    pub fn bytes(&self, base: &DecoderConfig, recompute: bool) -> usize {
        let width = self.dtype.size();
        let weights = base.num_parameters() * width;
        let input = base.hidden_size;
        let layer =
            2 * input + base.query_width() + 2 * base.kv_width() + 2 * base.intermediate_size;
        let layers = base.num_hidden_layers;
        let kept = match recompute {
            false => layers * layer,
            // Beside the inputs, one layer with its gradients.
            true => layers * input + 3 * layer,
        };
        let states = [self.batch, self.seq, kept, width];
        let states = states.into_iter().fold(1, usize::saturating_mul);
        states.saturating_add(weights + FIXED)
    }

    /// The most rows of a micro-batch whose step fits `memory`, in bytes; 0 where one row does not.
    #[must_use]
    pub fn largest_batch(&self, base: &DecoderConfig, recompute: bool, memory: u64) -> usize {
        let of = |batch| Self { batch, ..*self }.bytes(base, recompute) as u64;
        let (none, row) = (of(0), of(1) - of(0));
        let rows = usable(memory).saturating_sub(none) / row.max(1);
        usize::try_from(rows).unwrap_or(usize::MAX)
    }
}

/// What of a machine's memory a step may take: a tenth is left to everything else.
#[must_use]
pub(crate) fn usable(memory: u64) -> u64 {
    memory / 10 * 9
}

impl GradientCheckpointing {
    /// Whether a step recomputes. `memory`, in bytes, is what there is; `None` where that is unknown.
    #[must_use]
    pub fn decide(self, size: StepSize, base: &DecoderConfig, memory: Option<u64>) -> bool {
        match (self, memory) {
            (Self::Always, _) => true,
            (Self::Never, _) | (Self::Auto, None) => false,
            (Self::Auto, Some(memory)) => size.bytes(base, false) as u64 > usable(memory),
        }
    }
}

/// Bytes of memory that the process holds; `None` where the system does not say.
pub(crate) fn resident() -> Option<u64> {
    let status = match cfg!(target_os = "linux") {
        true => burn_peft_files::read_to_string(Path::new("/proc/self/status")).ok()?,
        false => return None,
    };
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = kilobytes.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1024 * kilobytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_recomputes_where_the_estimate_exceeds_the_memory() {
        let base = DecoderConfig::named("qwen2.5-0.5b").expect("a known name");
        let size = StepSize {
            dtype: DType::F32,
            batch: 4,
            seq: 276,
        };
        let needed = size.bytes(&base, false) as u64;
        let decide = |when: GradientCheckpointing, memory| when.decide(size, &base, memory);
        assert!(!decide(GradientCheckpointing::Auto, Some(needed * 2)));
        assert!(decide(GradientCheckpointing::Auto, Some(needed)));
        assert!(!decide(GradientCheckpointing::Auto, None));
        assert!(decide(GradientCheckpointing::Always, Some(u64::MAX)));
        assert!(!decide(GradientCheckpointing::Never, Some(0)));
        assert!(size.bytes(&base, true) < size.bytes(&base, false));
    }

    #[test]
    fn the_largest_batch_is_the_last_that_auto_does_not_recompute() {
        let base = DecoderConfig::named("qwen2.5-0.5b").expect("a known name");
        let size = StepSize {
            dtype: DType::F32,
            batch: 1,
            seq: 300,
        };
        let memory = 20 << 30;
        let batch = size.largest_batch(&base, false, memory);
        assert!(batch > 1);
        let recomputes = |batch| {
            let size = StepSize { batch, ..size };
            GradientCheckpointing::Auto.decide(size, &base, Some(memory))
        };
        assert!(!recomputes(batch) && recomputes(batch + 1));
        assert!(size.largest_batch(&base, true, memory) > batch);
        assert_eq!(size.largest_batch(&base, false, 1 << 20), 0);
    }
}
