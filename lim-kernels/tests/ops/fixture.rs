//! What the bodies share: a backend under test, numbers every dtype holds exactly, pages filled through the seam.

use half::{bf16, f16};
use lim_kernels::{
    Append, Backend, Capacity, DType, Heads, HostBytes, HostTensor, KvLayout, PageExtras, PageSize, RowsKind,
    Step, Tensor,
};

/// A backend and how it stores activations.
pub(crate) struct Subject<B> {
    pub(crate) b: B,
    /// Relative rounding of a stored activation when the weights have this dtype; 0 where it is float32.
    pub(crate) rounding: fn(DType) -> f64,
    /// Element types of weights and pages that it takes.
    pub(crate) dtypes: &'static [DType],
    /// Whether it has kernels for this head_dim.
    pub(crate) has_head_dim: fn(usize) -> bool,
}

impl<B> Subject<B> {
    pub(crate) fn takes(&self, layout: KvLayout) -> bool {
        self.dtypes.contains(&layout.dtype) && (self.has_head_dim)(layout.heads.dim())
    }
}

/// splitmix64 (Steele et al. 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Multiples of 1/64 from -2 to 2: every dtype holds them exactly.
    pub(crate) fn grid(&mut self) -> f32 {
        (self.below(257) as f32 - 128.0) / 64.0
    }

    pub(crate) fn grids(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.grid()).collect()
    }

    pub(crate) fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

/// `values` as a checkpoint stores them, at an odd address, as safetensors may.
pub(crate) fn host<const R: usize>(dtype: DType, shape: [usize; R], values: &[f32]) -> HostTensor<R> {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    let mut bytes = vec![0u8];
    for &v in values {
        match dtype {
            DType::F32 => bytes.extend(v.to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
        }
    }
    let end = bytes.len();
    HostTensor { dtype, shape, bytes: HostBytes::new(std::sync::Arc::new(bytes), 1..end).unwrap() }
}

/// Distance of neighbouring values of a dtype around 1.
pub(crate) fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1.2e-7,
        DType::F16 => 1.0 / 1024.0,
        DType::BF16 => 1.0 / 128.0,
    }
}

/// Fails unless `|got - want| <= tolerance`, so also for NaN.
#[track_caller]
pub(crate) fn close(got: f32, want: f64, tolerance: f64, what: impl std::fmt::Display) {
    assert!(
        (f64::from(got) - want).abs() <= tolerance,
        "{what}: got {got}, want {want} within {tolerance:e}"
    );
}

/// Rows with one more than asked for, all NaN; [`read`] checks that the extra row was left alone.
pub(crate) fn poisoned<B: Backend>(
    b: &mut B,
    kind: RowsKind,
    [rows, width]: [usize; 2],
) -> Tensor<B::Rows, 2> {
    let mut out = b.rows(kind, [rows + 1, width]).unwrap();
    b.write_rows(&vec![f32::NAN; (rows + 1) * width], &mut out).unwrap();
    out
}

#[track_caller]
pub(crate) fn read<B: Backend>(b: &mut B, rows: &Tensor<B::Rows, 2>) -> Vec<f32> {
    let [count, width] = rows.shape();
    let mut all = vec![0.0; count * width];
    b.read_rows(rows, &mut all).unwrap();
    assert!(all[(count - 1) * width..].iter().all(|x| x.is_nan()), "the row past the last was written");
    all.truncate((count - 1) * width);
    all
}

/// Rows that hold `data`.
pub(crate) fn rows<B: Backend>(b: &mut B, kind: RowsKind, width: usize, data: &[f32]) -> Tensor<B::Rows, 2> {
    let mut rows = b.rows(kind, [data.len() / width, width]).unwrap();
    b.write_rows(data, &mut rows).unwrap();
    rows
}

/// A batch of one sequence with `count` rows, for ops that look at nothing else.
pub(crate) fn plain_batch<B: Backend>(b: &mut B, count: usize) -> B::Batch {
    let page_size = PageSize::default();
    let mut batch = b.batch(Capacity { rows: count, seqs: 1, tokens: count }, page_size).unwrap();
    let pages: Vec<u32> = (0..page_size.pages_for(count) as u32).collect();
    let mut step = Step::default();
    step.push(&vec![0; count], count, &pages).unwrap();
    b.upload(&step, &mut batch).unwrap();
    batch
}

