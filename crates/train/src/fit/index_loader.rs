//! A data loader over a function of the step number, for tests.

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;

type Make<I> = Arc<dyn Fn(usize) -> I + Send + Sync>;

/// Yields `make(k)` for each `k` of a range, in order. For training, `k` is a step counted from 0.
pub(super) struct IndexLoader<I> {
    range: Range<usize>,
    make: Make<I>,
}

impl<I: 'static> IndexLoader<I> {
    /// A loader over `range`.
    pub(super) fn new(
        range: Range<usize>,
        make: impl Fn(usize) -> I + Send + Sync + 'static,
    ) -> Self {
        Self {
            range,
            make: Arc::new(make),
        }
    }
}

impl<I> Clone for IndexLoader<I> {
    fn clone(&self) -> Self {
        Self {
            range: self.range.clone(),
            make: self.make.clone(),
        }
    }
}

impl<B: Backend, I: 'static> DataLoader<B, I> for IndexLoader<I> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        Box::new(Items {
            loader: self,
            next: self.range.start,
        })
    }

    fn num_items(&self) -> usize {
        self.range.len()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, I>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, I>> {
        let first = self.range.start;
        let range = (first + start).min(self.range.end)..(first + end).min(self.range.end);
        Arc::new(Self {
            range,
            make: self.make.clone(),
        })
    }
}

struct Items<'a, I> {
    loader: &'a IndexLoader<I>,
    next: usize,
}

impl<I> Iterator for Items<'_, I> {
    type Item = I;

    fn next(&mut self) -> Option<I> {
        if self.next >= self.loader.range.end {
            return None;
        }
        self.next += 1;
        Some((self.loader.make)(self.next - 1))
    }
}

impl<I> DataLoaderIterator<I> for Items<'_, I> {
    fn progress(&self) -> Progress {
        Progress::new(self.next - self.loader.range.start, self.loader.range.len())
    }
}
