//! A copy of a checkpoint's folder, with numbers added to some of its tensors.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::{Map, Value, json};

use super::{Checkpoint, INDEX_FILE, SINGLE_FILE, WeightsFile, file::through_f32};
use crate::Error;

/// Endings of files that hold weights. Those that were not read are not copied: they are the
/// weights without what was added.
const WEIGHTS_ENDINGS: [&str; 9] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "h5",
    "msgpack",
    "onnx",
];

/// What the copy has that the original has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Tensors that are stored as F32 now, because their type could not hold the sums exactly.
    pub widened: Vec<String>,
}

impl Checkpoint {
    /// Writes the whole folder again as `output`, with `deltas` added to the tensors they name
    /// (values row-major).
    ///
    /// A sum is computed in f64. Its tensor keeps its type where that holds every value of it
    /// exactly, and becomes F32 otherwise: loaded as f32, the copy then has bit for bit the sums
    /// that f32 arithmetic gives. Loaded in a narrower type, they are rounded to it.
    ///
    /// All other tensors keep their bytes, and shards stay the files they are. The other files of
    /// the folder are copied, except for weights in other formats, hidden files and subfolders.
    /// The folder is written under a temporary name beside `output` and renamed when all of it is
    /// on the disk. `progress` is called with the bytes of weights written and all.
    ///
    /// # Errors
    /// `output` exists and is not an empty folder, and whatever reading and writing can meet.
    ///
    /// # Panics
    /// If a delta names no tensor, or has not as many values as its tensor; if the checkpoint is
    /// part of the program and has no folder.
    pub fn save_with_deltas(
        &self,
        deltas: &BTreeMap<String, &[f32]>,
        output: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Copied, Error> {
        for name in deltas.keys() {
            let known = |file: &WeightsFile| file.metadata.info(name).is_some();
            assert!(self.files.iter().any(known), "`{name}` is no tensor");
        }
        let staged = Staged::beside(output)?;
        let mut written = 0;
        let (mut copied, mut growth) = (Copied::default(), 0);
        for file in &self.files {
            let sums = file.sums(deltas);
            growth += sums.values().map(|sum| sum.growth).sum::<u64>();
            let wide = sums.iter().filter(|(_, sum)| sum.growth > 0);
            copied.widened.extend(wide.map(|(name, _)| name.clone()));
            file.write(&staged.path(&file.name), &sums, &mut |bytes| {
                written += bytes;
                progress(written.min(self.size()), self.size());
            })?;
        }
        self.copy_side_files(&staged, growth)?;
        staged.commit()?;
        Ok(copied)
    }

    /// Everything in the folder that is no weights, and the index of the weights.
    fn copy_side_files(&self, staged: &Staged<'_>, growth: u64) -> Result<(), Error> {
        // Beside a single file, an index is left over from other weights.
        let sharded = self.files.iter().all(|file| file.name != SINGLE_FILE);
        for entry in fs::read_dir(&self.path).map_err(io(&self.path))? {
            let from = entry.map_err(io(&self.path))?.path();
            // Through symbolic links: the files of the hub's cache are such.
            let is_file = fs::metadata(&from).is_ok_and(|data| data.is_file());
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            let weights = WEIGHTS_ENDINGS
                .iter()
                .any(|ending| Path::new(&*name).extension().is_some_and(|e| e == *ending));
            // As in `pytorch_model.bin.index.json`.
            let index = name.ends_with(".index.json");
            if !is_file || name.starts_with('.') || weights || index {
                continue;
            }
            staged.copy(&from, &name)?;
        }
        if sharded {
            let path = self.path.join(INDEX_FILE);
            let text = index_with(&super::read_text(&path)?, growth)
                .map_err(|source| Error::Json { path, source })?;
            staged.write(INDEX_FILE, text.as_bytes())?;
        }
        Ok(())
    }
}

/// The text of an index whose weights have grown by some bytes.
fn index_with(text: &str, growth: u64) -> Result<String, serde_json::Error> {
    let mut index: Value = serde_json::from_str(text)?;
    match index.pointer_mut("/metadata/total_size") {
        Some(size) if growth > 0 => {
            *size = json!(size.as_u64().unwrap_or_default() + growth);
            Ok(format!("{index:#}\n"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// A tensor as it is after the addition.
struct Sum {
    dtype: Dtype,
    bytes: Vec<u8>,
    /// Bytes it has more than before.
    growth: u64,
}

impl WeightsFile {
    /// The tensors of this file that something is added to.
    fn sums(&self, deltas: &BTreeMap<String, &[f32]>) -> BTreeMap<String, Sum> {
        let found = deltas.iter().filter_map(|(name, delta)| {
            let info = self.metadata.info(name)?;
            let (start, end) = info.data_offsets;
            let bytes = &self.bytes.as_slice()[self.data_start + start..self.data_start + end];
            let base = through_f32(bytes, info.dtype, f64::from);
            assert_eq!(base.len(), delta.len(), "`{name}` and what is added to it");
            let sum = base.iter().zip(*delta).map(|(a, b)| a + f64::from(*b));
            Some((name.clone(), Sum::new(&sum.collect::<Vec<f64>>(), info)))
        });
        found.collect()
    }

    /// Writes this file with some of its tensors replaced. `progress` is called with the bytes
    /// written since the last time.
    fn write(
        &self,
        path: &Path,
        sums: &BTreeMap<String, Sum>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut file = File::create(path).map_err(io(path))?;
        let mut put = |bytes: &[u8]| {
            for piece in bytes.chunks(1 << 24) {
                file.write_all(piece).map_err(io(path))?;
                progress(piece.len() as u64);
            }
            Ok(())
        };
        if sums.is_empty() {
            put(self.bytes.as_slice())?;
        } else {
            // Wide types first, as the format's own writer has it, so that every tensor stays
            // aligned; otherwise in the file's order.
            let mut names = self.metadata.offset_keys();
            let dtype_of = |name: &str| match sums.get(name) {
                Some(sum) => sum.dtype,
                None => self.info(name).dtype,
            };
            names.sort_by_key(|name| std::cmp::Reverse(dtype_of(name).bitsize()));
            put(&self.header(&names, sums))?;
            for name in &names {
                match sums.get(name) {
                    Some(sum) => put(&sum.bytes)?,
                    None => {
                        let (start, end) = self.info(name).data_offsets;
                        let (start, end) = (self.data_start + start, self.data_start + end);
                        put(&self.bytes.as_slice()[start..end])?;
                        self.bytes.forget(start, end - start);
                    }
                }
            }
        }
        file.sync_all().map_err(io(path))
    }

    /// Length and text of the header, for the tensors in this order.
    fn header(&self, names: &[String], sums: &BTreeMap<String, Sum>) -> Vec<u8> {
        let mut header = Map::new();
        if let Some(metadata) = self.metadata.metadata() {
            let sorted: BTreeMap<_, _> = metadata.iter().collect();
            header.insert("__metadata__".into(), json!(sorted));
        }
        let mut start = 0;
        for name in names {
            let info = self.info(name);
            let (dtype, len) = match sums.get(name) {
                Some(sum) => (sum.dtype, sum.bytes.len()),
                None => (info.dtype, info.data_offsets.1 - info.data_offsets.0),
            };
            let entry =
                json!({"dtype": dtype, "shape": info.shape, "data_offsets": [start, start + len]});
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

impl Sum {
    /// In the tensor's own type where that changes nothing, else in F32.
    fn new(values: &[f64], info: &TensorInfo) -> Self {
        let narrow = match info.dtype {
            Dtype::BF16 => in_type(values, bf16::from_f64, bf16::to_f64, bf16::to_le_bytes),
            Dtype::F16 => in_type(values, f16::from_f64, f16::to_f64, f16::to_le_bytes),
            _ => None,
        };
        let wide = || {
            values
                .iter()
                .flat_map(|value| (*value as f32).to_le_bytes())
        };
        let (dtype, bytes) = match narrow {
            Some(bytes) => (info.dtype, bytes),
            None => (Dtype::F32, wide().collect()),
        };
        let before = info.data_offsets.1 - info.data_offsets.0;
        Self {
            dtype,
            growth: (bytes.len() - before) as u64,
            bytes,
        }
    }
}

/// The bytes of `values` in a type of two bytes, if it holds each of them exactly.
fn in_type<T: Copy>(
    values: &[f64],
    narrow: impl Fn(f64) -> T,
    widen: impl Fn(T) -> f64,
    bytes: impl Fn(T) -> [u8; 2],
) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(2 * values.len());
    for value in values {
        let narrowed = narrow(*value);
        if widen(narrowed) != *value {
            return None;
        }
        all.extend(bytes(narrowed));
    }
    Some(all)
}

/// A folder that is there whole or not at all.
struct Staged<'a> {
    dir: tempfile::TempDir,
    output: &'a Path,
}

impl<'a> Staged<'a> {
    fn beside(output: &'a Path) -> Result<Self, Error> {
        let mut entries = match fs::read_dir(output) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(output)(error)),
        };
        if entries
            .as_mut()
            .is_some_and(|entries| entries.next().is_some())
        {
            return Err(Error::NotEmpty {
                folder: output.to_owned(),
            });
        }
        let parent = match output.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(io(parent))?;
        let dir = tempfile::Builder::new()
            .prefix(".checkpoint-")
            .tempdir_in(parent)
            .map_err(io(parent))?;
        Ok(Self { dir, output })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<(), Error> {
        self.write(name, &fs::read(from).map_err(io(from))?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        let mut file = File::create(&path).map_err(io(&path))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(io(&path))
    }

    fn commit(self) -> Result<(), Error> {
        // Where there is something to remove, it is an empty folder; not every system renames
        // over one.
        if self.output.exists() {
            fs::remove_dir(self.output).map_err(io(self.output))?;
        }
        fs::rename(self.dir.path(), self.output).map_err(io(self.output))?;
        // Nothing is left under the temporary name.
        let _ = self.dir.keep();
        Ok(())
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;
    use tempfile::{TempDir, tempdir};

    use super::*;

    const FIRST: &str = "model.layers.0.self_attn.q_proj.bias";
    const LAST: &str = "model.layers.1.self_attn.v_proj.bias";

    /// A copy of a fixture model, to be spoiled.
    fn model(name: &str) -> TempDir {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let folder = tempdir().unwrap();
        for entry in fs::read_dir(from.join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        folder
    }

    fn save(from: &Path, deltas: &[(&str, &[f32])], to: &Path) -> Result<Copied, Error> {
        let deltas = deltas
            .iter()
            .map(|(name, delta)| (name.to_string(), *delta));
        Checkpoint::open(from)?.save_with_deltas(&deltas.collect(), to, &mut |_, _| {})
    }

    /// Type, shape and bytes of every tensor of a folder.
    fn tensors(folder: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
        let mut all = BTreeMap::new();
        for name in names(folder) {
            if name.ends_with(".safetensors") {
                let bytes = fs::read(folder.join(name)).unwrap();
                for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                    let shape = view.shape().to_vec();
                    all.insert(name.into(), (view.dtype(), shape, view.data().to_vec()));
                }
            }
        }
        all
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn widened((dtype, _, bytes): &(Dtype, Vec<usize>, Vec<u8>)) -> Vec<f32> {
        through_f32(bytes, *dtype, |value| value)
    }

    /// As many values as the tensor has, none of which a narrow type adds exactly.
    fn odd_delta(folder: &Path, name: &str) -> Vec<f32> {
        let count = widened(&tensors(folder)[name]).len();
        (0..count).map(|i| 1e-3 * (i as f32 + 0.7)).collect()
    }

    #[test]
    fn the_named_tensors_change_and_everything_else_stays() {
        for name in ["tied_gqa", "untied_mha", "sharded"] {
            let (from, to) = (model(name), tempdir().unwrap());
            let to = to.path().join("new/model");
            let deltas = [FIRST, LAST].map(|name| (name, odd_delta(from.path(), name)));
            let given = deltas.each_ref().map(|(name, delta)| (*name, &delta[..]));
            save(from.path(), &given, &to).unwrap();

            let (before, after) = (tensors(from.path()), tensors(&to));
            assert!(before.keys().eq(after.keys()), "{name}");
            for (tensor, found) in &after {
                let old = &before[tensor];
                match deltas.iter().find(|(name, _)| name == tensor) {
                    None => assert!(found == old, "{name}: {tensor}"),
                    Some((_, delta)) => {
                        let sum = widened(old).into_iter().zip(delta).map(|(a, b)| a + b);
                        assert_eq!(widened(found), sum.collect::<Vec<f32>>(), "{name}");
                        assert_eq!((found.0, &found.1), (Dtype::F32, &old.1), "{name}");
                    }
                }
            }
            assert_eq!(names(from.path()), names(&to));
            for file in names(&to) {
                if !file.contains("safetensors") {
                    let [old, new] = [from.path(), &to].map(|dir| fs::read(dir.join(&file)));
                    assert_eq!(old.unwrap(), new.unwrap(), "{name}: {file}");
                }
            }
            // And it is a checkpoint.
            Checkpoint::open(&to).unwrap();
            assert_eq!(names(to.parent().unwrap()), ["model"], "nothing temporary");
        }
    }

    #[test]
    fn a_type_is_widened_only_where_it_cannot_hold_the_sum() {
        let (from, to) = (model("sharded"), tempdir().unwrap());
        let before = tensors(from.path());
        let odd = odd_delta(from.path(), LAST);
        // Twice a number is as exact as the number.
        let double = widened(&before[FIRST]);
        let copied = save(from.path(), &[(FIRST, &double), (LAST, &odd)], to.path()).unwrap();
        assert_eq!(copied.widened, [LAST]);
        let after = tensors(to.path());
        assert_eq!(after[FIRST].0, Dtype::BF16);
        let doubled: Vec<f32> = double.iter().map(|value| 2.0 * value).collect();
        assert_eq!(widened(&after[FIRST]), doubled);

        let size = |folder: &Path| {
            let index = fs::read_to_string(folder.join(INDEX_FILE)).unwrap();
            let index: Value = serde_json::from_str(&index).unwrap();
            index["metadata"]["total_size"].as_u64().unwrap()
        };
        let growth = 2 * odd.len() as u64;
        assert_eq!(size(to.path()), size(from.path()) + growth);
    }

    #[test]
    fn a_shard_that_nothing_changes_in_is_the_same_file() {
        let (from, to) = (model("sharded"), tempdir().unwrap());
        let index = fs::read_to_string(from.path().join(INDEX_FILE)).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        let shard = index["weight_map"][FIRST].as_str().unwrap();
        let odd = odd_delta(from.path(), FIRST);
        save(from.path(), &[(FIRST, &odd)], to.path()).unwrap();
        for name in names(to.path()) {
            if name.ends_with(".safetensors") {
                let [old, new] = [from.path(), to.path()].map(|dir| fs::read(dir.join(&name)));
                assert_eq!(old.unwrap() == new.unwrap(), name != shard, "{name}");
            }
        }
    }

    #[test]
    fn weights_that_were_not_changed_do_not_come_along() {
        let (from, to) = (model("tied_gqa"), tempdir().unwrap());
        let clean = names(from.path());
        for name in [
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "consolidated.safetensors",
            "model-q4.gguf",
            INDEX_FILE,
            ".gitattributes",
        ] {
            fs::write(from.path().join(name), "{}").unwrap();
        }
        fs::create_dir(from.path().join("onnx")).unwrap();
        save(from.path(), &[], to.path()).unwrap();
        assert_eq!(names(to.path()), clean);
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused_and_left_as_it_is() {
        let (from, to) = (model("tied_gqa"), tempdir().unwrap());
        fs::write(to.path().join("mine"), "x").unwrap();
        let message = save(from.path(), &[], to.path()).unwrap_err().to_string();
        assert!(message.ends_with("the folder is not empty; give one that is, or a new one"));
        assert_eq!(names(to.path()), ["mine"]);
        let file = to.path().join("mine");
        let message = save(from.path(), &[], &file).unwrap_err().to_string();
        assert!(message.starts_with(file.to_str().unwrap()), "{message}");
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let (from, to) = (model("sharded"), tempdir().unwrap());
        let open = Checkpoint::open(from.path()).unwrap();
        // Gone after the shards were opened, needed when they are written.
        fs::remove_file(from.path().join(INDEX_FILE)).unwrap();
        let output = to.path().join("model");
        let saved = open.save_with_deltas(&BTreeMap::new(), &output, &mut |_, _| {});
        assert!(saved.unwrap_err().to_string().contains(INDEX_FILE));
        assert!(names(to.path()).is_empty());
    }
}
