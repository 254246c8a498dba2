//! How large the numbers of the embedding table are.

use half::{bf16, f16};
use safetensors::Dtype;

use super::Checkpoint;
use crate::{Error, weights};

/// Places of the table that are looked at, and bytes of each: enough for two digits, whatever the table's size.
const PLACES: usize = 64;
const BYTES: usize = 1 << 14;

impl Checkpoint {
    /// The root mean square of the embedding table's numbers, of a part of them that is spread over the table.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn embedding_rms(&self) -> Result<f64, Error> {
        let (file, info) = self.find(weights::EMBED_TOKENS);
        let range = file.range(info);
        let size = match info.dtype {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            _ => 2,
        };
        let (mut sum, mut count) = (0.0, 0_usize);
        let mut buffer = vec![0; BYTES.min(range.len() / size * size)];
        for place in 0..PLACES {
            let room = range.len() - buffer.len();
            // Whole numbers from their first byte on.
            let start = room / size * place / (PLACES - 1) * size;
            file.read_at(&mut buffer, (range.start + start) as u64)?;
            for bytes in buffer.chunks_exact(size) {
                let value = match (info.dtype, bytes) {
                    (Dtype::F16, &[a, b]) => f64::from(f16::from_le_bytes([a, b])),
                    (_, &[a, b]) => f64::from(bf16::from_le_bytes([a, b])),
                    (_, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
                    (_, bytes) => bytes.try_into().map_or(0.0, f64::from_le_bytes),
                };
                sum += value * value;
                count += 1;
            }
        }
        Ok((sum / count.max(1) as f64).sqrt())
    }
}
