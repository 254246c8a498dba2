//! The validation rows of a run that has none: burn-train wants a loader in any case.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;

pub(super) struct NoData;

impl<B: Backend, I: 'static> DataLoader<B, I> for NoData {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        Box::new(Nothing(std::iter::empty()))
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, I>> {
        Arc::new(Self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, I>> {
        Arc::new(Self)
    }
}

struct Nothing<I>(std::iter::Empty<I>);

impl<I> Iterator for Nothing<I> {
    type Item = I;

    fn next(&mut self) -> Option<I> {
        self.0.next()
    }
}

impl<I> DataLoaderIterator<I> for Nothing<I> {
    fn progress(&self) -> Progress {
        Progress::new(0, 0)
    }
}
