//! Activation buffers.

use super::check::shape_error;
use super::convert::{decode, encode};
use super::{Buffer, Cuda};
use crate::{DType, Result, RowsKind, Tensor};

/// Activations: float32 for the residual stream and logits, the context's type otherwise.
pub struct CudaRows {
    pub(super) data: Buffer<u8>,
    pub(super) dtype: DType,
}

impl Cuda {
    pub(super) fn make_rows(&mut self, kind: RowsKind, shape: [usize; 2]) -> Result<Tensor<CudaRows, 2>> {
        let dtype = match kind {
            RowsKind::Residual | RowsKind::Logits => DType::F32,
            RowsKind::Activation => self.dtype(),
        };
        let [rows, width] = shape;
        let data = self.zeros(rows * width * dtype.bytes(), "activations")?;
        Ok(Tensor::new(CudaRows { data, dtype }, shape))
    }

    pub(super) fn rows_to_host(&mut self, rows: &Tensor<CudaRows, 2>, out: &mut [f32]) -> Result<()> {
        fits("read rows", out.len(), rows.shape())?;
        let CudaRows { data, dtype } = rows.data();
        let mut bytes = vec![0u8; out.len() * dtype.bytes()];
        self.copy_out(data, 0, &mut bytes)?;
        out.copy_from_slice(&decode(&bytes, *dtype));
        Ok(())
    }

    pub(super) fn rows_from_host(&mut self, data: &[f32], rows: &mut Tensor<CudaRows, 2>) -> Result<()> {
        fits("write rows", data.len(), rows.shape())?;
        let dtype = rows.data().dtype;
        self.copy_in(&encode(data, dtype), &mut rows.data_mut().data, 0)
    }
}

/// Whether `elements` are whole rows, and no more than there are.
fn fits(op: &'static str, elements: usize, [rows, width]: [usize; 2]) -> Result<()> {
    if elements <= rows * width && elements.is_multiple_of(width.max(1)) {
        return Ok(());
    }
    Err(shape_error(op, "host data", &[elements], &[rows, width]))
}
