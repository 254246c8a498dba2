//! The order of a run: the examples of each step.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::error::{Error, Result};
use crate::mix::Mix;

/// The number of micro-batches in a megabatch of `group_by_length`, as in transformers' `get_length_grouped_indices`.
const MEGABATCH: usize = 50;

/// The order of a run, a pure function of the seed and the epoch. A *step* is one optimizer update.
///
/// No step crosses an epoch. The last micro-batch of an epoch may be smaller than the others, and the last
/// step of an epoch may have fewer micro-batches, as in Hugging Face's Trainer since 4.46.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOrder {
    /// The seed of the run.
    pub seed: u64,
    /// The number of examples in a micro-batch (`per_device_train_batch_size`).
    pub batch_size: usize,
    /// The number of micro-batches in a step (`gradient_accumulation_steps`).
    pub accumulation: usize,
    /// Whether micro-batches hold examples of similar length. This saves padding and makes the order less
    /// random: the shuffled examples are cut into megabatches of 50 micro-batches (fewer in a small file),
    /// each megabatch is sorted by length, and the micro-batches are shuffled again. Default false.
    pub group_by_length: bool,
}

impl BatchOrder {
    /// Makes a random order without grouping by length.
    pub fn new(seed: u64, batch_size: usize, accumulation: usize) -> Self {
        Self {
            seed,
            batch_size,
            accumulation,
            group_by_length: false,
        }
    }

