//! Parquet tables, as the Hugging Face Hub has them.

mod pages;

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use super::reader::{Item, Reader};
use crate::error::{Error, Result};
use crate::panics::caught;
use pages::RowGroup;

/// Hands the rows of a table on, numbered from 1.
pub(super) fn read(bytes: Vec<u8>, reader: &mut Reader<'_>) -> Result<()> {
    let path = reader.path.to_owned();
    let bad = |reason: String| Error::File {
        path: path.clone(),
        reason: format!("this Parquet file cannot be read: {reason}"),
    };
    let file = Arc::new(Bytes::from(bytes));
    let metadata = lenient(|| ParquetMetaDataReader::new().parse_and_finish(&*file));
    let metadata = metadata.map_err(bad)?;
    let mut number = 0;
    for metadata in metadata.row_groups() {
        let file = Arc::clone(&file);
        let group = RowGroup { file, metadata };
        let mut rows = lenient(|| RowIter::from_row_group(None, &group)).map_err(bad)?;
        while let Some(row) = lenient(|| rows.next().transpose())
            .map_err(|reason| bad(format!("row {}: {reason}", number + 1)))?
        {
            number += 1;
            reader.take(number, Item::Object(object(row)))?;
        }
    }
    Ok(())
}

/// Runs a part of the library, which may panic on a damaged file, and says what went wrong.
fn lenient<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    let result = caught(work).and_then(|result| result.map_err(|error| error.to_string()));
    // The rest of the message is a backtrace or a second line.
    result.map_err(|message| message.lines().next().unwrap_or_default().to_owned())
}

/// The columns of a row.
fn object(row: Row) -> Map<String, Value> {
    let columns = row.into_columns().into_iter();
    columns.map(|(name, field)| (name, value(field))).collect()
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => number(value.to_f64()),
        Field::Float(value) => number(f64::from(value)),
        Field::Double(value) => number(value),
        Field::Str(text) => text.into(),
        // A text without its type, or something else than text.
        Field::Bytes(bytes) => bytes.as_utf8().map_or(Value::Null, Value::from),
        // All structs of a column have the same keys, so a null is a key that the object did not have.
        Field::Group(row) => {
            let columns = object(row).into_iter();
            Value::Object(columns.filter(|(_, value)| !value.is_null()).collect())
        }
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let key = |key: &Field| match value(key.clone()) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(
                entries
                    .map(|(name, field)| (key(name), value(field.clone())))
                    .collect(),
            )
        }
        // Dates, times and decimals, which no format has.
        other => other.to_string().into(),
    }
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
