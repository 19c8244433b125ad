//! What the GPU kernels aim for on one NVIDIA H200, in microseconds of one call on cold data. Other GPUs have no goals.
//!
//! Set from the best peers measured there and the byte limit, before the kernels were tuned; they do not move.

/// Whether `gpu`, as the driver names it, is the one that the goals are for.
pub fn has_goals(gpu: &str) -> bool {
    gpu.contains("H200")
}

/// Microseconds that a row should not exceed on an H200. `dense_us` is our own dense attention of the same shape, on which
/// the goal of `dense + scores` rests.
pub fn goal_us(op: &str, batch: usize, n: Option<usize>, dense_us: Option<f64>) -> Option<f64> {
    match (op, batch, n?) {
        ("dense", 1, 4096) => Some(8.0),
        ("dense", 1, 32768) => Some(35.0),
        ("dense", 1, 131072) => Some(128.0),
        ("dense", 8, 32768) => Some(252.0),
        ("dense", 32, 32768) => Some(964.0),
        ("dense + scores", 1, 32768) => dense_us.map(|us| us * 1.08),
        ("gather", 1, 2048) => Some(6.0),
        ("gather", 8, 2048) => Some(19.0),
        ("gather", 32, 2048) => Some(66.0),
        ("select", 1, 32768) => Some(12.0),
        ("select", 1, 131072) => Some(20.0),
        ("weights", 1, 0) => Some(3750.0),
        _ => None,
    }
}
