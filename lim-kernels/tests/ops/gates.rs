//! Key gates of filled pages and pages' scores by them.

use lim_kernels::{
    Append, Backend, DType, GateScore, Heads, KeyGates, KvLayout, PageExtras, PageGates, RowsKind, Step,
};

use crate::fixture::{Cache, Rng, Subject, close, epsilon, host, layout, no_rotation, plain_batch, rows};
use crate::reference::{dot, rotate};

/// A layer's gate weights and tables, on the device and as numbers.
struct Gates<B: Backend> {
    q: B::Linear,
    k: B::Linear,
    rope: B::Rope,
    /// `[kv_heads * d][g * d]` and `[kv_heads * d][3 * d]`.
    weights: [Vec<Vec<f64>>; 2],
    /// `[position][half]`.
    turns: Vec<[Vec<f64>; 2]>,
}

impl<B: Backend> Gates<B> {
    /// Random weights; tables of `scale` times true cosines and sines.
    fn new(b: &mut B, rng: &mut Rng, layout: KvLayout, positions: usize, scale: f32) -> Self {
        let KvLayout { heads, dtype, .. } = layout;
        let out = heads.kv() * heads.dim();
        let mut weight = |inputs: usize| {
            let data: Vec<f32> = rng.grids(out * inputs).iter().map(|x| x / 16.0).collect();
            let linear = b.linear(&[(host(dtype, [out, inputs], &data), None)]).unwrap();
            let wide = data.chunks(inputs).map(|row| row.iter().map(|&x| x.into()).collect()).collect();
            (linear, wide)
        };
        let (q, wide_q) = weight(heads.group() * heads.dim());
        let (k, wide_k) = weight(3 * heads.dim());
        let half = heads.dim() / 2;
        let angle = |i: usize| (i / half) as f64 * 0.7f64.powi((i % half) as i32);
        let (cos, sin): (Vec<f32>, Vec<f32>) = (0..positions * half)
            .map(|i| (angle(i).cos() as f32 * scale, angle(i).sin() as f32 * scale))
            .unzip();
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect();
        let turns = cos.chunks(half).zip(sin.chunks(half)).map(|(c, s)| [wide(c), wide(s)]).collect();
        let rope = b.rope(&cos, &sin, half).unwrap();
        Gates { q, k, rope, weights: [wide_q, wide_k], turns }
    }

    fn operand(&self) -> PageGates<'_, B> {
        PageGates { q: &self.q, k: &self.k, rope: &self.rope }
    }

    /// A head as it was before its rotation.
    fn turn_back(&self, x: &[f64], position: usize) -> Vec<f64> {
        let [cos, sin] = &self.turns[position];
        let back: Vec<f64> = sin.iter().map(|s| -s).collect();
        let scale: Vec<f64> = cos.iter().zip(sin).map(|(c, s)| c * c + s * s).collect();
        rotate(x, cos, &back).iter().enumerate().map(|(i, x)| x / scale[i % scale.len()]).collect()
    }

    /// `rope(W x)` of one KV head.
    fn project(&self, which: usize, head: usize, x: &[f64], position: usize) -> Vec<f64> {
        let dim = 2 * self.turns[0][0].len();
        let product: Vec<f64> =
            self.weights[which][head * dim..][..dim].iter().map(|row| dot(row, x)).collect();
        let [cos, sin] = &self.turns[position];
        rotate(&product, cos, sin)
    }

    /// The key gate of page `page` of a sequence's keys `[token][kv_head * d]`.
    fn key(&self, keys: &[Vec<f64>], size: usize, page: usize, head: usize) -> Vec<f64> {
        let dim = 2 * self.turns[0][0].len();
        let token = |t: usize| self.turn_back(&keys[t][head * dim..][..dim], t);
        let tokens: Vec<Vec<f64>> = (page * size..(page + 1) * size).map(token).collect();
        let pool = |f: fn(f64, f64) -> f64, i: usize| tokens.iter().map(|k| k[i]).reduce(f).unwrap();
        let most = (0..dim).map(|i| pool(f64::max, i));
        let least = (0..dim).map(|i| pool(f64::min, i));
        let mean = (0..dim).map(|i| pool(|a, b| a + b, i) / size as f64);
        let pooled: Vec<f64> = most.chain(least).chain(mean).collect();
        self.project(1, head, &pooled, page * size)
    }

    /// The query gate over sqrt(d).
    fn query(&self, heads: Heads, q: &[f32], len: usize, head: usize) -> Vec<f64> {
        let (dim, group) = (heads.dim(), heads.group());
        let wide: Vec<f64> = q.iter().map(|&x| f64::from(x)).collect();
        let turned: Vec<f64> = wide[head * group * dim..(head + 1) * group * dim]
            .chunks(dim)
            .flat_map(|q| self.turn_back(q, len - 1))
            .collect();
        self.project(0, head, &turned, len - 1).iter().map(|x| x / (dim as f64).sqrt()).collect()
    }
}

