//! Conversion between element types, and owned element storage.

use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use lim_kernels::{DType, HostBytes, HostTensor};

use crate::{Error, Result};

/// A vector, seen as bytes.
struct Elements<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The first `len` bytes of `elements`, aligned for `T`.
pub(super) fn host_bytes<T: Pod + Send + Sync>(elements: Vec<T>, len: usize) -> Result<HostBytes> {
    Ok(HostBytes::new(Arc::new(Elements(elements)), 0..len)?)
}

/// An empty vector with room for `len` elements.
pub(super) fn room<T>(len: usize) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(len).map_err(|_| {
        let bytes = len.saturating_mul(size_of::<T>());
        lim_kernels::Error::OutOfMemory { device: "host".into(), bytes, free: None, what: "a weight tensor" }
    })?;
    Ok(elements)
}

/// The tensor in another element type, rounded to nearest even; the tensor itself where it has that type already.
pub(super) fn convert<const R: usize>(tensor: HostTensor<R>, to: DType) -> Result<HostTensor<R>> {
    let HostTensor { dtype, shape, bytes } = tensor;
    let slice = bytes.as_slice();
    let bytes = match (dtype, to) {
        (from, to) if from == to => bytes,
        (DType::F16, DType::F32) => map(slice, f16::to_f32)?,
        (DType::BF16, DType::F32) => map(slice, bf16::to_f32)?,
        (DType::F32, DType::BF16) => map(slice, bf16::from_f32)?,
        (DType::F16, DType::BF16) => map(slice, |x: f16| bf16::from_f32(x.to_f32()))?,
        (_, to) => return Err(Error::Convert { to }),
    };
    Ok(HostTensor { dtype: to, shape, bytes })
}

fn map<A: Pod, B: Pod + Send + Sync>(bytes: &[u8], f: impl Fn(A) -> B) -> Result<HostBytes> {
    let from: &[A] = bytemuck::cast_slice(bytes);
    let mut to = room(from.len())?;
    to.extend(from.iter().map(|x| f(*x)));
    let len = size_of_val(&to[..]);
    host_bytes(to, len)
}
