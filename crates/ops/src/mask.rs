//! Which keys a query may see.

use std::sync::Arc;

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{DType, Int, Tensor, TensorData, backend::Backend},
};

/// Added to the score of a key that must not be seen, or put in its place. Finite: a query that may see nothing (left
/// padding) then averages over everything instead of dividing zero by zero.
pub(crate) const HIDDEN_SCORE: f64 = -1e9;

/// The place of a key that nobody sees.
pub const NO_TOKEN: i32 = i32::MAX;

/// Which keys each query may see, on the host: those whose place in the row is not behind its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visibility {
    rows: usize,
    queries: Vec<i32>,
    keys: Vec<i32>,
}

impl Visibility {
    /// Of `rows` rows; one stands for all rows of a batch. `queries` are row-major `[rows, seq]`, `keys`
    /// `[rows, kv_len]` with [`NO_TOKEN`] where there is none.
    ///
    /// # Panics
    /// If the lists are not of whole rows.
    #[must_use]
    pub fn new(rows: usize, queries: Vec<i32>, keys: Vec<i32>) -> Self {
        assert!(
            rows > 0 && queries.len().is_multiple_of(rows) && keys.len().is_multiple_of(rows),
            "places of whole rows"
        );
        Self {
            rows,
            queries,
            keys,
        }
    }

    /// Whether query `query` of a row of the batch may see key `key`.
    #[must_use]
    pub fn sees(&self, row: usize, query: usize, key: usize) -> bool {
        self.keys(row)[key] <= self.queries(row)[query]
    }

    /// The places of the queries of a row of the batch, `[seq]`.
    pub(crate) fn queries(&self, row: usize) -> &[i32] {
        Self::row(&self.queries, self.rows, row)
    }

    /// The places of the keys of a row of the batch, `[kv_len]`.
    pub(crate) fn keys(&self, row: usize) -> &[i32] {
        Self::row(&self.keys, self.rows, row)
    }

    fn row(places: &[i32], rows: usize, row: usize) -> &[i32] {
        let len = places.len() / rows;
        let row = if rows == 1 { 0 } else { row };
        &places[row * len..(row + 1) * len]
    }

    fn on_device<B: Backend>(&self, device: &B::Device) -> DevicePlaces<B> {
        let places = |places: &[i32]| {
            let shape = [self.rows, places.len() / self.rows];
            Tensor::from_data(TensorData::new(places.to_vec(), shape), device)
        };
        DevicePlaces {
            queries: places(&self.queries),
            keys: places(&self.keys),
        }
    }

    /// Whether every query sees every key.
    fn is_full(&self) -> bool {
        (0..self.rows).all(|row| {
            let last_key = self.keys(row).iter().max();
            self.queries(row)
                .iter()
                .all(|query| last_key <= Some(query))
        })
    }

    /// What is added to the scores, `[rows, 1, seq, kv_len]`; `None` where everything may be seen.
    fn additive<B: Backend>(&self, dtype: DType, device: &B::Device) -> Option<Tensor<B, 4>> {
        if self.is_full() {
            return None;
        }
        Some(self.on_device(device).additive(dtype, device))
    }
}

/// A [`Visibility`] in the form a backend wants; see [`Ops::score_mask`](crate::Ops::score_mask).
#[derive(Debug, Clone)]
pub struct ScoreMask<B: Backend>(Form<B>);

#[derive(Debug, Clone)]
enum Form<B: Backend> {
    /// Added to the scores, `[batch or 1, 1, seq, kv_len]`; `None`: nothing is hidden.
    Additive(Option<Tensor<B, 4>>),
    /// As it is.
    Places(Arc<Visibility>),
    /// As it is, on the device.
    #[cfg_attr(
        not(feature = "cube"),
        expect(dead_code, reason = "only GPUs want it so")
    )]
    DevicePlaces(DevicePlaces<B>),
}

