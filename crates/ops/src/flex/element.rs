//! The types of states that have a fast form: stored narrow or wide, computed in f32.

use std::mem::MaybeUninit;

use burn::tensor::Element as BurnElement;
use bytemuck::Pod;
use half::bf16;
use pulp::Simd;

/// A number as it is stored.
pub(super) trait Element: BurnElement + Pod + Send + Sync {
    /// As an f32, exactly.
    fn load(self) -> f32;

    /// The nearest to an f32, ties to even.
    fn store(value: f32) -> Self;

    /// The nearest bf16.
    #[inline(always)]
    fn narrow(self) -> bf16 {
        <bf16 as Element>::store(self.load())
    }

    /// Of blocks of two vectors' numbers, the one of this index: for f32 its first and its second half, for bf16 the
    /// numbers at even and at odd places, which are the halves of words.
    fn load_pair<S: Simd>(simd: S, numbers: &[Self], index: usize) -> [S::f32s; 2];

    /// Writes the numbers of a vector to as many places.
    #[inline(always)]
    fn store_vector<S: Simd>(_: S, numbers: S::f32s, places: &mut [MaybeUninit<Self>]) {
        let numbers = [numbers];
        for (place, number) in places.iter_mut().zip(bytemuck::cast_slice(&numbers)) {
            place.write(Self::store(*number));
        }
    }

    /// The same slice, if this is f32.
    fn as_f32(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }

    /// The same numbers, if this is f32; else they come back.
    fn from_f32s(numbers: Vec<f32>) -> Result<Vec<Self>, Vec<f32>> {
        Err(numbers)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn load_pair<S: Simd>(_: S, numbers: &[Self], index: usize) -> [S::f32s; 2] {
        S::as_simd_f32s(numbers).0.as_chunks().0[index]
    }

    #[inline(always)]
    fn store_vector<S: Simd>(_: S, numbers: S::f32s, places: &mut [MaybeUninit<Self>]) {
        let (places, _) = S::as_uninit_mut_simd_f32s(places);
        places[0].write(numbers);
    }

    fn as_f32(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    fn from_f32s(numbers: Vec<f32>) -> Result<Vec<Self>, Vec<f32>> {
        Ok(numbers)
    }
}

// By bits: without a branch, so that loops over them vectorise.
impl Element for bf16 {
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(self) -> bf16 {
        self
    }

    // In the vectors' own operations: a loop over a vector's numbers becomes scalar ones, now and then.
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, numbers: &[Self], index: usize) -> [S::f32s; 2] {
        if size_of::<S::u16s>() != size_of::<S::u32s>() {
            // Without vectors.
            let pair = &numbers.as_chunks::<2>().0[index];
            return [
                simd.splat_f32s(pair[0].load()),
                simd.splat_f32s(pair[1].load()),
            ];
        }
        let (vectors, _) = S::as_simd_u16s(bytemuck::cast_slice(numbers));
        let words: S::u32s = bytemuck::cast(vectors[index]);
        let even = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16));
        let odd = simd.and_u32s(words, simd.splat_u32s(0xffff_0000));
        [
            simd.transmute_f32s_u32s(even),
            simd.transmute_f32s_u32s(odd),
        ]
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        // Half of the last place that is kept, and one more if that place is odd.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // A NaN whose few set bits would be cut off, or carried away, stays one.
        let kept = if value.is_nan() {
            bits | 0x0040_0000
        } else {
            rounded
        };
        Self::from_bits((kept >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        // Every exponent and sign, with mantissas about the ties.
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(high) << 16 | low);
                let (ours, theirs) = (<bf16 as Element>::store(value), bf16::from_f32(value));
                assert!(
                    ours.to_bits() == theirs.to_bits() || (value.is_nan() && ours.is_nan()),
                    "{value:e}: {ours:?} and {theirs:?}"
                );
                assert!(ours.load() == ours.to_f32() || value.is_nan());
            }
        }
    }
}