    /// Refuses a size of zero.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, size) in [
            ("per_device_train_batch_size", self.batch_size),
            ("gradient_accumulation_steps", self.accumulation),
        ] {
            if size == 0 {
                return Err(Error::Zero { name });
            }
        }
        Ok(())
    }

    /// Returns the number of steps in an epoch of `examples` examples. Partial batches and steps count.
    ///
    /// # Panics
    /// A size is zero.
    pub fn steps_per_epoch(&self, examples: usize) -> usize {
        examples
            .div_ceil(self.batch_size)
            .div_ceil(self.accumulation)
    }

    /// Returns the steps of `epoch`, which counts from 0: steps, their micro-batches, and the indices of the
    /// examples in these. `lengths` are the lengths of all examples in tokens, and `mix` says which of them the
    /// epoch has. Without `group_by_length` the lengths do not matter.
    ///
    /// # Panics
    /// A size is zero.
    pub(crate) fn steps(&self, mix: &Mix, lengths: &[usize], epoch: usize) -> Vec<Vec<Vec<usize>>> {
        let mut random = self.random(epoch);
        let mut order = mix.epoch(self.seed, epoch);
        order.shuffle(&mut random);
        let mut micro_batches: Vec<Vec<usize>> = if self.group_by_length {
            // At least four megabatches, so that the order of a small file stays somewhat random.
            let count = order.len() / self.batch_size.saturating_mul(4);
            let count = count.clamp(1, MEGABATCH);
            let megabatches = order.chunks_mut(self.batch_size.saturating_mul(count));
            megabatches
                .flat_map(|megabatch| {
                    megabatch.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
                    megabatch.chunks(self.batch_size).map(<[usize]>::to_vec)
                })
                .collect()
        } else {
            order
                .chunks(self.batch_size)
                .map(<[usize]>::to_vec)
                .collect()
        };
        if self.group_by_length {
            micro_batches.shuffle(&mut random);
        }
        micro_batches
            .chunks(self.accumulation)
            .map(<[Vec<usize>]>::to_vec)
            .collect()
    }

    /// Returns the random generator of an epoch. The key holds seed and epoch in separate bytes, so that no
    /// two pairs share a stream.
    fn random(&self, epoch: usize) -> StdRng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&(epoch as u64).to_le_bytes());
        key[16..].copy_from_slice(b"burn-peft order\0");
        StdRng::from_seed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of an epoch that has each example once.
    fn steps(order: &BatchOrder, lengths: &[usize], epoch: usize) -> Vec<Vec<Vec<usize>>> {
        order.steps(&Mix::once(lengths.len()), lengths, epoch)
    }

    #[test]
    fn a_batch_larger_than_any_file_is_the_whole_file() {
        let order = BatchOrder {
            group_by_length: true,
            ..BatchOrder::new(0, usize::MAX / 2, usize::MAX)
        };
        let steps = steps(&order, &[1, 2, 3], 0);
        assert_eq!((steps.len(), steps[0].len(), steps[0][0].len()), (1, 1, 3));
    }

    fn flat(steps: &[Vec<Vec<usize>>]) -> Vec<usize> {
        steps.concat().concat()
    }

    fn sorted(mut indices: Vec<usize>) -> Vec<usize> {
        indices.sort_unstable();
        indices
    }

    #[test]
    fn an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only() {
        let lengths = vec![1; 100];
        let order = BatchOrder::new(7, 8, 3);
        let first = steps(&order, &lengths, 0);
        assert_eq!(first, steps(&order, &lengths, 0));
        assert_eq!(sorted(flat(&first)), (0..100).collect::<Vec<_>>());
        assert_ne!(flat(&first), flat(&steps(&order, &lengths, 1)));
        assert_ne!(
            flat(&first),
            flat(&steps(&BatchOrder::new(8, 8, 3), &lengths, 0))
        );
    }

    #[test]
    fn batch_size_and_accumulation_cut_the_same_permutation() {
        let lengths = vec![1; 100];
        let first = steps(&BatchOrder::new(7, 8, 3), &lengths, 2);
        assert_eq!(
            flat(&first),
            flat(&steps(&BatchOrder::new(7, 5, 1), &lengths, 2))
        );
    }

    #[test]
    fn the_last_micro_batch_and_the_last_group_are_kept_though_partial() {
        let steps = steps(&BatchOrder::new(0, 4, 2), &[1; 17], 0);
        let sizes: Vec<Vec<usize>> = steps
            .iter()
            .map(|step| step.iter().map(Vec::len).collect())
            .collect();
        assert_eq!(sizes, [vec![4, 4], vec![4, 4], vec![1]]);
        assert_eq!(BatchOrder::new(0, 4, 2).steps_per_epoch(17), 3);
    }

    #[test]
    fn no_examples_are_no_steps() {
        assert!(steps(&BatchOrder::new(0, 4, 2), &[], 0).is_empty());
        assert_eq!(BatchOrder::new(0, 4, 2).steps_per_epoch(0), 0);
    }

    /// A later build that resumes a run must use the same order. This test fails if `rand` changes it.
    #[test]
    fn the_order_is_the_one_earlier_builds_had() {
        assert_eq!(
            flat(&steps(&BatchOrder::new(42, 4, 1), &[1; 8], 3)),
            [3, 0, 7, 1, 4, 2, 5, 6]
        );
    }

    #[test]
    fn grouping_by_length_saves_padding_and_loses_no_example() {
        let lengths: Vec<usize> = (0..203).map(|index| 1 + (index * 37) % 101).collect();
        let padding = |order: &BatchOrder| -> usize {
            let waste = |batch: &Vec<usize>| {
                let longest = batch.iter().map(|&index| lengths[index]).max().unwrap_or(0);
                batch
                    .iter()
                    .map(|&index| longest - lengths[index])
                    .sum::<usize>()
            };
            steps(order, &lengths, 0).concat().iter().map(waste).sum()
        };
        let random = BatchOrder::new(1, 4, 2);
        let grouped = BatchOrder {
            group_by_length: true,
            ..random
        };
        assert!(
            padding(&grouped) * 3 < padding(&random),
            "{} {}",
            padding(&grouped),
            padding(&random)
        );
        let first = steps(&grouped, &lengths, 0);
        assert_eq!(sorted(flat(&first)), (0..203).collect::<Vec<_>>());
        assert_eq!(first.len(), grouped.steps_per_epoch(203));
        assert_ne!(flat(&first), flat(&steps(&grouped, &lengths, 1)));
    }

    #[test]
    fn an_epoch_has_examples_as_often_as_the_mix_says() {
        let mix = Mix::new([(3, 2.0), (4, 0.5)]);
        let order = BatchOrder::new(5, 2, 1);
        let epoch = |epoch| flat(&order.steps(&mix, &[1; 7], epoch));
        assert_eq!(sorted(epoch(0))[..6], [0, 0, 1, 1, 2, 2]);
        let rest = [
            sorted(epoch(0))[6..].to_vec(),
            sorted(epoch(1))[6..].to_vec(),
        ];
        assert_eq!(sorted(rest.concat()), [3, 4, 5, 6]);
    }

    #[test]
    fn a_zero_size_is_refused_by_its_option() {
        let message = BatchOrder::new(0, 4, 0)
            .check()
            .expect_err("nothing to accumulate")
            .to_string();
        assert!(message.contains("gradient_accumulation_steps"), "{message}");
    }
}
