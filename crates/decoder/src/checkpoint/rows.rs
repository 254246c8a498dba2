//! Rows of a tensor, for who writes the weights in another form.

use std::ops::Range;

use burn::tensor::DType;

use super::{Checkpoint, convert::through_f32};
use crate::Error;

impl Checkpoint {
    /// The rows `rows` of a tensor of [`tensor_shapes`](crate::DecoderConfig::tensor_shapes) as f32, one behind the other. A
    /// row of a vector is one number. Of a tensor, only what is asked for is in memory.
    ///
    /// # Errors
    /// If the bytes cannot be read, or a value is NaN or infinite, or too large for f32.
    ///
    /// # Panics
    /// If the model has no such tensor, or the tensor no such rows.
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, Error> {
        let (file, info) = self.find(name);
        let range = file.range(info);
        let row = range.len() / info.shape[0];
        let mut bytes = vec![0; rows.len() * row];
        assert!(rows.end <= info.shape[0], "rows of {name}");
        file.read_at(&mut bytes, (range.start + rows.start * row) as u64)?;
        let values = through_f32(&bytes, info.dtype, |value| value);
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(file.not_finite(name, DType::F32)),
        }
    }
}
