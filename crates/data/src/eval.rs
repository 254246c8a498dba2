//! The evaluation loader: every example once.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use burn_dataset::Dataset;

use crate::batch::{Batch, Padding, load};
use crate::error::{Error, Result};
use crate::example::Example;

/// Yields every example once, in batches of a fixed size. The last batch may be smaller.
///
/// An *item*, in the sense of [`DataLoader`], is an example. The longest examples come first: this saves
/// padding, and a batch too large for the memory fails at the start. [`Batch::indices`] gives the example
/// of each row. Tensors are created on the thread that uses the iterator.
#[derive(Clone)]
pub struct EvalLoader<B: Backend> {
    dataset: Arc<dyn Dataset<Example>>,
    batch_size: usize,
    padding: Padding,
    /// The examples of the dataset that this loader yields.
    range: Range<usize>,
    device: B::Device,
}

impl<B: Backend> EvalLoader<B> {
    /// Makes a loader of all examples. With an empty dataset it yields nothing.
    ///
    /// # Errors
    /// `batch_size` is zero.
    pub fn new(
        dataset: impl Dataset<Example> + 'static,
        batch_size: usize,
        padding: Padding,
        device: B::Device,
    ) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::Zero {
                name: "per_device_eval_batch_size",
            });
        }
        let range = 0..dataset.len();
        Ok(Self {
            dataset: Arc::new(dataset),
            batch_size,
            padding,
            range,
            device,
        })
    }
}

impl<B: Backend> DataLoader<B, Batch<B>> for EvalLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch<B>> + 'a> {
        let length = |index| self.dataset.get(index).map_or(0, |example| example.len());
        let mut order: Vec<usize> = self.range.clone().collect();
        order.sort_by_cached_key(|&index| Reverse(length(index)));
        Box::new(EvalIterator {
            loader: self,
            order,
            done: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.range.len()
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, Batch<B>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Batch<B>>> {
        let of_dataset = |index: usize| self.range.start.saturating_add(index).min(self.range.end);
        let range = of_dataset(start)..of_dataset(end).max(of_dataset(start));
        Arc::new(Self {
            range,
            ..self.clone()
        })
    }
}

impl<B: Backend> fmt::Debug for EvalLoader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvalLoader")
            .field("range", &self.range)
            .field("batch_size", &self.batch_size)
            .field("padding", &self.padding)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

struct EvalIterator<'a, B: Backend> {
    loader: &'a EvalLoader<B>,
    order: Vec<usize>,
    done: usize,
}

impl<B: Backend> Iterator for EvalIterator<'_, B> {
    type Item = Batch<B>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = self.loader;
        let indices = self.order[self.done..].chunks(loader.batch_size).next()?;
        self.done += indices.len();
        Some(load(
            loader.dataset.as_ref(),
            indices,
            &loader.padding,
            &loader.device,
        ))
    }
}

impl<B: Backend> DataLoaderIterator<Batch<B>> for EvalIterator<'_, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use burn_dataset::InMemDataset;
    use burn_flex::Flex;

    use super::*;
    use crate::test_support::examples;

    fn loader() -> EvalLoader<Flex> {
        let dataset = InMemDataset::new(examples(&[2, 5, 1, 4, 3]));
        EvalLoader::new(dataset, 2, Padding::default(), Default::default()).expect("a good size")
    }

    fn indices(loader: &dyn DataLoader<Flex, Batch<Flex>>) -> Vec<Vec<usize>> {
        loader.iter().map(|batch| batch.indices).collect()
    }

    #[test]
    fn every_example_comes_once_under_its_own_index_the_longest_first() {
        let loader = loader();
        assert_eq!(indices(&loader), [vec![1, 3], vec![4, 0], vec![2]]);
        assert_eq!(loader.num_items(), 5);
        assert_eq!(loader.iter().next().expect("five examples").seq, 5);
    }

    #[test]
    fn a_slice_is_those_examples_under_their_own_indices() {
        let slice = loader().slice(1, 4);
        assert_eq!(
            (slice.num_items(), indices(slice.as_ref())),
            (3, vec![vec![1, 3], vec![2]])
        );
        assert_eq!(indices(slice.slice(2, 9).as_ref()), [[3]]);
    }

    #[test]
    fn progress_counts_examples() {
        let loader = loader();
        let mut iterator = loader.iter();
        iterator.by_ref().take(2).for_each(drop);
        let progress = iterator.progress();
        assert_eq!((progress.items_processed, progress.items_total), (4, 5));
    }
}
