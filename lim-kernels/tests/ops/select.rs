//! Selections from given scores: goldens, ties and odd values, every rule, ragged batches.

use lim_kernels::{
    Append, Attend, Backend, Capacity, DType, Heads, LinearAdd, NormGateUp, Over, PageSize, Pick, Quota,
    RowsKind, Select, Sets, Step,
};

use crate::fixture::{Cache, Rng, Subject, host, layout, no_rotation, poisoned, read, rows};
use crate::reference::{ranked, union};

/// Runs one selection over sequences of scores `[seq][head][count]`.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Union,
    PerQueryHead,
    /// One row for all heads.
    Row,
    Pages,
    Nothing,
}

/// By sequence: `None` where dense, else one list per set.
pub(crate) type Lists = Vec<Option<Vec<Vec<u32>>>>;

fn choose<B: Backend>(
    b: &mut B,
    rule: Rule,
    quota: Quota,
    page_size: usize,
    lens: &[usize],
    scores: &[Vec<Vec<f32>>],
) -> Lists {
    let heads = Heads::new(scores[0].len(), 1, 32).unwrap();
    let page_size = PageSize::new(page_size).unwrap();
    let capacity = Capacity { rows: lens.len(), seqs: lens.len(), tokens: *lens.iter().max().unwrap() };
    let mut batch = b.batch(capacity, page_size).unwrap();
    let (mut step, mut next) = (Step::default(), 0);
    for &n in lens {
        let end = next + page_size.pages_for(n) as u32;
        step.push(&[0], n, &(next..end).collect::<Vec<_>>()).unwrap();
        next = end;
    }
    b.upload(&step, &mut batch).unwrap();
    let mut buffer = b.scores(capacity, heads).unwrap();
    for (seq, rows) in scores.iter().enumerate() {
        b.write_scores(seq, &rows.concat(), &mut buffer).unwrap();
    }
    let sets = match rule {
        Rule::Union | Rule::Row | Rule::Nothing => Sets::Shared,
        Rule::PerQueryHead | Rule::Pages => Sets::PerQueryHead,
    };
    let mut out = b.selection(capacity, heads, sets, quota.budget()).unwrap();
    let mut counters = b.counters(1).unwrap();
    // Twice: nothing of a selection may leak into the next.
    for _ in 0..2 {
        let pick = match rule {
            Rule::Union => Pick::Union(&buffer),
            Rule::PerQueryHead | Rule::Row => Pick::Best(&buffer, sets),
            Rule::Pages => Pick::Pages(&buffer, sets),
            Rule::Nothing => Pick::Nothing,
        };
        let op =
            Select { pick, quota, heads, batch: &batch, layer: 0, counters: &mut counters, out: &mut out };
        b.select(op).unwrap();
    }
    let made = lens.iter().filter(|&&n| n > quota.budget()).count() as u64;
    assert_eq!(b.read_counters(&counters).unwrap()[0].selections, 2 * made);
    (0..lens.len()).map(|seq| b.read_selection(seq, &out).unwrap()).collect()
}

/// The worked example of the LessIsMore paper's figure 1, and one with sinks.
pub(crate) fn goldens<B: Backend>(s: &mut Subject<B>) {
    let figure = vec![
        vec![1.1, 2.1, 3.2, 1.3, 0.3, 1.4, 1.5, 1.7],
        vec![2.2, 3.2, 4.5, 2.6, 2.8, 1.2, 0.8, 1.9],
        vec![1.2, 3.6, 6.7, 1.3, 4.2, 3.6, 5.5, 3.8],
        vec![1.9, 0.9, 2.1, 2.4, 2.8, 4.2, 3.6, 1.7],
    ];
    let quota = Quota { sinks: 0, history: 3, window: 1 };
    let got = choose(&mut s.b, Rule::Union, quota, 16, &[8], &[figure]);
    assert_eq!(got, [Some(vec![vec![1, 2, 5, 7]])]);
    let second = vec![vec![9.0, 0.5, 0.9, 0.9, 0.1, 9.0], vec![9.0, 0.2, 0.7, 0.3, 0.7, 9.0]];
    let quota = Quota { sinks: 1, history: 2, window: 1 };
    let got = choose(&mut s.b, Rule::Union, quota, 16, &[6], &[second]);
    assert_eq!(got, [Some(vec![vec![0, 2, 3, 5]])]);
}

