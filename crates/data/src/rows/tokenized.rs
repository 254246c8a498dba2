//! Rows that were tokenised elsewhere.

use serde_json::{Map, Value};

use super::line::{Line, kind};
use crate::error::Result;
use crate::example::IGNORE_INDEX;
use crate::row::Row;

/// TRL's masks: of each token, whether it is learned.
const MASKS: [&str; 2] = ["completion_mask", "assistant_masks"];

impl Line<'_> {
    /// Reads token ids that are used as they are. Without labels every token is learned, as in TRL, and masks take tokens
    /// out. Cells that `attention_mask` calls padding are left out.
    pub(super) fn tokenized(&self, object: &Map<String, Value>) -> Result<Row> {
        let mut input_ids = self.ids(object)?;
        let count = input_ids.len();
        let of_each = |key: &str, found: usize| match found == count {
            true => Ok(()),
            false => Err(self.bad(format!(
                "{count} input_ids and {found} {key}; a row needs one of {key} for each id"
            ))),
        };
        let mut labels = match has(object, "labels") {
            true => self.numbers(object, "labels")?,
            false => input_ids.iter().map(|id| i64::from(*id)).collect(),
        };
        if labels.len() != count {
            return Err(self.bad(format!(
                "{count} input_ids and {} labels; a row needs one label for each id",
                labels.len()
            )));
        }
        for key in MASKS {
            if let Some(mask) = self.mask(object, key)? {
                of_each(key, mask.len())?;
                let masked = labels.iter_mut().zip(mask).filter(|(_, learned)| !learned);
                masked.for_each(|(label, _)| *label = IGNORE_INDEX);
            }
        }
        if let Some(mask) = self.mask(object, "attention_mask")? {
            of_each("attention_mask", mask.len())?;
            let mut real = mask.iter();
            input_ids.retain(|_| *real.next().unwrap_or(&true));
            let mut real = mask.iter();
            labels.retain(|_| *real.next().unwrap_or(&true));
        }
        Ok(Row::Tokenized { input_ids, labels })
    }

    /// Reads `input_ids` of a row with other labels than tokens, in which there is no padding.
    pub(super) fn unpadded_ids(&self, object: &Map<String, Value>) -> Result<Vec<u32>> {
        let input_ids = self.ids(object)?;
        if input_ids.is_empty() {
            return Err(self.bad("\"input_ids\" is empty; a row needs a token".to_owned()));
        }
        let mask = self.mask(object, "attention_mask")?.unwrap_or_default();
        match mask.iter().position(|is_real| !is_real) {
            None => Ok(input_ids),
            Some(index) => Err(self.bad(format!(
                "attention_mask[{index}] is 0; leave padding out of the row"
            ))),
        }
    }

    fn ids(&self, object: &Map<String, Value>) -> Result<Vec<u32>> {
        let id = |(index, id)| {
            u32::try_from(id).map_err(|_| {
                self.bad(format!(
                    "input_ids[{index}] is {id}, which is not a token id"
                ))
            })
        };
        let ids = self.numbers(object, "input_ids")?;
        ids.into_iter().enumerate().map(id).collect()
    }

    fn numbers(&self, object: &Map<String, Value>, key: &str) -> Result<Vec<i64>> {
        let number = |(index, value): (usize, &Value)| {
            value.as_i64().ok_or_else(|| {
                self.bad(format!(
                    "{key}[{index}] must be a whole number, found {}",
                    kind(value)
                ))
            })
        };
        let list = self.list(&object[key], key)?;
        list.iter().enumerate().map(number).collect()
    }

    /// A list of zeros and ones, if the row has it.
    fn mask(&self, object: &Map<String, Value>, key: &str) -> Result<Option<Vec<bool>>> {
        let flag = |(index, value): (usize, &Value)| match (value.as_bool(), value.as_i64()) {
            (Some(flag), _) => Ok(flag),
            (_, Some(flag @ (0 | 1))) => Ok(flag == 1),
            _ => Err(self.bad(format!(
                "{key}[{index}] is {value}; a mask has zeros and ones"
            ))),
        };
        if !has(object, key) {
            return Ok(None);
        }
        let list = self.list(&object[key], key)?;
        list.iter()
            .enumerate()
            .map(flag)
            .collect::<Result<_>>()
            .map(Some)
    }
}

/// Whether a row has a value for a key.
fn has(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(|value| !value.is_null())
}
