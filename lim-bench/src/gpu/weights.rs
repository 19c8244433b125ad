//! All matrices of Qwen3-8B, and the products of one decode step.

use std::rc::Rc;
use std::sync::Arc;

use lim_kernels::cuda::{Cuda, CudaBatch, CudaLinear, CudaRows, CudaVector};
use lim_kernels::{
    Backend, Capacity, DType, HostBytes, HostTensor, LinearAdd, Logits, NormGateUp, NormLinear, PageSize,
    Result, RowsKind, Step, Tensor,
};

use super::{Noise, Prepared, heads};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 12_288;
/// Rows of embedding and head.
pub(super) const VOCAB: usize = 151_936;
const EPS: f32 = 1e-6;
/// The most rows of a step.
const ROWS: usize = 16;
/// Elements of the random block that all weights repeat: they differ in address, which is what caches see.
const BLOCK: usize = 32 << 20;

/// A product of a layer, or the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// norm + `[6144, 4096]`.
    Qkv,
    /// `[4096, 4096]` + add.
    O,
    /// norm + `[24576, 4096]` + SwiGLU.
    GateUp,
    /// `[4096, 12288]` + add.
    Down,
    /// norm + `[151936, 4096]`.
    Head,
}

impl Product {
    /// The four of a layer in their order.
    pub const LAYER: [Product; 4] = [Product::Qkv, Product::O, Product::GateUp, Product::Down];

    /// Extents of the weight, `[out, in]`.
    pub fn shape(self) -> [usize; 2] {
        match self {
            Product::Qkv => [6144, HIDDEN],
            Product::O => [HIDDEN, HIDDEN],
            Product::GateUp => [2 * INTERMEDIATE, HIDDEN],
            Product::Down => [HIDDEN, INTERMEDIATE],
            Product::Head => [VOCAB, HIDDEN],
        }
    }

    /// Bytes of the weight in bf16.
    pub fn bytes(self) -> u64 {
        self.shape().iter().product::<usize>() as u64 * 2
    }
}

/// Random bf16 weights of the shapes of Qwen3-8B, with as many layers as asked for.
pub struct Model {
    layers: Vec<[CudaLinear; 4]>,
    /// `[151936, 4096]`; serves as embedding too.
    pub(super) head: CudaLinear,
    norm: CudaVector,
}

impl Model {
    /// Brings the weights to the device: 15.1 GB for 36 layers.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn new(cuda: &mut Cuda, layers: usize) -> Result<Rc<Self>> {
        let block = random_bf16(BLOCK);
        let mut make = |product: Product| {
            let [out, width] = product.shape();
            let most = BLOCK / width;
            let part = |start: usize| {
                let rows = most.min(out - start);
                let bytes = HostBytes::new(block.clone(), 0..rows * width * 2)?;
                Ok((HostTensor { dtype: DType::BF16, shape: [rows, width], bytes }, None))
            };
            let parts = (0..out).step_by(most).map(part).collect::<Result<Vec<_>>>()?;
            cuda.linear(&parts)
        };
        let mut all = Vec::with_capacity(layers);
        for _ in 0..layers {
            let [qkv, o, gate_up, down] = Product::LAYER;
            all.push([make(qkv)?, make(o)?, make(gate_up)?, make(down)?]);
        }
        let head = make(Product::Head)?;
        let bytes = 1f32.to_le_bytes().repeat(HIDDEN).into();
        let norm = cuda.vector(&HostTensor { dtype: DType::F32, shape: [HIDDEN], bytes })?;
        Ok(Rc::new(Model { layers: all, head, norm }))
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        let layer: u64 = Product::LAYER.iter().map(|product| product.bytes()).sum();
        self.layers.len() as u64 * layer + Product::Head.bytes()
    }

    /// Every product of one step of `rows` rows, in one call.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn step(self: &Rc<Self>, cuda: &mut Cuda, rows: usize) -> Result<Prepared> {
        let (model, bytes) = (Rc::clone(self), self.bytes());
        let mut work = Work::new(cuda, rows)?;
        Prepared::new(cuda, 1, bytes, move |cuda, _| {
            for layer in 0..model.layers.len() {
                Product::LAYER.iter().try_for_each(|product| work.run(cuda, &model, *product, layer))?;
            }
            work.run(cuda, &model, Product::Head, 0)
        })
    }

    /// One product of `rows` rows; the calls take the layers in turn.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn product(self: &Rc<Self>, cuda: &mut Cuda, product: Product, rows: usize) -> Result<Prepared> {
        let model = Rc::clone(self);
        let calls = if product == Product::Head { 2 } else { self.layers.len() };
        let mut work = Work::new(cuda, rows)?;
        Prepared::new(cuda, calls, product.bytes(), move |cuda, call| work.run(cuda, &model, product, call))
    }
}