/// Scores with ties, both zeros, infinities and NaN.
fn odd(rng: &mut Rng, n: usize) -> Vec<f32> {
    let mut score = || match rng.below(12) {
        0 => f32::NAN,
        1 => -0.0,
        2 => 0.0,
        3 => f32::INFINITY,
        4 => f32::NEG_INFINITY,
        _ => rng.below(7) as f32 - 3.0,
    };
    (0..n).map(|_| score()).collect()
}

fn random(rng: &mut Rng, case: usize, heads: usize, n: usize) -> Vec<Vec<f32>> {
    let shared = rng.grids(n);
    let mut head = |_| match case % 4 {
        0 => odd(rng, n),
        1 => (0..n).map(|_| rng.next() as u32 as f32 - 2e9).collect(),
        // Heads that agree: the union needs many ranks.
        2 => shared.clone(),
        _ => vec![1.0; n],
    };
    (0..heads).map(&mut head).collect()
}

fn quota(rng: &mut Rng) -> Quota {
    Quota { sinks: rng.below(5), history: rng.below(60), window: 1 + rng.below(20) }
}

fn positions(quota: Quota, n: usize, history: &[usize]) -> Vec<u32> {
    let sinks = 0..quota.sinks;
    sinks.chain(history.iter().copied()).chain(n - quota.window..n).map(|t| t as u32).collect()
}

pub(crate) fn token_rules<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(40);
    for case in 0..60 {
        let heads = [1, 2, 7, 16, 32][case % 5];
        let lens: Vec<usize> =
            (0..1 + rng.below(4)).map(|_| 1 + rng.below(if case % 3 == 0 { 700 } else { 100 })).collect();
        let scores: Vec<_> = lens.iter().map(|&n| random(&mut rng, case, heads, n)).collect();
        let quota = quota(&mut rng);
        for rule in [Rule::Union, Rule::PerQueryHead, Rule::Row, Rule::Nothing] {
            if rule == Rule::Row && heads > 1 {
                continue;
            }
            let got = choose(&mut s.b, rule, quota, 16, &lens, &scores);
            for (seq, &n) in lens.iter().enumerate() {
                let want = (n > quota.budget()).then(|| {
                    let candidates = quota.sinks..n - quota.window;
                    let top = |h: &Vec<f32>| {
                        let mut best = ranked(h, candidates.clone());
                        best.truncate(quota.history);
                        best.sort_unstable();
                        positions(quota, n, &best)
                    };
                    match rule {
                        Rule::Union => {
                            vec![positions(quota, n, &union(&scores[seq], candidates.clone(), quota.history))]
                        }
                        Rule::PerQueryHead | Rule::Row => scores[seq].iter().map(top).collect(),
                        _ => vec![positions(quota, n, &[])],
                    }
                });
                assert_eq!(got[seq], want, "case {case} heads {heads} n {n} {quota:?}");
            }
        }
    }
}

/// One selection for many steps, whose heads differ, agree, and differ again: what it notes of a step may not show in the next.
/// With room for so many tokens that blocks share a row, too, which short sequences do not need.
pub(crate) fn steps_through_one<B: Backend>(s: &mut Subject<B>) {
    for most in [6000, 20_000] {
        steps_with_room(s, most);
    }
}

