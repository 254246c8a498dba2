//! The evaluation loader: every example once, in file order.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use burn_dataset::Dataset;

use crate::batch::{Batch, Padding};
use crate::error::{Error, Result};
use crate::example::Example;
use crate::loader::load;

/// Yields every example once, in batches of a fixed size (the last may be smaller).
///
/// An *item*, in the sense of [`DataLoader`], is an example. The order is the file's, or longest first
/// if [`sorted_by_length`](Self::sorted_by_length); [`Batch::indices`] says which row is which example
/// either way. Tensors are created on the thread that pulls the iterator.
#[derive(Clone)]
pub struct EvalLoader<B: Backend> {
    dataset: Arc<dyn Dataset<Example>>,
    batch_size: usize,
    padding: Padding,
    sort: bool,
    /// The examples of the dataset this loader yields.
    range: Range<usize>,
    device: B::Device,
}

impl<B: Backend> EvalLoader<B> {
    /// A loader of all examples, in file order. An empty dataset yields nothing.
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
            sort: false,
            range,
            device,
        })
    }

    /// Whether to go by length, longest first, which saves padding and meets the largest batch first.
    pub fn sorted_by_length(mut self, sort: bool) -> Self {
        self.sort = sort;
        self
    }

    /// The examples, in file order.
    pub fn examples(&self) -> &dyn Dataset<Example> {
        self.dataset.as_ref()
    }
}

impl<B: Backend> DataLoader<B, Batch<B>> for EvalLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch<B>> + 'a> {
        let mut order: Vec<usize> = self.range.clone().collect();
        if self.sort {
            let length =
                |index: &usize| self.dataset.get(*index).map_or(0, |example| example.len());
            order.sort_by_cached_key(|index| std::cmp::Reverse(length(index)));
        }
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
            .field("sorted_by_length", &self.sort)
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
    fn every_example_comes_once_in_file_order() {
        assert_eq!(indices(&loader()), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(loader().num_items(), 5);
    }

    #[test]
    fn sorting_puts_the_longest_first_and_keeps_the_indices() {
        let loader = loader().sorted_by_length(true);
        assert_eq!(indices(&loader), [vec![1, 3], vec![4, 0], vec![2]]);
        let first = loader.iter().next().expect("five examples");
        assert_eq!((first.seq, first.lines), (5, vec![2, 4]));
    }

    #[test]
    fn a_slice_is_those_examples_under_their_own_indices() {
        let slice = loader().slice(1, 4);
        assert_eq!(
            (slice.num_items(), indices(slice.as_ref())),
            (3, vec![vec![1, 2], vec![3]])
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
