//! Writes a safetensors file with some tensors replaced or added.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::{Map, Value, json};

use super::{super::WeightsFile, Stored};

impl WeightsFile {
    /// Writes this file with `changed` in place of its own tensors, or beside them. `progress` is called with the
    /// bytes written since the last time.
    pub(super) fn write(
        &self,
        output: &mut dyn Write,
        changed: &BTreeMap<String, Stored>,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let mut put = |bytes: &[u8]| -> io::Result<()> {
            output.write_all(bytes)?;
            progress(bytes.len() as u64);
            Ok(())
        };
        if changed.is_empty() {
            return self.pieces(0..self.len as usize, put);
        }
        let names = self.names_with(changed);
        put(&self.header(&names, changed))?;
        for name in &names {
            match changed.get(name) {
                Some(stored) => put(&stored.bytes)?,
                None => self.pieces(self.range(self.info(name)), &mut put)?,
            }
        }
        Ok(())
    }

    /// The tensors in the order in which they are written: wide types first, as the format's own writer has it, so
    /// that every tensor stays aligned; otherwise in the file's order, and new ones at the end.
    fn names_with(&self, changed: &BTreeMap<String, Stored>) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        let is_new = |name: &&String| self.metadata.info(name).is_none();
        names.extend(changed.keys().filter(is_new).cloned());
        names.sort_by_key(|name| std::cmp::Reverse(self.dtype_of(name, changed).bitsize()));
        names
    }

    fn dtype_of(&self, name: &str, changed: &BTreeMap<String, Stored>) -> Dtype {
        match changed.get(name) {
            Some(stored) => stored.dtype,
            None => self.info(name).dtype,
        }
    }

    /// Length and text of the header, for the tensors in this order.
    fn header(&self, names: &[String], changed: &BTreeMap<String, Stored>) -> Vec<u8> {
        let mut header = Map::new();
        if let Some(metadata) = self.metadata.metadata() {
            let sorted: BTreeMap<_, _> = metadata.iter().collect();
            header.insert("__metadata__".into(), json!(sorted));
        }
        let mut start = 0;
        for name in names {
            let (shape, len) = match changed.get(name) {
                Some(stored) => (&stored.shape, stored.bytes.len()),
                None => {
                    let info = self.info(name);
                    (&info.shape, self.range(info).len())
                }
            };
            let dtype = self.dtype_of(name, changed);
            let entry =
                json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + len]});
            header.insert(name.clone(), entry);
            start += len;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        [&(text.len() as u64).to_le_bytes()[..], &text].concat()
    }

    fn info(&self, name: &str) -> &TensorInfo {
        let info = self.metadata.info(name);
        info.expect("the name is one of the metadata's own")
    }
}