fn steps_with_room<B: Backend>(s: &mut Subject<B>, most: usize) {
    let mut rng = Rng(42);
    let (b, page_size) = (&mut s.b, PageSize::new(16).unwrap());
    let quota = Quota { sinks: 3, history: 96, window: 5 };
    let heads = Heads::new(8, 1, 32).unwrap();
    let capacity = Capacity { rows: 2, seqs: 2, tokens: most };
    let table: Vec<u32> = (0..page_size.pages_for(most) as u32).collect();
    let mut out = b.selection(capacity, heads, Sets::Shared, quota.budget()).unwrap();
    let (mut batch, mut buffer) = (b.batch(capacity, page_size).unwrap(), b.scores(capacity, heads).unwrap());
    let mut counters = b.counters(1).unwrap();
    for (at, [case, first, second]) in [
        [1, most, 105],
        [1, 300, most],
        [2, most, 104],
        [2, 5000, 5000],
        [0, 200, most],
        [1, most, 90],
        [3, 105, most],
    ]
    .into_iter()
    .cycle()
    .take(14)
    .enumerate()
    {
        let lens = [first, second];
        let scores = lens.map(|n| random(&mut rng, case, heads.query(), n));
        let mut step = Step::default();
        for (seq, &n) in lens.iter().enumerate() {
            step.push(&[0], n, &table[..page_size.pages_for(n)]).unwrap();
            b.write_scores(seq, &scores[seq].concat(), &mut buffer).unwrap();
        }
        b.upload(&step, &mut batch).unwrap();
        let (pick, counters, out) = (Pick::Union(&buffer), &mut counters, &mut out);
        b.select(Select { pick, quota, heads, batch: &batch, layer: 0, counters, out }).unwrap();
        for (seq, &n) in lens.iter().enumerate() {
            let candidates = quota.sinks..n.max(quota.budget()) - quota.window;
            let want = (n > quota.budget())
                .then(|| vec![positions(quota, n, &union(&scores[seq], candidates, quota.history))]);
            assert_eq!(b.read_selection(seq, out).unwrap(), want, "room {most} step {at} case {case} n {n}");
        }
    }
}

/// A layer's verbs in their order, from few rows to more than kernels of our own take, with heads that differ, agree, and differ
/// again: beside gate and up a selection is the same, and so are they.
pub(crate) fn beside_gate_up<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(43);
    for &dtype in s.dtypes {
        // One sequence beyond the budget and one within, then both side by side.
        for (seqs, first) in [(1, 0), (1, 1), (2, 2), (8, 3), (12, 2), (20, 0)] {
            let lens: Vec<usize> =
                (0..seqs).map(|seq| [5000, 100, 104, 700, 2600][(seq + first) % 5]).collect();
            layers_beside(&mut s.b, &mut rng, dtype, &lens);
        }
    }
}

