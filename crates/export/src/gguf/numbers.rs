//! The number types of tensors.

use half::{bf16, f16};

/// Values that share one scale in Q8_0.
pub(super) const BLOCK: usize = 32;

/// The number type of a matrix in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE's.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32 whole numbers of 8 bits with an F16 scale.
    Q8_0,
}

impl GgufType {
    /// ggml's number of the type.
    pub(super) fn type_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// llama.cpp's number of a file whose matrices have the type, `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// The type of a tensor of this shape in a file of this type: vectors are F32, and rows that are no whole blocks F16.
    pub(super) fn of_tensor(self, shape: &[usize]) -> Self {
        match (self, shape) {
            (_, [_]) => Self::F32,
            (Self::Q8_0, [.., width]) if !width.is_multiple_of(BLOCK) => Self::F16,
            _ => self,
        }
    }

    /// Bytes of a tensor of so many values.
    pub(super) fn bytes_of(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::F16 | Self::Bf16 => 2 * values,
            Self::Q8_0 => values / BLOCK * (2 + BLOCK),
        }
    }

    /// The bytes of values; of Q8_0, whole blocks. `None` if one of them is too large for the type.
    pub(super) fn encode(self, values: &[f32]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes_of(values.len()));
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16 => {
                for value in values.iter().map(|value| bf16::from_f32(*value)) {
                    bytes.extend(value.is_finite().then_some(value.to_le_bytes())?);
                }
            }
            Self::F16 => {
                for value in values.iter().map(|value| f16::from_f32(*value)) {
                    bytes.extend(value.is_finite().then_some(value.to_le_bytes())?);
                }
            }
            Self::Q8_0 => {
                for block in values.chunks(BLOCK) {
                    let largest = block
                        .iter()
                        .fold(0.0_f32, |most, value| most.max(value.abs()));
                    let scale = largest / 127.0;
                    let stored = f16::from_f32(scale);
                    stored
                        .is_finite()
                        .then(|| bytes.extend(stored.to_le_bytes()))?;
                    // As ggml: by the scale before it was rounded, halves away from zero.
                    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                    let whole = block.iter().map(|value| (value * inverse).round() as i8);
                    bytes.extend(whole.flat_map(i8::to_le_bytes));
                }
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_within_half_a_step_and_what_its_scale_is_rounded_by() {
        let values: Vec<f32> = (0..64)
            .map(|i| (i as f32 * 1.7).sin() * 10.0_f32.powi(i / 32))
            .collect();
        let bytes = GgufType::Q8_0.encode(&values).unwrap();
        assert_eq!(bytes.len(), 2 * 34);
        for (block, found) in values.chunks(32).zip(bytes.chunks(34)) {
            let scale = f16::from_le_bytes([found[0], found[1]]).to_f32();
            let largest = block
                .iter()
                .fold(0.0_f32, |most, value| most.max(value.abs()));
            assert!((scale / (largest / 127.0) - 1.0).abs() <= 1.0 / 2048.0);
            for (value, whole) in block.iter().zip(&found[2..]) {
                let error = (value - scale * f32::from(*whole as i8)).abs();
                assert!(error <= scale * (0.5 + 128.0 / 2048.0), "{value}: {error}");
            }
        }
        // Halves go away from zero, and a block of zeros has no scale.
        let mut block = [0.0; 32];
        (block[0], block[1], block[2]) = (127.0, 2.5, -2.5);
        let bytes = GgufType::Q8_0.encode(&block).unwrap();
        assert_eq!(bytes[2..6], [127, 3, 253, 0]);
        assert_eq!(GgufType::Q8_0.encode(&[0.0; 32]).unwrap(), [0; 34]);
    }

    #[test]
    fn a_value_that_a_type_does_not_hold_is_noticed() {
        let values = [1e5; 32];
        assert!(GgufType::F16.encode(&values).is_none());
        assert!(GgufType::Bf16.encode(&values).is_some());
        assert!(GgufType::Q8_0.encode(&values).is_some());
        assert!(GgufType::Q8_0.encode(&[1e8; 32]).is_none());
        assert!(GgufType::Bf16.encode(&[f32::MAX; 32]).is_none());
    }

    #[test]
    fn vectors_are_not_narrowed_and_odd_widths_not_quantised() {
        assert_eq!(GgufType::Q8_0.of_tensor(&[64]), GgufType::F32);
        assert_eq!(GgufType::Q8_0.of_tensor(&[3, 64]), GgufType::Q8_0);
        assert_eq!(GgufType::Q8_0.of_tensor(&[64, 36]), GgufType::F16);
    }
}
