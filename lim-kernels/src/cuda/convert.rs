//! Checkpoint bytes to the type that the device computes in.

use half::{bf16, f16};

use crate::DType;

/// `from`'s little-endian bytes as elements of `to`, rounded to nearest even.
pub(super) fn convert(bytes: &[u8], from: DType, to: DType) -> Vec<u8> {
    if from == to {
        return bytes.to_vec();
    }
    encode(&decode(bytes, from), to)
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
