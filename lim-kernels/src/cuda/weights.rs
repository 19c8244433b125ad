//! Weights on the device.

use super::check::shape_error;
use super::convert::decode;
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
            return Err(Error::Range { op: "linear", what: "parts", got: 0, must: "at least 1".into() });
        };
        let (dtype, width) = (self.dtype(), first.shape[1]);
        let out = parts.iter().fold(0usize, |sum, (part, _)| sum.saturating_add(part.shape[0]));
        let bytes = out.saturating_mul(width).saturating_mul(dtype.bytes());
        let mut weight = self.zeros::<u8>(bytes, "a weight")?;
        let mut bias = vec![0f32; if parts.iter().any(|(_, bias)| bias.is_some()) { out } else { 0 }];
        let mut row = 0;
        for (part, part_bias) in parts {
            let [rows, cols] = part.shape;
            if cols != width || rows == 0 || cols == 0 {
                return Err(shape_error("linear", "weight", &part.shape, &[rows.max(1), width.max(1)]));
            }
            expect_bytes("linear", "weight", part)?;
            let at = row * width * dtype.bytes();
            self.stream_in(part.bytes.as_slice(), [part.dtype, dtype], &mut weight, at)?;
            if let Some(b) = part_bias {
                if b.shape != [rows] {
                    return Err(shape_error("linear", "bias", &b.shape, &[rows]));
                }
                expect_bytes("linear", "bias", b)?;
                bias[row..row + rows].copy_from_slice(&decode(b.bytes.as_slice(), b.dtype));
            }
            row += rows;
        }
        let bias = if bias.is_empty() { None } else { Some(self.upload_slice(&bias, "a bias")?) };
        Ok(CudaLinear { weight, bias, shape: [out, width], dtype })
    }

    pub(super) fn make_vector(&mut self, weight: &HostTensor<1>) -> Result<CudaVector> {
        expect_bytes("vector", "weight", weight)?;
        let data = decode(weight.bytes.as_slice(), weight.dtype);
        Ok(CudaVector { data: self.upload_slice(&data, "a norm weight")? })
    }

    pub(super) fn make_rope(&mut self, cos: &[f32], sin: &[f32], half: usize) -> Result<CudaRope> {
        if half == 0 || cos.len() != sin.len() || !cos.len().is_multiple_of(half) {
            let positions = cos.len() / half.max(1);
            return Err(shape_error("rope", "cos and sin", &[cos.len(), sin.len()], &[positions * half; 2]));
        }
        let positions = cos.len() / half;
        let cos = self.upload_slice(cos, "rotary tables")?;
        let sin = self.upload_slice(sin, "rotary tables")?;
        Ok(CudaRope { cos, sin, positions, half })
    }
}

fn expect_bytes<const R: usize>(op: &'static str, operand: &'static str, t: &HostTensor<R>) -> Result<()> {
    let elements = t.shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e));
    if elements.and_then(|n| n.checked_mul(t.dtype.bytes())) == Some(t.bytes.as_slice().len()) {
        return Ok(());
    }
    let got = [t.bytes.as_slice().len() / t.dtype.bytes()];
    Err(shape_error(op, operand, &got, &t.shape))
}
