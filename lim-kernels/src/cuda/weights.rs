//! Weights on the device.

use super::convert::{check_bytes, convert, decode};
use super::{Buffer, Cuda};
use crate::{DType, Error, HostTensor, Result};

/// A weight matrix `[out, in]` of the context's type, its parts stacked, row-major.
pub struct CudaLinear {
    /// `[out, in]` elements.
    pub(super) weight: Buffer<u8>,
    /// `[out]`, where any part has one; zero for parts that do not.
    pub(super) bias: Option<Buffer<f32>>,
    /// `[out, in]`.
    pub(super) shape: [usize; 2],
    /// Type of the weight.
    pub(super) dtype: DType,
}

/// A norm weight `[width]`, float32.
pub struct CudaVector {
    pub(super) data: Buffer<f32>,
}

/// Cosines and sines, each `[positions, half]`, float32.
pub struct CudaRope {
    pub(super) cos: Buffer<f32>,
    pub(super) sin: Buffer<f32>,
    pub(super) positions: usize,
    pub(super) half: usize,
}

impl Cuda {
    pub(super) fn make_linear(
        &mut self,
        parts: &[(HostTensor<2>, Option<HostTensor<1>>)],
    ) -> Result<CudaLinear> {
        let Some((first, _)) = parts.first() else {
            return Err(range("parts", 0, "at least 1".into()));
        };
        let (dtype, width) = (self.dtype(), first.shape[1]);
        let out: usize = parts.iter().map(|(part, _)| part.shape[0]).sum();
        let mut weight = self.zeros::<u8>(out * width * dtype.bytes(), "a weight")?;
        let mut bias = vec![0f32; if parts.iter().any(|(_, bias)| bias.is_some()) { out } else { 0 }];
        let mut row = 0;
        for (part, part_bias) in parts {
            let [rows, cols] = part.shape;
            if cols != width {
                return Err(shape("a part", &part.shape, &[rows, width]));
            }
            check_bytes("linear", part.bytes.as_slice().len(), &part.shape, part.dtype)?;
            let at = row * width * dtype.bytes();
            if part.dtype == dtype {
                self.copy_in(part.bytes.as_slice(), &mut weight, at)?;
            } else {
                self.copy_in(&convert(part.bytes.as_slice(), part.dtype, dtype), &mut weight, at)?;
            }
            if let Some(b) = part_bias {
                if b.shape != [rows] {
                    return Err(shape("a bias", &b.shape, &[rows]));
                }
                check_bytes("linear", b.bytes.as_slice().len(), &b.shape, b.dtype)?;
                bias[row..row + rows].copy_from_slice(&decode(b.bytes.as_slice(), b.dtype));
            }
            row += rows;
        }
        let bias = if bias.is_empty() { None } else { Some(self.upload_slice(&bias, "a bias")?) };
        Ok(CudaLinear { weight, bias, shape: [out, width], dtype })
    }

    pub(super) fn make_vector(&mut self, weight: &HostTensor<1>) -> Result<CudaVector> {
        check_bytes("vector", weight.bytes.as_slice().len(), &weight.shape, weight.dtype)?;
        let data = decode(weight.bytes.as_slice(), weight.dtype);
        Ok(CudaVector { data: self.upload_slice(&data, "a norm weight")? })
    }

    pub(super) fn make_rope(&mut self, cos: &[f32], sin: &[f32], half: usize) -> Result<CudaRope> {
        if half == 0 || !cos.len().is_multiple_of(half) || cos.is_empty() {
            return Err(range("cosines", cos.len(), format!("a positive multiple of half, {half}")));
        }
        if sin.len() != cos.len() {
            return Err(range("sines", sin.len(), format!("as many as cosines, {}", cos.len())));
        }
        let positions = cos.len() / half;
        let cos = self.upload_slice(cos, "rotary tables")?;
        let sin = self.upload_slice(sin, "rotary tables")?;
        Ok(CudaRope { cos, sin, positions, half })
    }
}

fn range(what: &'static str, got: usize, must: String) -> Error {
    Error::Range { op: "weights", what, got: got as u64, must }
}

fn shape(operand: &'static str, got: &[usize], expected: &[usize]) -> Error {
    Error::Shape { op: "linear", operand, got: got.to_vec(), expected: expected.to_vec() }
}
