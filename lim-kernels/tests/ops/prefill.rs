//! Causal attention of prompts, whole, in chunks, and several at once.

use std::ops::Range;

use lim_kernels::{Attend, Backend, Heads, Over, RowsKind, Step};

use crate::fixture::{Cache, Rng, Subject, close, layout, poisoned, q_rows, read};
use crate::reference::attend_heads;

/// Attention of `(sequence, rows)` at each sequence's end; returns outputs by row.
fn run<B: Backend>(
    b: &mut B,
    cache: &mut Cache<B>,
    parts: &[(usize, Range<usize>)],
    queries: &[Vec<f32>],
) -> Vec<f32> {
    let heads = cache.layout.heads;
    let width = heads.query() * heads.dim();
    let mut step = Step::default();
    for (seq, rows) in parts {
        step.push(&vec![0; rows.len()], rows.end, &cache.tables[*seq]).unwrap();
    }
    b.upload(&step, &mut cache.batch).unwrap();
    let q = q_rows(b, heads, queries);
    let mut out = poisoned(b, RowsKind::Activation, [step.rows(), width]);
    let mut counters = b.counters(1).unwrap();
    let op = Attend {
        q: &q,
        kv: &cache.kv,
        heads,
        scale: 1.0 / (heads.dim() as f32).sqrt(),
        batch: &cache.batch,
        over: Over::Dense,
        layer: 0,
        counters: &mut counters,
        out: &mut out,
    };
    b.attend(op).unwrap();
    read(b, &out)
}

fn width(heads: Heads) -> usize {
    heads.query() * heads.dim()
}

/// A plan for the sequences of a cache, checked against the reference.
fn check<B: Backend>(
    s: &mut Subject<B>,
    rng: &mut Rng,
    cache: &mut Cache<B>,
    plan: &[(usize, Range<usize>)],
) {
    let layout = cache.layout;
    let dim = layout.heads.dim();
    let positions: Vec<_> =
        plan.iter().flat_map(|(seq, rows)| rows.clone().map(move |t| (*seq, t))).collect();
    let queries: Vec<_> = positions.iter().map(|_| rng.grids(width(layout.heads))).collect();
    let got = run(&mut s.b, cache, plan, &queries);
    for (row, &(seq, t)) in positions.iter().enumerate() {
        let want = attend_heads(
            layout.heads,
            &queries[row],
            &cache.keys[seq],
            &cache.values[seq],
            1.0 / (dim as f64).sqrt(),
            |_| (0..=t).collect(),
        );
        for (i, want) in want.into_iter().enumerate().step_by(5) {
            let tolerance = 5e-5 + 2.0 * (s.rounding)(layout.dtype);
            let what = format!("{layout:?} seq {seq} position {t} element {i}");
            close(got[row * width(layout.heads) + i], want, tolerance, what);
        }
    }
}

pub(crate) fn causal<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(30);
    let shapes = [(2, 1, 32), (7, 1, 64), (4, 4, 80), (6, 2, 96), (16, 1, 128), (8, 4, 128), (2, 2, 256)];
    let pages = [1, 16, 4, 256, 64, 8, 32];
    for (case, (h, kv, dim)) in shapes.into_iter().enumerate() {
        for &dtype in s.dtypes {
            let layout = layout(h, kv, dim, pages[case], dtype);
            let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[150, 9, 41]);
            let plans: [&[(usize, Range<usize>)]; 3] =
                [&[(0, 0..150)], &[(0, 37..150), (2, 40..41), (1, 0..9)], &[(2, 7..39), (1, 3..5)]];
            for plan in plans {
                check(s, &mut rng, &mut cache, plan);
            }
        }
    }
}

/// Contexts of many tiles of tokens, with rows that end anywhere in a tile.
pub(crate) fn long_context<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(31);
    let shapes = [(4, 1, 128, 16), (3, 3, 128, 1), (7, 1, 64, 256), (2, 1, 64, 2), (2, 1, 256, 64)];
    for (h, kv, dim, page) in shapes {
        for &dtype in s.dtypes {
            let layout = layout(h, kv, dim, page, dtype);
            let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[700, 513]);
            check(s, &mut rng, &mut cache, &[(0, 620..700), (1, 384..513)]);
            check(s, &mut rng, &mut cache, &[(1, 512..513), (0, 448..512)]);
        }
    }
}

/// A row's bits follow from its sequence up to it: not from where a chunk begins or from the sequences beside it.
pub(crate) fn chunks<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(32);
    for (h, kv, dim, page) in [(4, 2, 128, 16), (2, 1, 64, 8), (2, 2, 256, 32), (2, 1, 32, 4)] {
        for &dtype in s.dtypes {
            let layout = layout(h, kv, dim, page, dtype);
            let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[300, 150]);
            let width = width(layout.heads);
            let queries: Vec<_> = (0..300).map(|_| rng.grids(width)).collect();
            let whole = run(&mut s.b, &mut cache, &[(0, 0..300)], &queries);
            let beside: Vec<_> = (0..70).map(|_| rng.grids(width)).collect();
            for rows in [0..37, 37..165, 165..299, 299..300] {
                let both = [&beside, &queries[rows.clone()]].concat();
                let got = run(&mut s.b, &mut cache, &[(1, 80..150), (0, rows.clone())], &both);
                assert!(
                    got[70 * width..] == whole[rows.start * width..rows.end * width],
                    "{layout:?} {rows:?}"
                );
            }
        }
    }
}
