//! Pages, scores, selections and counters on the device.

use cudarc::driver::DevicePtr;

use super::{Buffer, Cuda, ffi};
use crate::{Capacity, DType, Error, Heads, KvLayout, LayerCount, Result, Sets};

/// One layer's pages.
pub struct CudaKv {
    pages: Buffer<u8>,
    bounds: Option<Buffer<u8>>,
    layout: KvLayout,
    count: usize,
}

/// Raw scores, `[seqs][heads][stride]` float32.
pub struct CudaScores {
    data: Buffer<f32>,
    seqs: usize,
    heads: usize,
    stride: usize,
}

/// Selected positions, `[seqs][sets][capacity]`, and how many there are.
pub struct CudaSelection {
    ids: Buffer<i32>,
    count: Buffer<i32>,
    seqs: usize,
    sets: usize,
    kind: Sets,
    capacity: usize,
}

/// Counters, `[layers][LIM_COUNTERS]`.
pub struct CudaCounters {
    data: Buffer<u64>,
    /// Query heads per layer, by which the first two counters are divided; 0 before the first attention.
    heads: Vec<usize>,
}

const COUNTERS: usize = ffi::LIM_COUNTERS as usize;

impl CudaKv {
    pub(super) fn raw(&self) -> ffi::lim_kv {
        let KvLayout { heads, page_size, dtype } = self.layout;
        ffi::lim_kv {
            pages: self.pages.ptr().cast(),
            bounds: self.bounds.as_ref().map_or(std::ptr::null_mut(), |b| b.ptr().cast()),
            dtype: dtype_code(dtype),
            page_size: page_size.tokens() as i32,
            kv_heads: heads.kv() as i32,
            head_dim: heads.dim() as i32,
        }
    }

    pub(super) fn layout(&self) -> KvLayout {
        self.layout
    }
}

impl CudaScores {
    pub(super) fn raw(&self) -> ffi::lim_scores {
        ffi::lim_scores { data: self.data.ptr(), stride: self.stride as i32 }
    }

    /// Sequences, heads, tokens (or pages).
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.seqs, self.heads, self.stride]
    }
}

impl CudaSelection {
    pub(super) fn raw(&self) -> ffi::lim_selection {
        ffi::lim_selection {
            ids: self.ids.ptr(),
            count: self.count.ptr(),
            sets: self.sets as i32,
            kind: match self.kind {
                Sets::Shared => ffi::LIM_SHARED,
                Sets::PerKvHead => ffi::LIM_PER_KV_HEAD,
                Sets::PerQueryHead => ffi::LIM_PER_QUERY_HEAD,
            },
            capacity: self.capacity as i32,
        }
    }

    /// Sequences, sets, ids per set.
    pub(super) fn shape(&self) -> [usize; 3] {
        [self.seqs, self.sets, self.capacity]
    }

    pub(super) fn kind(&self) -> Sets {
        self.kind
    }
}

impl CudaCounters {
    /// Address of `layer`'s counters.
    pub(super) fn layer(&self, layer: usize) -> Result<*mut u64> {
        if layer < self.heads.len() {
            return Ok(self.data.ptr().wrapping_add(layer * COUNTERS));
        }
        let must = format!("below the {} layers of the counters", self.heads.len());
        Err(Error::Range { op: "counters", what: "layer", got: layer as u64, must })
    }

    /// [`Self::layer`] for an attention of `heads` query heads, whose token counts are kept times the heads.
    pub(super) fn attended(&mut self, layer: usize, heads: usize) -> Result<*mut u64> {
        let counters = self.layer(layer)?;
        self.heads[layer] = heads;
        Ok(counters)
    }
}

impl Cuda {
    pub(super) fn make_kv(&mut self, layout: KvLayout, count: usize, bounds: bool) -> Result<CudaKv> {
        let bytes = layout.dtype.bytes();
        let pages = self.zeros(count * layout.page_elements() * bytes, "kv pages")?;
        let bounds = match bounds {
            true => Some(self.zeros(count * 2 * layout.token_width() * bytes, "page bounds")?),
            false => None,
        };
        Ok(CudaKv { pages, bounds, layout, count })
    }

    pub(super) fn make_scores(&mut self, capacity: Capacity, heads: Heads) -> Result<CudaScores> {
        let (seqs, heads, stride) = (capacity.seqs, heads.query(), capacity.tokens.next_multiple_of(4));
        let data = self.zeros(seqs * heads * stride, "scores")?;
        Ok(CudaScores { data, seqs, heads, stride })
    }

    pub(super) fn make_selection(
        &mut self,
        capacity: Capacity,
        heads: Heads,
        kind: Sets,
        budget: usize,
    ) -> Result<CudaSelection> {
        let (seqs, sets) = (capacity.seqs, kind.count(heads));
        // Quest keeps at least one page, whatever the budget.
        let room = budget.max(crate::PageSize::MAX).next_multiple_of(4);
        let ids = self.zeros(seqs * sets * room, "selected positions")?;
        let count = self.zeros(seqs * sets, "selected positions")?;
        Ok(CudaSelection { ids, count, seqs, sets, kind, capacity: room })
    }

