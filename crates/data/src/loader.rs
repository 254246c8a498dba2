//! The training loader: one item an optimizer step, from any step of the run.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use burn_dataset::Dataset;

use crate::batch::{Batch, Padding, collate};
use crate::error::{Error, Result};
use crate::example::Example;
use crate::order::BatchOrder;

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunLength {
    /// Passes over the data (`num_train_epochs`); a fraction ends at the next whole step.
    Epochs(f64),
    /// Optimizer steps (`max_steps`), over as many epochs as they take.
    Steps(usize),
}

/// Yields the micro-batches of one optimizer step at a time, through all epochs of a run.
///
/// An *item*, in the sense of [`DataLoader`], is an optimizer step: `num_items`, `slice` and the
/// progress count steps. Resuming is arithmetic: a loader [`starting_at`](Self::starting_at) step `k`
/// yields what an uninterrupted one would yield after `k` steps, and its progress begins at `k`.
///
/// There are no workers. Tensors are created on the thread that pulls the iterator, since tensors that
/// change threads are unsafe under fusion (burn#4962); padding what is already tokenised costs
/// microseconds.
#[derive(Clone)]
pub struct StepLoader<B: Backend> {
    dataset: Arc<dyn Dataset<Example>>,
    lengths: Arc<[usize]>,
    order: BatchOrder,
    padding: Padding,
    /// The steps of the run this loader stands for: all of them, or a slice.
    steps: Range<usize>,
    /// The first step it yields.
    start: usize,
    device: B::Device,
}

impl<B: Backend> StepLoader<B> {
    /// A loader for the whole of a run.
    ///
    /// # Errors
    /// The dataset is empty, or a size of `order` is zero.
    pub fn new(
        dataset: impl Dataset<Example> + 'static,
        order: BatchOrder,
        padding: Padding,
        length: RunLength,
        device: B::Device,
    ) -> Result<Self> {
        order.check()?;
        let lengths: Arc<[usize]> = dataset.iter().map(|example| example.len()).collect();
        if lengths.is_empty() {
            return Err(Error::Zero {
                name: "the number of training examples",
            });
        }
        let total = match length {
            RunLength::Steps(steps) => steps,
            // The cast saturates: a negative number or NaN is no step.
            RunLength::Epochs(epochs) => {
                (epochs * order.steps_per_epoch(lengths.len()) as f64).ceil() as usize
            }
        };
        Ok(Self {
            dataset: Arc::new(dataset),
            lengths,
            order,
            padding,
            steps: 0..total,
            start: 0,
            device,
        })
    }

    /// The same run from `step` on, where `step` is the number of steps already done.
    pub fn starting_at(mut self, step: usize) -> Self {
        self.start = step.clamp(self.steps.start, self.steps.end);
        self
    }

    /// Optimizer steps in one epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.order.steps_per_epoch(self.lengths.len())
    }

    /// Optimizer steps in the run (or in the slice of it this loader stands for), those already done included.
    pub fn total_steps(&self) -> usize {
        self.steps.len()
    }

    /// The epoch, from 0, in which `step` (from 0) falls.
    pub fn epoch_of(&self, step: usize) -> usize {
        step / self.steps_per_epoch()
    }

    /// The examples, in file order.
    pub fn examples(&self) -> &dyn Dataset<Example> {
        self.dataset.as_ref()
    }

    fn batch(&self, indices: &[usize]) -> Batch<B> {
        load(self.dataset.as_ref(), indices, &self.padding, &self.device)
    }
}

/// Fetches and pads the examples at `indices`.
pub(crate) fn load<B: Backend>(
    dataset: &dyn Dataset<Example>,
    indices: &[usize],
    padding: &Padding,
    device: &B::Device,
) -> Batch<B> {
    let fetch = |&index: &usize| dataset.get(index).expect("a dataset keeps its length");
    let examples: Vec<Example> = indices.iter().map(fetch).collect();
    collate(
        &examples.iter().collect::<Vec<_>>(),
        indices,
        padding,
        device,
    )
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
        self.total_steps()
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
    /// The epoch that is being read, and its steps.
    epoch: Option<(usize, Vec<Vec<Vec<usize>>>)>,
}