/// Key gates of all whole pages, as a prompt's step makes them.
fn fill<B: Backend>(b: &mut B, cache: &mut Cache<B>, gates: &Gates<B>) {
    let mut step = Step::default();
    for (&len, table) in cache.lens.iter().zip(&cache.tables) {
        step.push(&vec![0; len], len, table).unwrap();
    }
    b.upload(&step, &mut cache.batch).unwrap();
    b.key_gates(KeyGates { gates: gates.operand(), batch: &cache.batch, kv: &mut cache.kv }).unwrap();
    cache.upload(b);
}

/// Scores of every sequence beyond the budget, `[kv_head * pages]`, and the bytes that were read.
fn score<B: Backend>(
    b: &mut B,
    cache: &Cache<B>,
    gates: &Gates<B>,
    budget: usize,
) -> (Vec<Option<Vec<f32>>>, u64) {
    let heads = cache.layout.heads;
    let mut out = b.pooled(cache.capacity(), heads.kv()).unwrap();
    let mut counters = b.counters(2).unwrap();
    let op = GateScore {
        q: &cache.q,
        gates: gates.operand(),
        kv: &cache.kv,
        heads,
        batch: &cache.batch,
        budget,
        layer: 1,
        counters: &mut counters,
        out: &mut out,
    };
    b.gate_score(op).unwrap();
    let mut read = |(seq, &len): (usize, &usize)| {
        let count = if len > budget { cache.layout.page_size.pages_for(len) } else { 0 };
        let scores = b.read_scores(seq, count, &out).unwrap();
        (len > budget).then_some(scores)
    };
    let scores = cache.lens.iter().enumerate().map(&mut read).collect();
    (scores, b.read_counters(&counters).unwrap()[1].kv_bytes)
}

fn check<B: Backend>(b: &mut B, cache: &Cache<B>, gates: &Gates<B>, budget: usize, what: &str) {
    let KvLayout { heads, page_size, dtype } = cache.layout;
    let (got, read) = score(b, cache, gates, budget);
    let mut full_pages = 0;
    for (seq, got) in got.iter().enumerate() {
        let len = cache.lens[seq];
        assert_eq!(got.is_some(), len > budget, "{what}: sequence {seq}");
        let Some(got) = got else { continue };
        let full = len / page_size.tokens();
        full_pages += full;
        let pages = page_size.pages_for(len);
        for head in 0..heads.kv() {
            let q = gates.query(heads, &cache.queries[seq], len, head);
            for page in 0..pages {
                let what = format!("{what}: {dtype} sequence {seq} head {head} page {page}");
                let got = got[head * pages + page];
                if page >= full {
                    close(got, 0.0, 0.0, what);
                    continue;
                }
                let k = gates.key(&cache.keys[seq], page_size.tokens(), page, head);
                let sizes: f64 = q.iter().zip(&k).map(|(q, k)| (q * k).abs()).sum();
                close(got, dot(&q, &k), sizes * (0.51 * epsilon(dtype) + 1e-5), what);
            }
        }
    }
    assert_eq!(read, (full_pages * heads.kv() * heads.dim() * dtype.bytes()) as u64, "{what}: bytes");
}

/// Ragged prompts of every head size; one of them within the budget.
pub(crate) fn scores<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(70);
    let shapes = [(4, 2, 32), (7, 1, 64), (4, 4, 80), (6, 2, 96), (16, 2, 128), (4, 2, 256)];
    for (case, (dtype, (h, kv, dim))) in s.dtypes.iter().flat_map(|&d| shapes.map(|x| (d, x))).enumerate() {
        let size = [16, 4, 1, 64][case % 4];
        let layout = layout(h, kv, dim, size, dtype);
        if !s.takes(layout) {
            continue;
        }
        let lens = [3 * size + size.div_ceil(2), 2 * size, size + 1, 9 * size];
        let mut cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let scale = if case % 2 == 0 { 1.0 } else { 1.25 };
        let gates = Gates::new(&mut s.b, &mut rng, layout, 9 * size, scale);
        fill(&mut s.b, &mut cache, &gates);
        check(&mut s.b, &cache, &gates, size + 1, &format!("{layout:?}"));
    }
    // More pages than a task or a block takes.
    let layout = layout(2, 1, 64, 1, s.dtypes[s.dtypes.len() - 1]);
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[700, 33]);
    let gates = Gates::new(&mut s.b, &mut rng, layout, 700, 1.0);
    fill(&mut s.b, &mut cache, &gates);
    check(&mut s.b, &cache, &gates, 0, "many pages");
}