    pub(super) fn make_counters(&mut self, layers: usize) -> Result<CudaCounters> {
        Ok(CudaCounters { data: self.zeros(layers * COUNTERS, "counters")?, heads: vec![0; layers] })
    }

    pub(super) fn copy_kv_page(&mut self, kv: &mut CudaKv, from: u32, to: u32) -> Result<()> {
        for page in [from, to] {
            if page as usize >= kv.count {
                let must = format!("below the {} pages of the layer", kv.count);
                return Err(Error::Range { op: "copy page", what: "page", got: u64::from(page), must });
            }
        }
        let bytes = kv.layout.dtype.bytes();
        self.copy_within(&kv.pages, kv.layout.page_elements() * bytes, from, to)?;
        match &kv.bounds {
            Some(bounds) => self.copy_within(bounds, 2 * kv.layout.token_width() * bytes, from, to),
            None => Ok(()),
        }
    }

    /// Copies block `from` of `bytes` bytes over block `to`; both lie inside `buffer`.
    fn copy_within(&mut self, buffer: &Buffer<u8>, bytes: usize, from: u32, to: u32) -> Result<()> {
        if from == to {
            return Ok(());
        }
        self.launch_stream()?;
        let base = buffer.slice().device_ptr(self.stream()).0;
        let at = |block: u32| base + block as u64 * bytes as u64;
        // SAFETY: the caller checked both blocks against the buffer's length, and they are different blocks.
        let copied = unsafe {
            cudarc::driver::result::memcpy_dtod_async(at(to), at(from), bytes, self.stream().cu_stream())
        };
        copied.map_err(|e| self.driver_error(e))
    }

    pub(super) fn scores_from_host(
        &mut self,
        seq: usize,
        data: &[f32],
        scores: &mut CudaScores,
    ) -> Result<()> {
        let CudaScores { seqs, heads, stride, .. } = *scores;
        seq_below("write scores", seq, seqs)?;
        if !data.len().is_multiple_of(heads) || data.len() > heads * stride {
            let must = format!("{heads} rows of at most {stride}");
            return Err(Error::Range { op: "write scores", what: "scores", got: data.len() as u64, must });
        }
        let count = data.len() / heads;
        for (head, row) in data.chunks_exact(count.max(1)).enumerate() {
            self.copy_in(row, &mut scores.data, (seq * heads + head) * stride)?;
        }
        Ok(())
    }

    pub(super) fn scores_to_host(
        &mut self,
        seq: usize,
        count: usize,
        scores: &CudaScores,
    ) -> Result<Vec<f32>> {
        let CudaScores { seqs, heads, stride, .. } = *scores;
        seq_below("read scores", seq, seqs)?;
        if count > stride {
            let must = format!("at most {stride}");
            return Err(Error::Range { op: "read scores", what: "scores", got: count as u64, must });
        }
        let mut out = vec![0f32; heads * count];
        for (head, row) in out.chunks_exact_mut(count.max(1)).enumerate() {
            self.copy_out(&scores.data, (seq * heads + head) * stride, row)?;
        }
        Ok(out)
    }

    pub(super) fn selection_to_host(
        &mut self,
        seq: usize,
        selection: &CudaSelection,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        let CudaSelection { seqs, sets, capacity, .. } = *selection;
        seq_below("read selection", seq, seqs)?;
        let mut counts = vec![0i32; sets];
        self.copy_out(&selection.count, seq * sets, &mut counts)?;
        if counts.iter().all(|count| *count == ffi::LIM_DENSE) {
            return Ok(None);
        }
        let mut lists = Vec::with_capacity(sets);
        for (set, count) in counts.into_iter().enumerate() {
            let count = usize::try_from(count).ok().filter(|count| *count <= capacity).ok_or_else(|| {
                let reason = format!("sequence {seq}, set {set}: {count} selected positions of {capacity}");
                Error::Device { device: self.name(), reason }
            })?;
            let mut ids = vec![0i32; count];
            self.copy_out(&selection.ids, (seq * sets + set) * capacity, &mut ids)?;
            lists.push(ids.into_iter().map(|id| id as u32).collect());
        }
        Ok(Some(lists))
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

/// `LIM_F32`, `LIM_F16` or `LIM_BF16`.
pub(super) fn dtype_code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => ffi::LIM_F32,
        DType::F16 => ffi::LIM_F16,
        DType::BF16 => ffi::LIM_BF16,
    }
}

fn seq_below(op: &'static str, seq: usize, seqs: usize) -> Result<()> {
    if seq < seqs {
        return Ok(());
    }
    Err(Error::Range { op, what: "sequence", got: seq as u64, must: format!("below {seqs}") })
}