impl<B: Backend> Iterator for StepIterator<'_, B> {
    type Item = Vec<Batch<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = self.loader;
        if self.step >= loader.steps.end {
            return None;
        }
        let epoch = loader.epoch_of(self.step);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, loader.order.steps(&loader.lengths, epoch)));
        }
        let (_, steps) = self.epoch.as_ref()?;
        let micro_batches = &steps[self.step % loader.steps_per_epoch()];
        self.step += 1;
        Some(
            micro_batches
                .iter()
                .map(|indices| loader.batch(indices))
                .collect(),
        )
    }
}

impl<B: Backend> DataLoaderIterator<Vec<Batch<B>>> for StepIterator<'_, B> {
    fn progress(&self) -> Progress {
        Progress::new(
            self.step - self.loader.steps.start,
            self.loader.total_steps(),
        )
    }
}

#[cfg(test)]
mod tests {
    use burn_dataset::InMemDataset;
    use burn_flex::Flex;

    use super::*;
    use crate::test_support::examples;

    fn loader(length: RunLength) -> StepLoader<Flex> {
        let lengths: Vec<usize> = (0..17).map(|index| 1 + index % 5).collect();
        let dataset = InMemDataset::new(examples(&lengths));
        let order = BatchOrder::new(3, 4, 2);
        StepLoader::new(
            dataset,
            order,
            Padding::default(),
            length,
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
        let loader = loader(RunLength::Epochs(2.0));
        let lengths = vec![1; 17];
        assert_eq!((loader.steps_per_epoch(), loader.total_steps()), (3, 6));
        let order = BatchOrder::new(3, 4, 2);
        assert_eq!(
            indices(&loader),
            [order.steps(&lengths, 0), order.steps(&lengths, 1)].concat()
        );
        assert_eq!((loader.epoch_of(2), loader.epoch_of(3)), (0, 1));
    }

    #[test]
    fn steps_and_fractions_of_epochs_end_where_they_should() {
        assert_eq!(indices(&loader(RunLength::Steps(7))).len(), 7);
        assert_eq!(loader(RunLength::Steps(7)).total_steps(), 7);
        assert_eq!(loader(RunLength::Epochs(0.5)).total_steps(), 2);
        assert_eq!(loader(RunLength::Epochs(-1.0)).total_steps(), 0);
    }

    #[test]
    fn resuming_at_any_step_gives_the_tail_of_the_uninterrupted_run() {
        let whole = indices(&loader(RunLength::Epochs(3.0)));
        for step in 0..=whole.len() + 1 {
            let resumed = loader(RunLength::Epochs(3.0)).starting_at(step);
            assert_eq!(indices(&resumed), whole[step.min(whole.len())..]);
        }
    }

    #[test]
    fn progress_counts_steps_of_the_run() {
        let loader = loader(RunLength::Steps(5)).starting_at(2);
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
        let loader = loader(RunLength::Steps(7));
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
        let loader = loader(RunLength::Steps(7)).starting_at(3);
        assert_eq!(
            indices(loader.to_device(&Default::default()).as_ref()),
            indices(&loader)
        );
    }

    #[test]
    fn batches_hold_the_examples_their_indices_name() {
        for batch in loader(RunLength::Epochs(1.0)).iter().flatten() {
            let ids: Vec<i64> = batch.input_ids.to_data().iter::<i64>().collect();
            for (row, index) in batch.indices.iter().enumerate() {
                assert_eq!(ids[row * batch.seq], 100 * *index as i64);
                assert_eq!(batch.lines[row], index + 1);
            }
        }
    }

    #[test]
    fn an_empty_dataset_is_refused() {
        let dataset = InMemDataset::new(Vec::new());
        let length = RunLength::Epochs(1.0);
        let loader = StepLoader::<Flex>::new(
            dataset,
            BatchOrder::new(0, 1, 1),
            Padding::default(),
            length,
            Default::default(),
        );
        assert!(matches!(loader, Err(Error::Zero { .. })));
    }
}