/// Pages that decode steps fill, over what a sequence had there before it was cut back; a copied page; and that gates do
/// not depend on how a page was filled.
pub(crate) fn decode<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(71);
    for (dtype, size, dim) in [(DType::BF16, 16, 64), (DType::F32, 4, 80), (DType::F16, 1, 32)] {
        let layout = layout(6, 2, dim, size, dtype);
        if !s.takes(layout) {
            continue;
        }
        let heads = layout.heads;
        let whole = 3 * size + 1;
        let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[whole, 2 * size]);
        let unused = (0..).find(|p| cache.tables.iter().all(|table| !table.contains(p))).unwrap();
        let gates = Gates::new(&mut s.b, &mut rng, layout, whole, 1.0);
        let unturned = no_rotation(&mut s.b, whole, dim / 2);
        fill(&mut s.b, &mut cache, &gates);
        cache.lens = vec![size + size / 2, size];
        while cache.lens[0] < whole && cache.lens[1] < 2 * size {
            let mut data = Vec::new();
            for (len, keys) in cache.lens.iter_mut().zip(&mut cache.keys) {
                let row = rng.grids(heads.qkv_width());
                let key = &row[heads.query() * dim..][..heads.kv() * dim];
                keys[*len] = key.iter().map(|&x| f64::from(x)).collect();
                *len += 1;
                data.extend(row);
            }
            cache.upload(&mut s.b);
            let mut qkv = rows(&mut s.b, RowsKind::Activation, heads.qkv_width(), &data);
            let (rope, batch, kv) = (&unturned, &cache.batch, &mut cache.kv);
            s.b.append(Append { qkv: &mut qkv, qk_norm: None, eps: 1e-6, rope, batch, kv }).unwrap();
            let op = KeyGates { gates: gates.operand(), batch: &cache.batch, kv: &mut cache.kv };
            s.b.key_gates(op).unwrap();
            check(&mut s.b, &cache, &gates, 0, &format!("{dtype} at {:?}", cache.lens));
        }
        let decoded = score(&mut s.b, &cache, &gates, 0);
        let from = std::mem::replace(&mut cache.tables[0][1], unused);
        s.b.copy_page(&mut cache.kv, from, unused).unwrap();
        cache.upload(&mut s.b);
        assert_eq!(score(&mut s.b, &cache, &gates, 0), decoded, "{dtype}: a copied page");
        fill(&mut s.b, &mut cache, &gates);
        assert_eq!(score(&mut s.b, &cache, &gates, 0), decoded, "{dtype}: filled at once");
    }
}

pub(crate) fn refusals<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(72);
    let dtype = s.dtypes[0];
    let layout = layout(4, 2, 32, 4, dtype);
    let heads = layout.heads;
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[24]);
    let gates = Gates::new(&mut s.b, &mut rng, layout, 24, 1.0);
    let short = Gates::new(&mut s.b, &mut rng, layout, 23, 1.0);
    let mut bare = s.b.kv(layout, 20, PageExtras { bounds: true, gates: false }).unwrap();
    let mut counters = s.b.counters(1).unwrap();
    let mut out = s.b.pooled(cache.capacity(), 2).unwrap();
    let mut per_query_head = s.b.scores(cache.capacity(), heads).unwrap();
    let weight = host(dtype, [64, 96], &[0.0; 64 * 96]);
    let biased = s.b.linear(&[(weight, Some(host(DType::F32, [64], &[1.0; 64])))]).unwrap();
    let good = gates.operand();
    let refused = |result: lim_kernels::Result<()>, words: &str| {
        let error = result.expect_err(words).to_string();
        assert!(error.contains(words), "{error}: expected {words}");
    };
    let cases = [
        (good, false, "page gates kept by the pages is 0"),
        (PageGates { k: &gates.q, ..good }, true, "key weight has shape [64, 64], expected [64, 96]"),
        (PageGates { k: &biased, ..good }, true, "without bias"),
        (PageGates { rope: &short.rope, ..good }, true, "sequence length is 24"),
    ];
    for (gates, has_room, words) in cases {
        let kv = if has_room { &mut cache.kv } else { &mut bare };
        refused(s.b.key_gates(KeyGates { gates, batch: &cache.batch, kv }), words);
    }
    let prompt = plain_batch(&mut s.b, 4);
    let cases = [
        (good, false, 0, "page gates kept by the pages is 0"),
        (PageGates { q: &gates.k, ..good }, true, 0, "query weight has shape [64, 96], expected [64, 64]"),
        (PageGates { rope: &short.rope, ..good }, true, 0, "sequence length is 24"),
        (good, true, 1, "layer is 1"),
    ];
    for (gates, has_room, layer, words) in cases {
        let kv = if has_room { &cache.kv } else { &bare };
        let (q, batch, out, counters) = (&cache.q, &cache.batch, &mut out, &mut counters);
        refused(
            s.b.gate_score(GateScore { q, gates, kv, heads, batch, budget: 0, layer, counters, out }),
            words,
        );
    }
    for (batch, out, words) in
        [(&cache.batch, &mut per_query_head, "scores has shape"), (&prompt, &mut out, "page size")]
    {
        let (q, kv, counters) = (&cache.q, &cache.kv, &mut counters);
        let op = GateScore { q, gates: good, kv, heads, batch, budget: 0, layer: 0, counters, out };
        refused(s.b.gate_score(op), words);
    }
}
