//! Decode attention, dense and over selections, and token scores.

use lim_kernels::{
    Attend, Backend, DType, KvLayout, LayerCount, Over, Pick, Quota, RowsKind, Score, ScoreOf, Select, Sets,
};

use crate::fixture::{Cache, Rng, Subject, close, layout, poisoned, read};
use crate::reference::{attend_heads, dot};
use crate::select::Lists;

/// Every head_dim, groups from 1 to 16 with 7, every page size, few sequences and many.
fn cases<B>(s: &Subject<B>) -> Vec<(KvLayout, Vec<usize>)> {
    let shapes = [
        (1, 1, 32),
        (14, 2, 64),
        (4, 4, 80),
        (9, 3, 96),
        (16, 1, 128),
        (8, 2, 128),
        (5, 1, 256),
        (12, 2, 64),
        (6, 3, 50),
    ];
    let pages = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    let lens = [vec![1], vec![3, 40, 17], vec![300], vec![255, 256, 257, 1, 513]];
    let mut all = Vec::new();
    for (i, (h, kv, dim)) in shapes.into_iter().enumerate() {
        for (j, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
            all.push((layout(h, kv, dim, pages[(i + 3 * j) % 9], dtype), lens[(i + j) % 4].clone()));
        }
    }
    // 16, 8, 4 and 2 blocks to a lane.
    for (seqs, dim) in [(1, 128), (2, 64), (4, 96), (8, 32)] {
        let lens = (0..seqs).map(|seq| 900 - 107 * seq).collect();
        all.push((layout(24, 8, dim, 16, s.dtypes[s.dtypes.len() - 1]), lens));
    }
    // More sequences than a warp has lanes, more units than blocks: teams draw them, with and without their schedule in
    // shared memory meanwhile.
    for dim in [64, 128, 256] {
        all.push((
            layout(16, 8, dim, 4, s.dtypes[s.dtypes.len() - 1]),
            (0..45).map(|seq| 1 + 37 * seq % 300).collect(),
        ));
    }
    all.retain(|(layout, _)| s.takes(*layout));
    all
}

fn scale(layout: KvLayout) -> f32 {
    1.0 / (layout.heads.dim() as f32).sqrt()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(crate) fn run<B: Backend>(
    b: &mut B,
    cache: &Cache<B>,
    over: Over<'_, B>,
    counters: &mut B::Counters,
) -> Vec<f32> {
    let heads = cache.layout.heads;
    let width = heads.query() * heads.dim();
    let mut out = poisoned(b, RowsKind::Activation, [cache.lens.len(), width]);
    let op = Attend {
        q: &cache.q,
        kv: &cache.kv,
        heads,
        scale: scale(cache.layout),
        batch: &cache.batch,
        over,
        layer: 0,
        counters,
        out: &mut out,
    };
    b.attend(op).unwrap();
    read(b, &out)
}

/// Checks `got` against attention over `positions(seq, head)`.
fn check<B: Backend>(
    s: &Subject<B>,
    cache: &Cache<B>,
    got: &[f32],
    what: &str,
    positions: impl Fn(usize, usize) -> Vec<usize>,
) {
    let heads = cache.layout.heads;
    let width = heads.query() * heads.dim();
    for seq in 0..cache.lens.len() {
        let want = attend_heads(
            heads,
            &cache.queries[seq],
            &cache.keys[seq],
            &cache.values[seq],
            f64::from(scale(cache.layout)),
            |h| positions(seq, h),
        );
        for (i, want) in want.into_iter().enumerate() {
            let tolerance = 2e-5 + 2.0 * (s.rounding)(cache.layout.dtype);
            close(got[seq * width + i], want, tolerance, format!("{what} {:?} seq {seq} {i}", cache.layout));
        }
    }
}

pub(crate) fn dense<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(20);
    for (layout, lens) in cases(s) {
        let cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let mut counters = s.b.counters(2).unwrap();
        let got = run(&mut s.b, &cache, Over::Dense, &mut counters);
        check(s, &cache, &got, "dense", |seq, _| (0..lens[seq]).collect());
        let tokens = lens.iter().sum::<usize>() as u64;
        let bytes = tokens * layout.token_bytes() as u64;
        let want = LayerCount { attended: tokens, context: tokens, selections: 0, kv_bytes: bytes };
        assert_eq!(s.b.read_counters(&counters).unwrap(), [want, LayerCount::default()]);
    }
}

