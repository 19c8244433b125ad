//! Forks on real pages: what one sequence appends, the other never sees, and the pages' bounds and gates follow.

use lim_kernels::{
    Append, Backend, Capacity, DType, GateScore, Heads, HostTensor, KeyGates, KvLayout, PageExtras,
    PageGates, PageSize, RowsKind, Score, ScoreOf, Step, cpu::Cpu,
};
use lim_kvcache::{KvCache, PageTable};

const D: usize = 64;
const LAYERS: usize = 2;
const ROOM: usize = 16;

/// One head whose keys are a stamp in element 0 and zeros, so that a query of `±1` there reads stamps back.
struct Rig<B: Backend> {
    backend: B,
    heads: Heads,
    page_size: PageSize,
    cache: KvCache<B>,
    capacity: Capacity,
    /// Gates that hand on the query and the keys' sum of max, min and mean.
    gate_q: B::Linear,
    gate_k: B::Linear,
    rope: B::Rope,
}

impl<B: Backend> Rig<B> {
    fn new(mut backend: B, dtype: DType) -> Self {
        let heads = Heads::new(1, 1, D).expect("valid");
        let page_size = PageSize::new(4).expect("valid");
        let layout = KvLayout { heads, page_size, dtype };
        let extras = PageExtras { bounds: true, gates: true };
        let cache = KvCache::new(&mut backend, layout, LAYERS, 10, extras).expect("fits");
        let capacity = Capacity { rows: ROOM, seqs: 1, tokens: ROOM };
        let mut gate = |parts: usize| {
            let entry = |i: usize| if i % (parts * D) % D == i / (parts * D) { 1.0f32 } else { 0.0 };
            let bytes = (0..D * parts * D).flat_map(|i| entry(i).to_le_bytes()).collect::<Vec<u8>>();
            let weight = HostTensor { dtype: DType::F32, shape: [D, parts * D], bytes: bytes.into() };
            backend.linear(&[(weight, None)]).expect("gate")
        };
        let (gate_q, gate_k) = (gate(1), gate(3));
        let rope = backend.rope(&[1.0; ROOM * D / 2], &[0.0; ROOM * D / 2], D / 2).expect("rope");
        Rig { backend, heads, page_size, cache, capacity, gate_q, gate_k, rope }
    }

    /// Appends one token per stamp in every layer; layer l stores `stamp + l`.
    fn append(&mut self, table: &mut PageTable, stamps: &[f32]) {
        let len = table.len() + stamps.len();
        let Rig { backend, cache, page_size, capacity, gate_q, gate_k, rope, .. } = self;
        cache.reserve(backend, table, len).expect("pages");
        let mut step = Step::default();
        step.push(&vec![0; stamps.len()], len, table.pages()).expect("rows");
        let mut batch = backend.batch(*capacity, *page_size).expect("batch");
        backend.upload(&step, &mut batch).expect("upload");
        for layer in 0..LAYERS {
            let mut qkv = backend.rows(RowsKind::Activation, [ROOM, 3 * D]).expect("rows");
            let row = |&stamp: &f32| {
                let mut row = [0.0; 3 * D];
                row[D] = stamp + layer as f32;
                row
            };
            let rows: Vec<f32> = stamps.iter().flat_map(row).collect();
            backend.write_rows(&rows, &mut qkv).expect("write");
            let kv = cache.layer_mut(layer);
            let append = Append { qkv: &mut qkv, qk_norm: None, eps: 1e-6, rope, batch: &batch, kv };
            backend.append(append).expect("append");
            let gates = PageGates { q: gate_q, k: gate_k, rope };
            let kv = cache.layer_mut(layer);
            backend.key_gates(KeyGates { gates, batch: &batch, kv }).expect("gates");
        }
    }