fn layers_beside<B: Backend>(b: &mut B, rng: &mut Rng, dtype: DType, lens: &[usize]) {
    const HIDDEN: usize = 64;
    const INNER: usize = 400;
    let quota = Quota { sinks: 3, history: 96, window: 5 };
    let mut cache = Cache::new(b, rng, layout(8, 1, 32, 16, dtype), lens);
    let (heads, count, capacity) = (cache.layout.heads, lens.len(), cache.capacity());
    let width = heads.query() * heads.dim();
    let rope = no_rotation(b, capacity.tokens, heads.dim() / 2);
    let mut weight = |b: &mut B, shape: [usize; 2], parts: usize| {
        let mut part = || (host(dtype, shape, &rng.grids(shape[0] * shape[1])), None);
        b.linear(&(0..parts).map(|_| part()).collect::<Vec<_>>()).unwrap()
    };
    let (o, gate_up) = (weight(b, [HIDDEN, width], 1), weight(b, [INNER, HIDDEN], 2));
    let down = weight(b, [HIDDEN, INNER], 1);
    let norm = b.vector(&host(DType::F32, [HIDDEN], &rng.grids(HIDDEN))).unwrap();
    let mut x = rows(b, RowsKind::Residual, HIDDEN, &rng.grids(count * HIDDEN));
    let mut attended = poisoned(b, RowsKind::Activation, [count, width]);
    let (mut own, mut given) = (b.scores(capacity, heads).unwrap(), b.scores(capacity, heads).unwrap());
    let mut out = b.selection(capacity, heads, Sets::Shared, quota.budget()).unwrap();
    let mut counters = b.counters(1).unwrap();
    let cases = [0, 1, 1, 2, 2, 3, 0];
    for case in cases {
        let scores: Vec<_> = lens.iter().map(|&n| random(rng, case, heads.query(), n)).collect();
        for (seq, rows) in scores.iter().enumerate() {
            b.write_scores(seq, &rows.concat(), &mut given).unwrap();
        }
        let [mut gated, mut alone] = [(); 2].map(|()| poisoned(b, RowsKind::Activation, [count, INNER]));
        cache.upload(b);
        let (q, kv, batch, counters) = (&mut cache.q, &mut cache.kv, &cache.batch, &mut counters);
        b.append(Append { qkv: q, qk_norm: None, eps: 1e-6, rope: &rope, batch, kv }).unwrap();
        let over = Over::DenseScored(&mut own);
        let attend = Attend { q, kv, heads, scale: 0.1, batch, over, layer: 0, counters, out: &mut attended };
        b.attend(attend).unwrap();
        b.linear_add(LinearAdd { a: &attended, linear: &o, batch, x: &mut x }).unwrap();
        let pick = Pick::Union(&given);
        let select = Select { pick, quota, heads, batch, layer: 0, counters, out: &mut out };
        let product = NormGateUp { x: &x, norm: &norm, eps: 1e-6, gate_up: &gate_up, batch, out: &mut gated };
        b.select_and_gate_up(select, product).unwrap();
        let product = NormGateUp { x: &x, norm: &norm, eps: 1e-6, gate_up: &gate_up, batch, out: &mut alone };
        b.norm_gate_up(product).unwrap();
        b.linear_add(LinearAdd { a: &gated, linear: &down, batch, x: &mut x }).unwrap();
        assert_eq!(read(b, &gated), read(b, &alone), "{dtype}, {count} rows");
        for (seq, &n) in lens.iter().enumerate() {
            let candidates = quota.sinks..n.max(quota.budget()) - quota.window;
            let want = (n > quota.budget())
                .then(|| vec![positions(quota, n, &union(&scores[seq], candidates, quota.history))]);
            let got = b.read_selection(seq, &out).unwrap();
            assert_eq!(got, want, "{dtype}, {count} rows, case {case} sequence {seq} of {n}");
        }
    }
    let made = lens.iter().filter(|&&n| n > quota.budget()).count() * cases.len();
    assert_eq!(b.read_counters(&counters).unwrap()[0].selections, made as u64);
}

pub(crate) fn page_rule<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(41);
    for case in 0..40 {
        let (heads, page_size) = ([1, 3, 8][case % 3], [1, 4, 16, 256][case % 4]);
        let lens: Vec<usize> = (0..1 + rng.below(3)).map(|_| 1 + rng.below(900)).collect();
        let pages: Vec<usize> = lens.iter().map(|n| n.div_ceil(page_size)).collect();
        let scores: Vec<_> = pages.iter().map(|&p| random(&mut rng, case, heads, p)).collect();
        let quota = Quota { sinks: 0, history: 1 + rng.below(300), window: 0 };
        let got = choose(&mut s.b, Rule::Pages, quota, page_size, &lens, &scores);
        for (seq, &n) in lens.iter().enumerate() {
            let want = (n > quota.budget()).then(|| {
                let budget = (quota.budget() / page_size).max(1);
                let set = |h: &Vec<f32>| {
                    let mut chosen = ranked(h, 0..pages[seq] - 1);
                    chosen.truncate(budget - 1);
                    chosen.push(pages[seq] - 1);
                    chosen.sort_unstable();
                    let tokens = |p: &usize| p * page_size..((p + 1) * page_size).min(n);
                    chosen.iter().flat_map(tokens).map(|t| t as u32).collect()
                };
                scores[seq].iter().map(set).collect::<Vec<Vec<u32>>>()
            });
            assert_eq!(got[seq], want, "case {case} n {n} page {page_size} {quota:?}");
        }
    }
}
