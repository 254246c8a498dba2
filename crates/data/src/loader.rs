//! The training loader: one item per optimizer step, from any step of the run.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use burn_dataset::Dataset;

use crate::batch::{Batch, Padding, load};
use crate::error::{Error, Result};
use crate::example::Example;
use crate::mix::Mix;
use crate::order::BatchOrder;

/// Yields the micro-batches of one optimizer step at a time, through all epochs of a run.
///
/// An *item*, in the sense of [`DataLoader`], is an optimizer step: `num_items`, `slice` and the
/// progress count steps. A loader that [starts at](Self::starting_at) step `k` yields the steps that an
/// uninterrupted one yields after its first `k`, and its progress begins at `k`.
///
/// There are no worker threads. Tensors are created on the thread that uses the iterator, because tensors
/// that change threads are unsafe under fusion (burn#4962). Padding tokenised rows takes microseconds.
#[derive(Clone)]
pub struct StepLoader<B: Backend> {
    dataset: Arc<dyn Dataset<Example>>,
    lengths: Arc<[usize]>,
    mix: Mix,
    order: BatchOrder,
    padding: Padding,
    /// The steps of the run that this loader stands for: all of them, or a slice.
    steps: Range<usize>,
    /// The first step that it yields.
    start: usize,
    /// Which of each step's micro-batches it yields: the first of them, and how many further each next one is.
    share: (usize, usize),
    device: B::Device,
}

impl<B: Backend> StepLoader<B> {
    /// Makes a loader for a run of `total_steps` optimizer steps, over as many epochs as they take. For
    /// whole epochs, multiply their number by [`BatchOrder::steps_per_epoch`].
    ///
    /// # Errors
    /// The dataset is empty, or a size of `order` is zero.
    pub fn new(
        dataset: impl Dataset<Example> + 'static,
        order: BatchOrder,
        padding: Padding,
        total_steps: usize,
        device: B::Device,
    ) -> Result<Self> {
        order.check()?;
        let lengths: Arc<[usize]> = dataset.iter().map(|example| example.len()).collect();
        if lengths.is_empty() {
            return Err(Error::Zero {
                name: "the number of training examples",
            });
        }
        Ok(Self {
            dataset: Arc::new(dataset),
            mix: Mix::once(lengths.len()),
            lengths,
            order,
            padding,
            steps: 0..total_steps,
            start: 0,
            share: (0, 1),
            device,
        })
    }

    /// Returns a loader whose epochs have each example as often as `mix` says, instead of once.
    ///
    /// # Panics
    /// If `mix` is one of another number of examples.
    #[must_use]
    pub fn mixed(mut self, mix: Mix) -> Self {
        assert_eq!(
            mix.examples(),
            self.lengths.len(),
            "a mix of these examples"
        );
        self.mix = mix;
        self
    }

    /// Returns a loader of the same run that starts at `step`, the number of steps already done.
    pub fn starting_at(mut self, step: usize) -> Self {
        self.start = step.clamp(self.steps.start, self.steps.end);
        self
    }

    /// Returns a loader of one of `ranks` processes that share each step: it yields the micro-batches `rank`,
    /// `rank + ranks`, … of each step, and no others are made. There may be none in the last step of an epoch.
    ///
    /// # Panics
    /// If `rank` is not below `ranks`.
    #[must_use]
    pub fn share(mut self, rank: usize, ranks: usize) -> Self {
        assert!(rank < ranks, "rank {rank} of {ranks}");
        self.share = (rank, ranks);
        self
    }

    /// For each step of an epoch, counted from 0, its micro-batches: their rows, and the tokens of each row with its
    /// padding.
    pub fn epoch_shapes(&self, epoch: usize) -> Vec<Vec<[usize; 2]>> {
        let shape = |indices: &Vec<usize>| {
            let longest = indices.iter().map(|&index| self.lengths[index]).max();
            [indices.len(), self.padding.width(longest.unwrap_or(0))]
        };
        let steps = self.order.steps(&self.mix, &self.lengths, epoch);
        let steps = steps.iter();
        steps.map(|step| step.iter().map(shape).collect()).collect()
    }
}