/// Contexts that all teams of a kernel share, in one sequence and in several of very different lengths; a second run has the
/// same bits.
pub(crate) fn long_context<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(25);
    let dtype = s.dtypes[s.dtypes.len() - 1];
    for (layout, lens) in [
        (layout(2, 1, 64, 16, dtype), vec![131_073]),
        (layout(7, 1, 128, 256, dtype), vec![33_000]),
        (layout(8, 2, 128, 1, dtype), vec![17_001, 3, 9000, 1]),
    ] {
        let cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let mut counters = s.b.counters(1).unwrap();
        let got = run(&mut s.b, &cache, Over::Dense, &mut counters);
        check(s, &cache, &got, "long", |seq, _| (0..lens[seq]).collect());
        let again = run(&mut s.b, &cache, Over::Dense, &mut counters);
        assert_eq!(bits(&got), bits(&again), "{layout:?}");
    }
}

/// Emitting scores changes no bit of the output, and the scores are those of the score verb and of float64.
pub(crate) fn dense_scored<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(21);
    for (layout, lens) in cases(s) {
        let cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let heads = layout.heads;
        let mut counters = s.b.counters(1).unwrap();
        let plain = run(&mut s.b, &cache, Over::Dense, &mut counters);
        let mut scores = s.b.scores(cache.capacity(), heads).unwrap();
        let scored = run(&mut s.b, &cache, Over::DenseScored(&mut scores), &mut counters);
        assert_eq!(bits(&plain), bits(&scored), "{layout:?}");
        let mut alone = s.b.scores(cache.capacity(), heads).unwrap();
        let budget = lens[0];
        let op = Score {
            q: &cache.q,
            kv: &cache.kv,
            heads,
            batch: &cache.batch,
            of: ScoreOf::Tokens,
            budget,
            layer: 0,
            counters: &mut counters,
            out: &mut alone,
        };
        s.b.score(op).unwrap();
        let mut bytes = 2 * lens.iter().sum::<usize>() * layout.token_bytes();
        for (seq, &n) in lens.iter().enumerate() {
            let got = s.b.read_scores(seq, n, &scores).unwrap();
            for (i, &got) in got.iter().enumerate() {
                let (h, t) = (i / n, i % n);
                let at = h / heads.group() * heads.dim();
                let q: Vec<f64> = cache.queries[seq][h * heads.dim()..][..heads.dim()]
                    .iter()
                    .map(|&x| f64::from(x))
                    .collect();
                let want = dot(&q, &cache.keys[seq][t][at..at + heads.dim()]);
                close(got, want, 1e-3, format!("{layout:?} seq {seq} head {h} token {t}"));
            }
            // Sequences within the budget are not scored.
            if n > budget {
                bytes += n * layout.token_bytes() / 2;
                assert_eq!(bits(&got), bits(&s.b.read_scores(seq, n, &alone).unwrap()), "{layout:?}");
            }
        }
        assert_eq!(s.b.read_counters(&counters).unwrap()[0].kv_bytes, bytes as u64);
    }
}

/// Selects by random scores under `pick`, attends, and returns selection and output.
fn select_and_attend<B: Backend>(
    b: &mut B,
    rng: &mut Rng,
    cache: &Cache<B>,
    per_head: bool,
    quota: Quota,
    counters: &mut B::Counters,
) -> (Lists, Vec<f32>) {
    let heads = cache.layout.heads;
    let mut scores = b.scores(cache.capacity(), heads).unwrap();
    for (seq, &n) in cache.lens.iter().enumerate() {
        b.write_scores(seq, &rng.grids(heads.query() * n), &mut scores).unwrap();
    }
    let sets = if per_head { Sets::PerQueryHead } else { Sets::Shared };
    let mut selection = b.selection(cache.capacity(), heads, sets, quota.budget()).unwrap();
    let pick = if per_head { Pick::Best(&scores, Sets::PerQueryHead) } else { Pick::Union(&scores) };
    let op = Select { pick, quota, heads, batch: &cache.batch, layer: 0, counters, out: &mut selection };
    b.select(op).unwrap();
    let chosen = (0..cache.lens.len()).map(|seq| b.read_selection(seq, &selection).unwrap()).collect();
    (chosen, run(b, cache, Over::Selected(&selection), counters))
}

