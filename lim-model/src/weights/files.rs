//! Safetensors files, mapped into memory or embedded, single or sharded with an index.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lim_kernels::{DType, HostBytes, HostTensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::convert;
use crate::config::parse_object;
use crate::{Error, Result};

/// The file of an unsharded checkpoint.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The index of a sharded one.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Bytes of the header's length field, before the header.
const LENGTH_FIELD: usize = 8;

/// All tensors of one or more files, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    tensors: HashMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    file: Arc<str>,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: HostBytes,
}

impl Files {
    /// HF's order: the single file where there is one, else the index's shards.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut files = Files::default();
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.is_file() {
            files.add(&single.display().to_string(), map(&single)?)?;
        } else if index.is_file() {
            files.open_shards(dir, &index)?;
        } else {
            let (model, file) = (dir.display().to_string(), format!("{SINGLE} or {INDEX}"));
            return Err(Error::MissingFile { model, file });
        }
        Ok(files)
    }

    pub(super) fn from_bytes(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let mut files = Files::default();
        files.add(name, Arc::new(bytes))?;
        Ok(files)
    }

    /// One file of gates, and the page size in its metadata.
    pub(super) fn open_gates(path: &Path) -> Result<(Self, Option<String>)> {
        let mut files = Files::default();
        let page_size = files.add(&path.display().to_string(), map(path)?)?;
        Ok((files, page_size))
    }

    pub(super) fn gates_from_bytes(name: &str, bytes: &'static [u8]) -> Result<(Self, Option<String>)> {
        let mut files = Files::default();
        let page_size = files.add(name, Arc::new(bytes))?;
        Ok((files, page_size))
    }

    fn open_shards(&mut self, dir: &Path, index: &Path) -> Result<()> {
        let shards = shards(index)?;
        for name in shards.values().collect::<BTreeSet<_>>() {
            let path = dir.join(name);
            self.add(&path.display().to_string(), map(&path)?)?;
        }
        for (tensor, shard) in &shards {
            let file = dir.join(shard).display().to_string();
            match self.tensors.get(tensor) {
                Some(entry) if *entry.file == *file => {}
                _ => return Err(Error::MissingTensor { tensor: tensor.clone(), file }),
            }
        }
        Ok(())
    }

    /// Adds a file's tensors; what its metadata calls `page_size`.
    fn add(&mut self, file: &str, owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Option<String>> {
        let bytes = (*owner).as_ref();
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| Error::Malformed {
            file: file.into(),
            reason: format!("not a whole safetensors file ({} bytes): {e}", bytes.len()),
        })?;
        let name: Arc<str> = file.into();
        for (tensor, info) in metadata.tensors() {
            let place = |offset: usize| offset.saturating_add(LENGTH_FIELD + header);
            let range = place(info.data_offsets.0)..place(info.data_offsets.1);
            let entry = Entry {
                file: name.clone(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: HostBytes::new(owner.clone(), range)?,
            };
            if let Some(twin) = self.tensors.insert(tensor.clone(), entry) {
                let reason = format!("tensor {tensor} is also in {}", twin.file);
                return Err(Error::Malformed { file: file.into(), reason });
            }
        }
        Ok(metadata.metadata().as_ref().and_then(|texts| texts.get("page_size")).cloned())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Element type with the most bytes; f32 where there is no tensor.
    pub(super) fn dtype(&self) -> DType {
        let bytes_of = |dtype: DType| -> usize {
            let of_type = |e: &&Entry| known(e.dtype) == Some(dtype);
            self.tensors.values().filter(of_type).map(|e| e.bytes.as_slice().len()).sum()
        };
        [DType::F32, DType::F16, DType::BF16]
            .into_iter()
            .rev()
            .max_by_key(|d| bytes_of(*d))
            .unwrap_or(DType::F32)
    }

    /// The element type of tensor `name`, once its presence and shape are checked.
    pub(super) fn check(&self, name: &str, shape: &[usize]) -> Result<DType> {
        self.entry(name, shape).map(|(_, dtype)| dtype)
    }

    pub(super) fn tensor<const R: usize>(&self, name: &str, shape: [usize; R]) -> Result<HostTensor<R>> {
        let (entry, dtype) = self.entry(name, &shape)?;
        Ok(HostTensor { dtype, shape, bytes: aligned(&entry.bytes, dtype)? })
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, DType)> {
        let tensor = || name.to_owned();
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor { tensor: tensor(), file: self.describe() })?;
        let file = || entry.file.to_string();
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(Error::TensorShape { tensor: tensor(), file: file(), found, expected });
        }
        let dtype = known(entry.dtype).ok_or_else(|| Error::TensorDType {
            tensor: tensor(),
            file: file(),
            found: format!("{:?}", entry.dtype),
        })?;
        Ok((entry, dtype))
    }

    /// The files' names, for an error about none of them in particular.
    fn describe(&self) -> String {
        let mut files: Vec<&str> = self.tensors.values().map(|e| &*e.file).collect();
        files.sort_unstable();
        files.dedup();
        match files[..] {
            [] => "an empty checkpoint".into(),
            [file] => file.into(),
            [first, .., last] => format!("{first} to {last} ({} files)", files.len()),
        }
    }
}

fn known(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// The bytes themselves where they can be read as elements in place, else a copy that can: old headers are not padded.
fn aligned(bytes: &HostBytes, dtype: DType) -> Result<HostBytes> {
    let slice = bytes.as_slice();
    if slice.as_ptr().addr().is_multiple_of(dtype.bytes()) {
        return Ok(bytes.clone());
    }
    let words = slice.len().div_ceil(size_of::<u32>());
    let mut copy = convert::room(words)?;
    copy.resize(words, 0u32);
    bytemuck::cast_slice_mut(&mut copy)[..slice.len()].copy_from_slice(slice);
    convert::host_bytes(copy, slice.len())
}

fn map(path: &Path) -> Result<Arc<dyn AsRef<[u8]> + Send + Sync>> {
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the mapping is read-only and private to this process's view. As with every mapped file, changing or
    // cutting it while it is in use is on whoever does that; checkpoints are written once, under a name of their own.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Arc::new(map))
}

/// Names of the files that a directory's index lists, ascending.
///
/// # Errors
/// When there is no index, or it is malformed.
pub(crate) fn shard_files(dir: &Path) -> Result<BTreeSet<String>> {
    Ok(shards(&dir.join(INDEX))?.into_values().collect())
}

/// Tensor -> shard, by the index file. Shards are plain file names, so an index cannot reach outside the directory.
fn shards(index: &Path) -> Result<HashMap<String, String>> {
    let file = index.display().to_string();
    let malformed = |reason: String| Error::Malformed { file: file.clone(), reason };
    let json = parse_object(&file, &std::fs::read(index).map_err(Error::io(index))?)?;
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| malformed("no object weight_map".into()))?;
    map.iter()
        .map(|(tensor, shard)| {
            let shard = shard.as_str().filter(|s| is_plain_name(s)).ok_or_else(|| {
                malformed(format!("weight_map puts {tensor} in {shard}, which is not a plain file name"))
            })?;
            Ok((tensor.clone(), shard.to_owned()))
        })
        .collect()
}

fn is_plain_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|f| f == name) && PathBuf::from(name).components().count() == 1
}
