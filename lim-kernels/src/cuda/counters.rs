//! Counters on the device.

use super::{Buffer, Cuda, ffi};
use crate::{Error, LayerCount, Result};

const COUNTERS: usize = ffi::LIM_COUNTERS as usize;

/// Counters, `[layers][LIM_COUNTERS]`.
pub struct CudaCounters {
    data: Buffer<u64>,
    /// Query heads per layer, by which the first two counters are divided; 0 before the first attention.
    heads: Vec<usize>,
}

impl CudaCounters {
    /// Address of `layer`'s counters.
    pub(super) fn layer(&self, op: &'static str, layer: usize) -> Result<*mut u64> {
        if layer < self.heads.len() {
            return Ok(self.data.ptr().wrapping_add(layer * COUNTERS));
        }
        let must = format!("below the counters' {} layers", self.heads.len());
        Err(Error::Range { op, what: "layer", got: layer as u64, must })
    }

    /// [`Self::layer`] for an attention of `heads` query heads, whose token counts are kept times the heads.
    pub(super) fn attended(&mut self, op: &'static str, layer: usize, heads: usize) -> Result<*mut u64> {
        let counters = self.layer(op, layer)?;
        self.heads[layer] = heads;
        Ok(counters)
    }
}

impl Cuda {
    pub(super) fn make_counters(&mut self, layers: usize) -> Result<CudaCounters> {
        Ok(CudaCounters { data: self.zeros(layers * COUNTERS, "counters")?, heads: vec![0; layers] })
    }

    pub(super) fn counters_to_host(&mut self, counters: &CudaCounters) -> Result<Vec<LayerCount>> {
        let mut raw = vec![0u64; counters.heads.len() * COUNTERS];
        self.copy_out(&counters.data, 0, &mut raw)?;
        let per_head = |sum: u64, heads: usize| (sum + heads as u64 / 2) / heads.max(1) as u64;
        let layers = raw.chunks_exact(COUNTERS).zip(&counters.heads);
        Ok(layers
            .map(|(c, &heads)| LayerCount {
                attended: per_head(c[0], heads),
                context: per_head(c[1], heads),
                selections: c[2],
                kv_bytes: c[3],
            })
            .collect())
    }
}