/// What the products read and write besides weights.
struct Work {
    batch: CudaBatch,
    ids: Vec<u32>,
    /// Residual stream.
    x: Tensor<CudaRows, 2>,
    qkv: Tensor<CudaRows, 2>,
    attended: Tensor<CudaRows, 2>,
    gated: Tensor<CudaRows, 2>,
    logits: Tensor<CudaRows, 2>,
}

impl Work {
    fn new(cuda: &mut Cuda, rows: usize) -> Result<Self> {
        let capacity = Capacity { rows: ROWS, seqs: ROWS, tokens: 16 };
        let mut step = Step::default();
        (0..rows).try_for_each(|_| step.push(&[0], 1, &[0]))?;
        let mut batch = cuda.batch(capacity, PageSize::default())?;
        cuda.upload(&step, &mut batch)?;
        let mut noise = Noise::new(5);
        let mut filled = |cuda: &mut Cuda, kind, width| {
            let mut made = cuda.rows(kind, [ROWS, width])?;
            cuda.write_rows(&noise.floats(ROWS * width, 1.0), &mut made)?;
            Ok::<_, lim_kernels::Error>(made)
        };
        Ok(Work {
            batch,
            ids: (0..rows as u32).collect(),
            x: filled(cuda, RowsKind::Residual, HIDDEN)?,
            qkv: filled(cuda, RowsKind::Activation, heads()?.qkv_width())?,
            attended: filled(cuda, RowsKind::Activation, HIDDEN)?,
            gated: filled(cuda, RowsKind::Activation, INTERMEDIATE)?,
            logits: cuda.rows(RowsKind::Logits, [ROWS, VOCAB])?,
        })
    }

    fn run(&mut self, cuda: &mut Cuda, model: &Model, product: Product, layer: usize) -> Result<()> {
        let Work { batch, ids, x, qkv, attended, gated, logits } = self;
        let norm = &model.norm;
        match product {
            Product::Qkv => {
                let linear = &model.layers[layer][0];
                cuda.norm_linear(NormLinear { x, norm, eps: EPS, linear, batch, out: qkv })
            }
            Product::O => {
                cuda.linear_add(LinearAdd { a: attended, linear: &model.layers[layer][1], batch, x })
            }
            Product::GateUp => {
                let gate_up = &model.layers[layer][2];
                cuda.norm_gate_up(NormGateUp { x, norm, eps: EPS, gate_up, batch, out: gated })
            }
            Product::Down => {
                cuda.linear_add(LinearAdd { a: gated, linear: &model.layers[layer][3], batch, x })
            }
            Product::Head => {
                cuda.logits(Logits { x, norm, eps: EPS, head: &model.head, rows: ids, out: logits })
            }
        }
    }
}

/// `count` little-endian bf16 elements, uniform in [-0.035, 0.035): a standard deviation of 0.02.
fn random_bf16(count: usize) -> Arc<Vec<u8>> {
    let mut noise = Noise::new(9);
    let mut bytes = Vec::with_capacity(2 * count);
    for _ in 0..count {
        bytes.extend_from_slice(&half::bf16::from_f32(noise.float(0.035)).to_le_bytes());
    }
    Arc::new(bytes)
}