/// The places of a [`Visibility`] on the device.
#[derive(Debug, Clone)]
pub(crate) struct DevicePlaces<B: Backend> {
    /// `[batch or 1, seq]`.
    pub(crate) queries: Tensor<B, 2, Int>,
    /// `[batch or 1, kv_len]`.
    pub(crate) keys: Tensor<B, 2, Int>,
}

impl<B: Backend> DevicePlaces<B> {
    /// What is added to the scores, `[batch or 1, 1, seq, kv_len]`.
    fn additive(&self, dtype: DType, device: &B::Device) -> Tensor<B, 4> {
        let ([rows, seq], [_, kv_len]) = (self.queries.dims(), self.keys.dims());
        let shape = [rows, 1, seq, kv_len];
        let queries = self
            .queries
            .clone()
            .reshape([rows, 1, seq, 1])
            .expand(shape);
        let keys = self
            .keys
            .clone()
            .reshape([rows, 1, 1, kv_len])
            .expand(shape);
        let zeros = Tensor::zeros(shape, (device, dtype));
        zeros.mask_fill(keys.greater(queries), HIDDEN_SCORE)
    }
}

impl<B: Backend> ScoreMask<B> {
    /// As a tensor on the device, of type `dtype`.
    pub(crate) fn to_device(visibility: &Visibility, dtype: DType, device: &B::Device) -> Self {
        Self(Form::Additive(visibility.additive(dtype, device)))
    }

    /// As lists on the host.
    pub(crate) fn on_host(visibility: Visibility) -> Self {
        Self(Form::Places(Arc::new(visibility)))
    }

    /// As lists on the device.
    #[cfg(feature = "cube")]
    pub(crate) fn places_on_device(visibility: &Visibility, device: &B::Device) -> Self {
        Self(Form::DevicePlaces(visibility.on_device(device)))
    }

    /// The lists, where it was kept [`on_host`](Self::on_host).
    pub(crate) fn places(&self) -> Option<&Visibility> {
        match &self.0 {
            Form::Places(visibility) => Some(visibility),
            Form::Additive(_) | Form::DevicePlaces(_) => None,
        }
    }

    /// The lists of [`places_on_device`](Self::places_on_device).
    ///
    /// # Panics
    /// If it has another form: a mask is for the backend that made it.
    #[cfg(feature = "cube")]
    pub(crate) fn device_places(&self) -> &DevicePlaces<B> {
        match &self.0 {
            Form::DevicePlaces(places) => places,
            Form::Additive(_) | Form::Places(_) => panic!("a mask of another backend"),
        }
    }

    /// What is added to the scores.
    pub(crate) fn additive(&self, dtype: DType, device: &B::Device) -> Option<Tensor<B, 4>> {
        match &self.0 {
            Form::Additive(mask) => mask.clone().map(|mask| mask.cast(dtype)),
            Form::Places(visibility) => visibility.additive(dtype, device),
            Form::DevicePlaces(places) => Some(places.additive(dtype, device)),
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> ScoreMask<Autodiff<B, C>> {
    /// The mask of the backend below.
    pub(crate) fn inner(self) -> ScoreMask<B> {
        ScoreMask(match self.0 {
            Form::Additive(mask) => Form::Additive(mask.map(Tensor::inner)),
            Form::Places(visibility) => Form::Places(visibility),
            Form::DevicePlaces(DevicePlaces { queries, keys }) => {
                Form::DevicePlaces(DevicePlaces {
                    queries: queries.inner(),
                    keys: keys.inner(),
                })
            }
        })
    }

    /// The mask of the backend below, for this one.
    pub(crate) fn from_inner(inner: ScoreMask<B>) -> Self {
        ScoreMask(match inner.0 {
            Form::Additive(mask) => Form::Additive(mask.map(Tensor::from_inner)),
            Form::Places(visibility) => Form::Places(visibility),
            Form::DevicePlaces(DevicePlaces { queries, keys }) => {
                Form::DevicePlaces(DevicePlaces {
                    queries: Tensor::from_inner(queries),
                    keys: Tensor::from_inner(keys),
                })
            }
        })
    }
}