impl<B: Backend> DataLoader<B, Vec<Batch<B>>> for StepLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Vec<Batch<B>>> + 'a> {
        Box::new(StepIterator {
            loader: self,
            step: self.start,
            epoch: None,
        })
    }

    fn num_items(&self) -> usize {
        self.steps.len()
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, Vec<Batch<B>>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Vec<Batch<B>>>> {
        let of_run = |step: usize| self.steps.start.saturating_add(step).min(self.steps.end);
        let steps = of_run(start)..of_run(end).max(of_run(start));
        let start = self.start.clamp(steps.start, steps.end);
        Arc::new(Self {
            steps,
            start,
            ..self.clone()
        })
    }
}

impl<B: Backend> fmt::Debug for StepLoader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepLoader")
            .field("examples", &self.lengths.len())
            .field("order", &self.order)
            .field("padding", &self.padding)
            .field("steps", &self.steps)
            .field("start", &self.start)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

struct StepIterator<'a, B: Backend> {
    loader: &'a StepLoader<B>,
    step: usize,
    /// The current epoch and its steps.
    epoch: Option<(usize, Vec<Vec<Vec<usize>>>)>,
}

impl<B: Backend> Iterator for StepIterator<'_, B> {
    type Item = Vec<Batch<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = self.loader;
        if self.step >= loader.steps.end {
            return None;
        }
        let steps_per_epoch = loader.order.steps_per_epoch(loader.mix.len());
        let epoch = self.step / steps_per_epoch;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let steps = loader.order.steps(&loader.mix, &loader.lengths, epoch);
            self.epoch = Some((epoch, steps));
        }
        let (_, steps) = self.epoch.as_ref()?;
        let micro_batches = &steps[self.step % steps_per_epoch];
        self.step += 1;
        let dataset = loader.dataset.as_ref();
        let batch = |indices: &Vec<_>| load(dataset, indices, &loader.padding, &loader.device);
        let (first, stride) = loader.share;
        let own = micro_batches.iter().skip(first).step_by(stride);
        Some(own.map(batch).collect())
    }
}

impl<B: Backend> DataLoaderIterator<Vec<Batch<B>>> for StepIterator<'_, B> {
    fn progress(&self) -> Progress {
        let steps = &self.loader.steps;
        Progress::new(self.step - steps.start, steps.len())
    }
}

#[cfg(test)]
mod tests {
    use burn_dataset::InMemDataset;
    use burn_flex::Flex;

    use super::*;
    use crate::test_support::examples;

    /// A loader of 17 examples in steps of up to 2 · 4, which are 3 steps an epoch.
    fn loader(total_steps: usize) -> StepLoader<Flex> {
        let lengths: Vec<usize> = (0..17).map(|index| 1 + index % 5).collect();
        StepLoader::new(
            InMemDataset::new(examples(&lengths)),
            BatchOrder::new(3, 4, 2),
            Padding::default(),
            total_steps,
            Default::default(),
        )
        .expect("good sizes")
    }

    /// Which examples each micro-batch of each step holds.
    fn indices(loader: &dyn DataLoader<Flex, Vec<Batch<Flex>>>) -> Vec<Vec<Vec<usize>>> {
        loader
            .iter()
            .map(|step| step.into_iter().map(|batch| batch.indices).collect())
            .collect()
    }

    #[test]
    fn epochs_follow_each_other_in_their_own_order() {
        let (mix, lengths) = (Mix::once(17), vec![1; 17]);
        let order = BatchOrder::new(3, 4, 2);
        assert_eq!(
            indices(&loader(6)),
            [0, 1]
                .map(|epoch| order.steps(&mix, &lengths, epoch))
                .concat()
        );
    }