pub(crate) fn selected<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(22);
    for (case, (layout, lens)) in cases(s).into_iter().enumerate() {
        let cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let heads = layout.heads;
        let quota = [
            Quota { sinks: 2, history: 20, window: 6 },
            Quota { sinks: 0, history: 1, window: 0 },
            Quota { sinks: 1, history: 270, window: 10 },
        ][case % 3];
        for per_head in [false, true] {
            let mut counters = s.b.counters(1).unwrap();
            let (chosen, got) = select_and_attend(&mut s.b, &mut rng, &cache, per_head, quota, &mut counters);
            let what = format!("{quota:?} per head {per_head}");
            check(s, &cache, &got, &what, |seq, h| match &chosen[seq] {
                None => (0..lens[seq]).collect(),
                Some(sets) => sets[if per_head { h } else { 0 }].iter().map(|&t| t as usize).collect(),
            });
            let attended: usize = lens.iter().map(|&n| n.min(quota.budget())).sum();
            let head_bytes = 2 * heads.dim() * layout.dtype.bytes();
            let reads = |n: usize| if per_head && n > quota.budget() { heads.query() } else { heads.kv() };
            let bytes: usize = lens.iter().map(|&n| n.min(quota.budget()) * reads(n) * head_bytes).sum();
            let want = LayerCount {
                attended: attended as u64,
                context: lens.iter().sum::<usize>() as u64,
                selections: lens.iter().filter(|&&n| n > quota.budget()).count() as u64,
                kv_bytes: bytes as u64,
            };
            assert_eq!(s.b.read_counters(&counters).unwrap(), [want], "{what} {layout:?}");
        }
    }
}

/// At `n <= K` a sparse policy's output is the dense one, bit for bit, beside sequences that are really sparse.
pub(crate) fn within_budget_is_dense<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(23);
    for &dtype in s.dtypes {
        let layout = layout(8, 2, 128, 16, dtype);
        let lens = [64, 400, 65, 300, 1];
        let cache = Cache::new(&mut s.b, &mut rng, layout, &lens);
        let mut counters = s.b.counters(1).unwrap();
        let dense = run(&mut s.b, &cache, Over::Dense, &mut counters);
        let quota = Quota { sinks: 4, history: 200, window: 96 };
        let width = layout.heads.query() * layout.heads.dim();
        for per_head in [false, true] {
            let (chosen, got) = select_and_attend(&mut s.b, &mut rng, &cache, per_head, quota, &mut counters);
            for (seq, n) in lens.into_iter().enumerate() {
                let at = seq * width..(seq + 1) * width;
                let same = bits(&got[at.clone()]) == bits(&dense[at]);
                assert_eq!(same, n <= 300, "{dtype} n {n}");
                assert_eq!(chosen[seq].is_none(), n <= 300);
            }
        }
    }
}

/// A sequence's output has the same bits alone and in a batch.
pub(crate) fn alone_or_in_a_batch<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(24);
    let layout = layout(6, 2, 64, 16, s.dtypes[s.dtypes.len() - 1]);
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[700, 5, 260]);
    let mut counters = s.b.counters(1).unwrap();
    let together = run(&mut s.b, &cache, Over::Dense, &mut counters);
    cache.lens.truncate(1);
    cache.upload(&mut s.b);
    let alone = run(&mut s.b, &cache, Over::Dense, &mut counters);
    assert_eq!(alone[..], together[..alone.len()]);
}
