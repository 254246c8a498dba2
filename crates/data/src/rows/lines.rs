//! A JSON object a line.

use super::reader::{Item, Reader};
use crate::error::Result;

/// Hands the rows of a file on.
pub(super) fn read<'a>(text: &'a str, reader: &mut Reader<'a>) -> Result<()> {
    for (line, text) in (1..).zip(text.split('\n')) {
        if !text.trim().is_empty() {
            reader.take(line, Item::line(line, text))?;
        }
    }
    Ok(())
}