    /// Layer `layer`'s scores of `of` under a query of `sign` in element 0; of pages by their gates for `None`.
    fn scores(&mut self, table: &PageTable, layer: usize, of: Option<ScoreOf>, sign: f32) -> Vec<f32> {
        let Rig { backend, cache, heads, page_size, capacity, gate_q, gate_k, rope } = self;
        let mut step = Step::default();
        step.push(&[0], table.len(), table.pages()).expect("row");
        let mut batch = backend.batch(*capacity, *page_size).expect("batch");
        backend.upload(&step, &mut batch).expect("upload");
        let mut q = backend.rows(RowsKind::Activation, [1, 3 * D]).expect("rows");
        let mut row = [0.0; 3 * D];
        row[0] = sign;
        backend.write_rows(&row, &mut q).expect("write");
        let mut counters = backend.counters(LAYERS).expect("counters");
        let mut out = backend.scores(*capacity, *heads).expect("scores");
        let kv = &cache.layers()[layer];
        let (heads, counters) = (*heads, &mut counters);
        let (q, batch, out_mut) = (&q, &batch, &mut out);
        match of {
            Some(of) => {
                let op = Score { q, kv, heads, batch, of, budget: 0, layer, counters, out: out_mut };
                backend.score(op).expect("score");
            }
            None => {
                let gates = PageGates { q: gate_q, k: gate_k, rope };
                let op = GateScore { q, gates, kv, heads, batch, budget: 0, layer, counters, out: out_mut };
                backend.gate_score(op).expect("score");
            }
        }
        let count = if of == Some(ScoreOf::Tokens) { table.len() } else { table.pages().len() };
        backend.read_scores(0, count, &out).expect("scored")
    }

    /// Keys, page bounds and gates of `table` are those of `stamps`, in every layer.
    fn expect(&mut self, table: &PageTable, stamps: &[f32]) {
        for layer in 0..LAYERS {
            let stored: Vec<f32> = stamps.iter().map(|stamp| stamp + layer as f32).collect();
            assert_eq!(self.scores(table, layer, Some(ScoreOf::Tokens), 1.0), stored);
            let size = self.page_size.tokens();
            let pages = || stored.chunks(size);
            let max: Vec<f32> = pages().map(|p| p.iter().copied().fold(f32::MIN, f32::max)).collect();
            let min: Vec<f32> = pages().map(|p| -p.iter().copied().fold(f32::MAX, f32::min)).collect();
            assert_eq!(self.scores(table, layer, Some(ScoreOf::Pages), 1.0), max);
            assert_eq!(self.scores(table, layer, Some(ScoreOf::Pages), -1.0), min);
            // min holds -min. Stamps are small: their sums are exact in every type; 8 is the root of head_dim.
            let gate = |(p, page): (usize, &[f32])| match page.len() == size {
                true => (max[p] - min[p] + page.iter().sum::<f32>() / page.len() as f32) / 8.0,
                false => 0.0,
            };
            let gates: Vec<f32> = pages().enumerate().map(gate).collect();
            assert_eq!(self.scores(table, layer, None, 1.0), gates);
        }
    }
}

fn forks_stay_apart<B: Backend>(backend: B, dtype: DType) {
    let mut rig = Rig::new(backend, dtype);
    let mut first = rig.cache.table();
    rig.append(&mut first, &[5.0, 3.0, 8.0, 1.0, 7.0, 2.0]);
    let mut second = rig.cache.fork(&first).expect("own table");
    let mut third = rig.cache.fork(&first).expect("own table");
    assert_eq!(rig.cache.used_pages(), 2);
    rig.append(&mut second, &[40.0, 9.0, 6.0]);
    rig.append(&mut first, &[-20.0]);
    // The last holder of the page writes in place.
    rig.append(&mut third, &[11.0]);
    assert_eq!(rig.cache.used_pages(), 1 + 3 + 1);
    rig.expect(&first, &[5.0, 3.0, 8.0, 1.0, 7.0, 2.0, -20.0]);
    rig.expect(&second, &[5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 40.0, 9.0, 6.0]);
    rig.expect(&third, &[5.0, 3.0, 8.0, 1.0, 7.0, 2.0, 11.0]);
    // Pages that were given back are taken again with fresh contents and bounds.
    rig.cache.release(second).expect("own table");
    let mut fourth = rig.cache.table();
    rig.append(&mut fourth, &[1.0, 2.0, 1.0, 2.0, 1.0]);
    rig.expect(&fourth, &[1.0, 2.0, 1.0, 2.0, 1.0]);
    rig.expect(&first, &[5.0, 3.0, 8.0, 1.0, 7.0, 2.0, -20.0]);
    for table in [first, third, fourth] {
        rig.cache.release(table).expect("own table");
    }
    assert_eq!((rig.cache.used_pages(), rig.cache.live_tables()), (0, 0));
}

#[test]
fn forks_stay_apart_on_the_cpu() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        forks_stay_apart(Cpu::new(Some(1)).expect("one thread"), dtype);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn forks_stay_apart_on_cuda() {
    let gpu = lim_kernels::cuda::Cuda::new(0, DType::BF16);
    forks_stay_apart(gpu.expect("feature `cuda` is tested on a machine with a GPU"), DType::BF16);
}
