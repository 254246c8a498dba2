//! Which keys a query may see.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};

/// Added to the score of a key that must not be seen. Finite: a query that may see nothing (left
/// padding) then averages over everything instead of dividing zero by zero.
const HIDDEN_SCORE: f64 = -1e9;

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
        let (seq, kv_len) = (self.queries(0).len(), self.keys(0).len());
        let places = |places: &[i32], shape: [usize; 4]| {
            Tensor::<B, 4, Int>::from_data(TensorData::new(places.to_vec(), shape), device)
        };
        let shape = [self.rows, 1, seq, kv_len];
        let queries = places(&self.queries, [self.rows, 1, seq, 1]).expand(shape);
        let keys = places(&self.keys, [self.rows, 1, 1, kv_len]).expand(shape);
        let zeros = Tensor::zeros(shape, (device, dtype));
        Some(zeros.mask_fill(keys.greater(queries), HIDDEN_SCORE))
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

    /// The lists, where it was kept [`on_host`](Self::on_host).
    pub(crate) fn places(&self) -> Option<&Visibility> {
        match &self.0 {
            Form::Additive(_) => None,
            Form::Places(visibility) => Some(visibility),
        }
    }

    /// What is added to the scores.
    pub(crate) fn additive(&self, dtype: DType, device: &B::Device) -> Option<Tensor<B, 4>> {
        match &self.0 {
            Form::Additive(mask) => mask.clone().map(|mask| mask.cast(dtype)),
            Form::Places(visibility) => visibility.additive(dtype, device),
        }
    }

    /// The same on another backend's terms, given the way of a tensor.
    pub(crate) fn map<C: Backend>(
        self,
        tensor: impl FnOnce(Tensor<B, 4>) -> Tensor<C, 4>,
    ) -> ScoreMask<C> {
        ScoreMask(match self.0 {
            Form::Additive(mask) => Form::Additive(mask.map(tensor)),
            Form::Places(visibility) => Form::Places(visibility),
        })
    }
}