/// Sequences whose keys and values lie in shuffled pages, written by `append` without norm or rotation.
pub(crate) struct Cache<B: Backend> {
    pub(crate) layout: KvLayout,
    pub(crate) kv: B::Kv,
    pub(crate) lens: Vec<usize>,
    /// Tokens that the longest sequence may have.
    longest: usize,
    /// Page tables by sequence.
    pub(crate) tables: Vec<Vec<u32>>,
    /// `[seq][token][kv_head * head_dim]`, exactly as stored.
    pub(crate) keys: Vec<Vec<Vec<f64>>>,
    pub(crate) values: Vec<Vec<Vec<f64>>>,
    /// The decode step of all sequences, uploaded.
    pub(crate) batch: B::Batch,
    /// Fused rows of the decode step: queries, then zeros.
    pub(crate) q: Tensor<B::Rows, 2>,
    /// `[seq][H * head_dim]`.
    pub(crate) queries: Vec<Vec<f32>>,
}

/// Cosines of one and sines of zero: no rotation.
pub(crate) fn no_rotation<B: Backend>(b: &mut B, positions: usize, half: usize) -> B::Rope {
    b.rope(&vec![1.0; positions * half], &vec![0.0; positions * half], half).unwrap()
}

impl<B: Backend> Cache<B> {
    pub(crate) fn new(b: &mut B, rng: &mut Rng, layout: KvLayout, lens: &[usize]) -> Self {
        let KvLayout { heads, page_size, .. } = layout;
        let longest = lens.iter().copied().max().unwrap();
        let needed: Vec<usize> = lens.iter().map(|&n| page_size.pages_for(n)).collect();
        // One page more, never used.
        let pages = needed.iter().sum::<usize>() + 1;
        let mut free = rng.shuffled(pages);
        let tables: Vec<Vec<u32>> = needed.iter().map(|&n| free.split_off(free.len() - n)).collect();
        let capacity = Capacity { rows: lens.iter().sum(), seqs: lens.len(), tokens: longest };
        let mut kv = b.kv(layout, pages, PageExtras { bounds: true, gates: true }).unwrap();
        let mut batch = b.batch(capacity, page_size).unwrap();
        let rope = no_rotation(b, longest, heads.dim() / 2);
        let (mut step, mut data) = (Step::default(), Vec::new());
        for (&len, table) in lens.iter().zip(&tables) {
            step.push(&vec![0; len], len, table).unwrap();
            data.extend(rng.grids(len * heads.qkv_width()));
        }
        let mut qkv = rows(b, RowsKind::Activation, heads.qkv_width(), &data);
        b.upload(&step, &mut batch).unwrap();
        let op = Append { qkv: &mut qkv, qk_norm: None, eps: 1e-6, rope: &rope, batch: &batch, kv: &mut kv };
        b.append(op).unwrap();
        let (q_width, kv_width) = (heads.query() * heads.dim(), heads.kv() * heads.dim());
        let part = |start: usize| -> Vec<Vec<Vec<f64>>> {
            let mut rows = data.chunks_exact(heads.qkv_width());
            let mut take = |n: &usize| {
                let rows = rows.by_ref().take(*n);
                rows.map(|r| r[start..start + kv_width].iter().map(|&x| f64::from(x)).collect()).collect()
            };
            lens.iter().map(&mut take).collect()
        };
        let (keys, values) = (part(q_width), part(q_width + kv_width));
        let queries: Vec<Vec<f32>> = lens.iter().map(|_| rng.grids(q_width)).collect();
        let q = q_rows(b, heads, &queries);
        let mut cache =
            Cache { layout, kv, lens: lens.to_vec(), longest, tables, keys, values, batch, q, queries };
        cache.upload(b);
        cache
    }

    /// Uploads the decode step of all sequences.
    pub(crate) fn upload(&mut self, b: &mut B) {
        let mut step = Step::default();
        for (&len, table) in self.lens.iter().zip(&self.tables) {
            step.push(&[0], len, table).unwrap();
        }
        b.upload(&step, &mut self.batch).unwrap();
    }

    /// For buffers beside `batch`: sequences may have been cut since it was made.
    pub(crate) fn capacity(&self) -> Capacity {
        Capacity { rows: self.lens.len(), seqs: self.lens.len(), tokens: self.longest }
    }
}

/// Fused rows with these queries; keys and values are zero.
pub(crate) fn q_rows<B: Backend>(b: &mut B, heads: Heads, queries: &[Vec<f32>]) -> Tensor<B::Rows, 2> {
    let mut data = Vec::new();
    for q in queries {
        data.extend_from_slice(q);
        data.resize(data.len() + 2 * heads.kv() * heads.dim(), 0.0);
    }
    rows(b, RowsKind::Activation, heads.qkv_width(), &data)
}

pub(crate) fn layout(query: usize, kv: usize, dim: usize, page_size: usize, dtype: DType) -> KvLayout {
    KvLayout {
        heads: Heads::new(query, kv, dim).unwrap(),
        page_size: PageSize::new(page_size).unwrap(),
        dtype,
    }
}