    #[test]
    fn shares_are_the_micro_batches_of_each_step_dealt_out() {
        let whole = indices(&loader(4));
        let shares = [0, 1, 2].map(|rank| indices(&loader(4).share(rank, 3)));
        for (step, micro_batches) in whole.iter().enumerate() {
            let own = shares.iter().map(|share| share[step].clone());
            // Of at most two micro-batches, no rank has more than one.
            assert_eq!(&own.collect::<Vec<_>>().concat(), micro_batches);
        }
    }

    #[test]
    fn a_run_ends_after_its_steps_also_within_an_epoch() {
        for steps in [0, 2, 7] {
            assert_eq!(indices(&loader(steps)).len(), steps);
            assert_eq!(loader(steps).num_items(), steps);
        }
    }

    #[test]
    fn resuming_at_any_step_gives_the_tail_of_the_uninterrupted_run() {
        let whole = indices(&loader(9));
        for step in 0..=whole.len() + 1 {
            let resumed = loader(9).starting_at(step);
            assert_eq!(indices(&resumed), whole[step.min(whole.len())..]);
        }
    }

    #[test]
    fn a_mixed_run_has_the_steps_of_its_mix_and_resumes_at_any() {
        let mix = Mix::new([(10, 0.5), (7, 2.5)]);
        let mixed = |steps| loader(steps).mixed(mix.clone());
        // 5 + 18 examples, in steps of up to 8.
        let order = BatchOrder::new(3, 4, 2);
        let whole = indices(&mixed(9));
        let epochs = [0, 1, 2].map(|epoch| order.steps(&mix, &[1; 17], epoch));
        assert_eq!(whole, epochs.concat());
        for step in 0..9 {
            assert_eq!(indices(&mixed(9).starting_at(step)), whole[step..]);
        }
    }

    #[test]
    fn progress_counts_steps_of_the_run() {
        let loader = loader(5).starting_at(2);
        let mut iterator = loader.iter();
        iterator.next();
        let progress = iterator.progress();
        assert_eq!(
            (progress.items_processed, progress.items_total),
            (3, loader.num_items())
        );
    }

    #[test]
    fn a_slice_is_those_steps_and_nothing_else() {
        let loader = loader(7);
        let whole = indices(&loader);
        let slice = loader.slice(2, 5);
        assert_eq!(
            (slice.num_items(), indices(slice.as_ref())),
            (3, whole[2..5].to_vec())
        );
        let inner = slice.slice(1, 9);
        assert_eq!(
            (inner.num_items(), indices(inner.as_ref())),
            (2, whole[3..5].to_vec())
        );
        let resumed = loader.starting_at(4).slice(2, 6);
        assert_eq!(
            (resumed.num_items(), indices(resumed.as_ref())),
            (4, whole[4..6].to_vec())
        );
    }

    #[test]
    fn moving_to_a_device_keeps_order_and_position() {
        let loader = loader(7).starting_at(3);
        assert_eq!(
            indices(loader.to_device(&Default::default()).as_ref()),
            indices(&loader)
        );
    }

    #[test]
    fn batches_hold_the_examples_their_indices_name() {
        for batch in loader(3).iter().flatten() {
            let ids: Vec<i64> = batch.input_ids.to_data().iter::<i64>().collect();
            for (row, index) in batch.indices.iter().enumerate() {
                assert_eq!(ids[row * batch.seq], 100 * *index as i64);
            }
        }
    }

    #[test]
    fn the_shapes_of_an_epoch_are_those_of_its_batches() {
        let loader = loader(6);
        let shapes: Vec<Vec<[usize; 2]>> = loader
            .iter()
            .map(|step| step.iter().map(|batch| [batch.batch, batch.seq]).collect())
            .collect();
        assert_eq!(loader.epoch_shapes(0), shapes[..3]);
        assert_eq!(loader.epoch_shapes(1), shapes[3..]);
    }

    #[test]
    fn an_empty_dataset_is_refused() {
        let loader = StepLoader::<Flex>::new(
            InMemDataset::new(Vec::new()),
            BatchOrder::new(0, 1, 1),
            Padding::default(),
            1,
            Default::default(),
        );
        assert!(matches!(loader, Err(Error::Zero { .. })));
    }
}
