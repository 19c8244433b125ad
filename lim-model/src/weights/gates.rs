//! Gates of pages for policy `seer`: a safetensors file beside the model, or random numbers in its place.

use std::path::Path;

use lim_kernels::{DType, HostTensor, PageSize};

use super::files::Files;
use super::random::Random;
use super::{Source, names};
use crate::{Config, Error, Result};

/// The file of a model's gates.
pub(crate) const FILE: &str = "seer.safetensors";

/// Gate weights of all layers, checked against the config.
///
/// Layer i has `model.layers.i.self_attn.seer.q_proj.weight`, `[kv_heads * d, g * d]` with g query heads per KV head, and
/// `...seer.k_proj.weight`, `[kv_heads * d, 3 * d]`; [`lim_kernels::PageGates`] says what they do. The file's metadata
/// has the page size that they were made for, `{"page_size": "16"}`.
#[derive(Clone, Debug)]
pub struct Gates {
    source: Source,
    /// `None`: any.
    page_size: Option<PageSize>,
    /// Of the two weights.
    shapes: [[usize; 2]; 2],
    layers: usize,
}

impl Gates {
    /// Maps a gate file.
    ///
    /// # Errors
    /// When it cannot be mapped or is malformed, names no page size, or a tensor is missing or has another shape or type.
    pub fn open(path: &Path, config: &Config) -> Result<Self> {
        let (files, page_size) = Files::open_gates(path)?;
        Gates::check(&path.display().to_string(), files, page_size, config)
    }

    /// The gates of a file in memory; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`Gates::open`].
    pub fn from_bytes(name: &str, bytes: &'static [u8], config: &Config) -> Result<Self> {
        let (files, page_size) = Files::gates_from_bytes(name, bytes)?;
        Gates::check(name, files, page_size, config)
    }

    /// Random gates for pages of any size, for measurements without a checkpoint.
    pub fn random(config: &Config, dtype: DType, seed: u64) -> Self {
        let source = Source::Random(Random { dtype, seed });
        Gates { source, page_size: None, shapes: shapes(config), layers: config.layers }
    }

    fn check(file: &str, files: Files, page_size: Option<String>, config: &Config) -> Result<Self> {
        let shapes = shapes(config);
        for layer in 0..config.layers {
            for (name, shape) in names::gates(layer).iter().zip(&shapes) {
                files.check(name, shape)?;
            }
        }
        let tokens = page_size.as_deref().and_then(|text| PageSize::new(text.parse().ok()?).ok());
        let page_size = tokens.ok_or_else(|| Error::Value {
            file: file.into(),
            key: "__metadata__.page_size".into(),
            found: page_size.unwrap_or_else(|| "missing".into()),
            must: "the page size that the gates were made for, a power of two from 1 to 256".into(),
        })?;
        Ok(Gates { source: Source::Files(files), page_size: Some(page_size), shapes, layers: config.layers })
    }

    /// Size of the pages that the gates were made for; `None` for random ones, which take any.
    pub fn page_size(&self) -> Option<PageSize> {
        self.page_size
    }

    /// Wq and Wk of a layer.
    ///
    /// # Errors
    /// When there is no such layer, or memory for a copy cannot be had.
    pub fn layer(&self, layer: usize) -> Result<[HostTensor<2>; 2]> {
        let [q, k] = names::gates(layer);
        if layer >= self.layers {
            return Err(Error::MissingTensor { tensor: q, file: "the gates".into() });
        }
        let tensor = |name: &str, shape| match &self.source {
            Source::Files(files) => files.tensor(name, shape),
            Source::Random(random) => random.tensor(name, shape),
        };
        Ok([tensor(&q, self.shapes[0])?, tensor(&k, self.shapes[1])?])
    }
}

/// Elements of all layers' gates.
pub(crate) fn parameters(config: &Config) -> u64 {
    config.layers as u64 * shapes(config).iter().map(|[out, inputs]| (out * inputs) as u64).sum::<u64>()
}

fn shapes(config: &Config) -> [[usize; 2]; 2] {
    let heads = config.heads;
    let out = heads.kv() * heads.dim();
    [[out, heads.group() * heads.dim()], [out, 3 * heads.dim()]]
}
