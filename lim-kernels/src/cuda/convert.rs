//! Checkpoint bytes to the type that the device computes in.

use half::{bf16, f16};

use crate::DType;

/// Writes little-endian elements of the first type as elements of the second, rounded to nearest even. `out` has room
/// for as many.
pub(super) fn convert_into(bytes: &[u8], types: [DType; 2], out: &mut [u8]) {
    use DType::{BF16, F16, F32};
    match types {
        [F32, F32] | [F16, F16] | [BF16, BF16] => out.copy_from_slice(bytes),
        [F32, F16] => map(bytes, out, |b| f16::from_f32(f32::from_le_bytes(b)).to_le_bytes()),
        [F32, BF16] => map(bytes, out, |b| bf16::from_f32(f32::from_le_bytes(b)).to_le_bytes()),
        [F16, F32] => map(bytes, out, |b| f16::from_le_bytes(b).to_f32().to_le_bytes()),
        [BF16, F32] => map(bytes, out, |b| bf16::from_le_bytes(b).to_f32().to_le_bytes()),
        [F16, BF16] => map(bytes, out, |b| bf16::from_f32(f16::from_le_bytes(b).to_f32()).to_le_bytes()),
        [BF16, F16] => map(bytes, out, |b| f16::from_f32(bf16::from_le_bytes(b).to_f32()).to_le_bytes()),
    }
}

fn map<const N: usize, const M: usize>(bytes: &[u8], out: &mut [u8], f: impl Fn([u8; N]) -> [u8; M]) {
    for (out, bytes) in out.as_chunks_mut::<M>().0.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = f(*bytes);
    }
}

/// Elements as float32.
pub(super) fn decode(bytes: &[u8], from: DType) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match from {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes(two(b)).to_f32()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes(two(b)).to_f32()).collect(),
    }
}

/// Float32 elements as `to`'s bytes.
pub(super) fn encode(data: &[f32], to: DType) -> Vec<u8> {
    match to {
        DType::F32 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        DType::BF16 => data.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}
