//! A model's weights by their place in the block, checked against the config before use.

mod convert;
mod files;
mod gates;
mod names;
mod random;

use std::collections::BTreeMap;
use std::path::Path;

use lim_kernels::{DType, HostTensor};

use crate::{Config, Error, Result};
use files::Files;
pub(crate) use files::{INDEX, SINGLE, shard_files};
pub use gates::Gates;
pub(crate) use gates::{FILE as GATES, parameters as gate_parameters};
use names::{EMBEDDING, HEAD, NORM};
use random::Random;

/// Named tensors: memory-mapped or embedded safetensors files, or random numbers in their place.
#[derive(Debug)]
pub struct Checkpoint(Source);

#[derive(Clone, Debug)]
enum Source {
    Files(Files),
    Random(Random),
}

impl Checkpoint {
    /// Maps a directory's `model.safetensors`, or the files that its `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// When there is neither, a file cannot be mapped, is cut short or is not safetensors, or the index and the files
    /// disagree.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Checkpoint(Source::Files(Files::open(dir)?)))
    }

    /// A checkpoint of one safetensors file in memory; `name` stands for the file in errors.
    ///
    /// # Errors
    /// When the bytes are not a whole safetensors file.
    pub fn from_bytes(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Checkpoint(Source::Files(Files::from_bytes(name, bytes)?)))
    }

    /// Random weights of the right shapes in `dtype`, for measurements without a checkpoint. The same seed gives the
    /// same weights. Tensors are made when they are asked for, so the whole model never has to lie in host memory.
    pub fn random(dtype: DType, seed: u64) -> Self {
        Checkpoint(Source::Random(Random { dtype, seed }))
    }

    /// Element type of most of the weights, by bytes.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Source::Files(files) => files.dtype(),
            Source::Random(random) => random.dtype,
        }
    }

    /// Checks presence, shape and type of every tensor that `config` calls for, and hands them out as they lie in the
    /// files or, where `convert` is given, converted to that type.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape or type, or `convert` is not f32 or bf16.
    pub fn weights(self, config: &Config, convert: Option<DType>) -> Result<Weights> {
        if convert == Some(DType::F16) {
            return Err(Error::Convert { to: DType::F16 });
        }
        let shapes = names::shapes(config);
        if let Source::Files(files) = &self.0 {
            for (name, shape) in &shapes {
                files.check(name, shape)?;
            }
        }
        Ok(Weights { source: self.0, shapes, convert })
    }
}

/// A linear layer: weight `[out, in]` and, where the model has one, bias `[out]`. A part for `Backend::linear`.
pub type Projection = (HostTensor<2>, Option<HostTensor<1>>);

/// One block's attention weights.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[H * head_dim, hidden]`.
    pub q: Projection,
    /// `[kv * head_dim, hidden]`.
    pub k: Projection,
    /// `[kv * head_dim, hidden]`.
    pub v: Projection,
    /// `[hidden, H * head_dim]`.
    pub o: Projection,
    /// RMSNorm weights `[head_dim]` of queries and keys (Qwen3).
    pub qk_norm: Option<(HostTensor<1>, HostTensor<1>)>,
}

/// One block's weights.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// RMSNorm before the attention, `[hidden]`.
    pub attention_norm: HostTensor<1>,
    /// Attention.
    pub attention: Attention,
    /// RMSNorm before the feed-forward layer, `[hidden]`.
    pub mlp_norm: HostTensor<1>,
    /// `[intermediate, hidden]`.
    pub gate: Projection,
    /// `[intermediate, hidden]`.
    pub up: Projection,
    /// `[hidden, intermediate]`.
    pub down: Projection,
}

/// A checked checkpoint. Tensors are views into the files; a conversion happens when a tensor is handed out.
#[derive(Clone, Debug)]
pub struct Weights {
    source: Source,
    /// Every tensor of the model with its shape.
    shapes: BTreeMap<String, Vec<usize>>,
    convert: Option<DType>,
}

impl Weights {
    /// The same weights without conversion, for a device that converts them on their way. Copies no tensor.
    pub fn as_stored(&self) -> Weights {
        Weights { convert: None, ..self.clone() }
    }

    /// Embedding, `[vocab, hidden]`.
    ///
    /// # Errors
    /// When memory for a copy cannot be had; the same holds for the other tensors.
    pub fn embedding(&self) -> Result<HostTensor<2>> {
        self.tensor(EMBEDDING)
    }

    /// Head, `[vocab, hidden]`; `None` where it is the embedding.
    ///
    /// # Errors
    /// As [`Weights::embedding`].
    pub fn head(&self) -> Result<Option<HostTensor<2>>> {
        self.optional(HEAD)
    }

    /// Final RMSNorm, `[hidden]`.
    ///
    /// # Errors
    /// As [`Weights::embedding`].
    pub fn norm(&self) -> Result<HostTensor<1>> {
        self.tensor(NORM)
    }

    /// Weights of block `layer`.
    ///
    /// # Errors
    /// When there is no such block; else as [`Weights::embedding`].
    pub fn layer(&self, layer: usize) -> Result<LayerWeights> {
        let name = |part: &str| names::in_block(layer, part);
        let vector = |part: &str| self.tensor(&name(part));
        let linear = |part: &str| -> Result<Projection> {
            let weight = self.tensor(&name(&format!("{part}.weight")))?;
            Ok((weight, self.optional(&name(&format!("{part}.bias")))?))
        };
        let qk_norm = (
            self.optional(&name("self_attn.q_norm.weight"))?,
            self.optional(&name("self_attn.k_norm.weight"))?,
        );
        Ok(LayerWeights {
            attention_norm: vector("input_layernorm.weight")?,
            attention: Attention {
                q: linear("self_attn.q_proj")?,
                k: linear("self_attn.k_proj")?,
                v: linear("self_attn.v_proj")?,
                o: linear("self_attn.o_proj")?,
                qk_norm: qk_norm.0.zip(qk_norm.1),
            },
            mlp_norm: vector("post_attention_layernorm.weight")?,
            gate: linear("mlp.gate_proj")?,
            up: linear("mlp.up_proj")?,
            down: linear("mlp.down_proj")?,
        })
    }

    /// Tensors in the files that no part of the model reads, ascending. Old checkpoints' `rotary_emb.inv_freq` and a
    /// tied model's copy of its head are not counted.
    pub fn unused(&self) -> Vec<String> {
        let Source::Files(files) = &self.source else { return Vec::new() };
        let known = |name: &str| name.ends_with("rotary_emb.inv_freq") || name == HEAD;
        let mut unused: Vec<String> = files
            .names()
            .filter(|name| !self.shapes.contains_key(*name) && !known(name))
            .map(str::to_owned)
            .collect();
        unused.sort();
        unused
    }

    /// The tensor, where the model has one of that name.
    fn optional<const R: usize>(&self, name: &str) -> Result<Option<HostTensor<R>>> {
        self.shapes.contains_key(name).then(|| self.tensor(name)).transpose()
    }

    fn tensor<const R: usize>(&self, name: &str) -> Result<HostTensor<R>> {
        let missing = || Error::MissingTensor { tensor: name.into(), file: "the model".into() };
        let shape: [usize; R] =
            self.shapes.get(name).and_then(|s| s[..].try_into().ok()).ok_or_else(missing)?;
        let tensor = match &self.source {
            Source::Files(files) => files.tensor(name, shape)?,
            Source::Random(random) => random.tensor(name, shape)?,
        };
        match self.convert {
            Some(dtype) => convert::convert(tensor, dtype),
            None => Ok(tensor),
        }
    }
}
