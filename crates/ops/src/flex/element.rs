//! The types of states that have a fast form, f32 and bf16. Both are computed in f32.

use std::{borrow::Cow, mem::MaybeUninit};

use burn::tensor::Element as BurnElement;
use bytemuck::Pod;
use half::bf16;
use pulp::Simd;

/// A type in which states and weights are stored.
pub(super) trait Element: BurnElement + Pod + Send + Sync {
    /// The number as f32, exactly.
    fn load(self) -> f32;

    /// The nearest number to an f32, ties to even.
    fn store(value: f32) -> Self;

    /// The nearest bf16, ties to even.
    #[inline(always)]
    fn narrow(self) -> bf16 {
        <bf16 as Element>::store(self.load())
    }

    /// Two vectors of the block `index`, where a block is the numbers of two vectors. For f32 they are its halves. For
    /// bf16 they are its numbers at even and at odd places, the low and the high halves of 32-bit words.
    fn load_pair<S: Simd>(simd: S, numbers: &[Self], index: usize) -> [S::f32s; 2];

    /// Rows of `row_len` f32s in the order in which [`load_pair`](Self::load_pair) returns numbers of this type in
    /// vectors of `lanes`. Numbers after the last whole block stay where they are.
    fn in_pair_order(rows: &[f32], row_len: usize, lanes: usize) -> Cow<'_, [f32]>;

    /// The numbers as f32: the same slice, or converted into `copy`, which is resized.
    fn as_f32_or_copy<'a>(numbers: &'a [Self], copy: &'a mut Vec<f32>) -> &'a [f32];

    /// Writes the numbers of a vector to as many places.
    #[inline(always)]
    fn store_vector<S: Simd>(_: S, numbers: S::f32s, places: &mut [MaybeUninit<Self>]) {
        let numbers = [numbers];
        for (place, number) in places.iter_mut().zip(bytemuck::cast_slice(&numbers)) {
            place.write(Self::store(*number));
        }
    }

    /// The same slice, if this type is f32.
    fn as_f32(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }

    /// The same vector, if this type is f32; otherwise it is returned as the error.
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

    fn in_pair_order(rows: &[f32], _: usize, _: usize) -> Cow<'_, [f32]> {
        Cow::Borrowed(rows)
    }

    #[inline(always)]
    fn as_f32_or_copy<'a>(numbers: &'a [Self], _: &'a mut Vec<f32>) -> &'a [f32] {
        numbers
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

// By bits and without a branch, so that loops over them vectorise.
impl Element for bf16 {
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(self) -> bf16 {
        self
    }

    // In vector operations: the compiler does not always vectorise a loop over the numbers of a vector.
    #[inline(always)]
    fn load_pair<S: Simd>(simd: S, numbers: &[Self], index: usize) -> [S::f32s; 2] {
        if size_of::<S::u16s>() != size_of::<S::u32s>() {
            // Scalar code: its "vectors" are single numbers.
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

    fn in_pair_order(rows: &[f32], row_len: usize, lanes: usize) -> Cow<'_, [f32]> {
        let mut output = rows.to_vec();
        let pairs_of_rows = output
            .chunks_exact_mut(row_len)
            .zip(rows.chunks_exact(row_len));
        for (output, row) in pairs_of_rows {
            let blocks = output.chunks_exact_mut(2 * lanes);
            for (output, block) in blocks.zip(row.chunks_exact(2 * lanes)) {
                let (even, odd) = output.split_at_mut(lanes);
                let pairs = block.as_chunks::<2>().0;
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                    [*even, *odd] = *pair;
                }
            }
        }
        Cow::Owned(output)
    }

    #[inline(always)]
    fn as_f32_or_copy<'a>(numbers: &'a [Self], copy: &'a mut Vec<f32>) -> &'a [f32] {
        copy.resize(numbers.len(), 0.0);
        for (copy, x) in copy.iter_mut().zip(numbers) {
            *copy = x.load();
        }
        copy
    }

    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        // Adds half a unit of the last kept bit, less one if that bit is 0: ties go to even.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // Rounding could turn a NaN into an infinity or a zero. With this bit set, it stays a NaN.
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
        // Every sign and exponent, with mantissas at and around ties.
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
