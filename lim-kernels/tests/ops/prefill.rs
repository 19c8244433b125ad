//! Causal attention of prompts, whole, in chunks, and several at once.

use lim_kernels::{Attend, Backend, Heads, Over, RowsKind, Step};

use crate::fixture::{Cache, Rng, Subject, close, layout, poisoned, q_rows, read};
use crate::reference::attend_heads;

/// Attention of `(sequence, rows)` at each sequence's end; returns queries and outputs by row.
fn run<B: Backend>(
    b: &mut B,
    rng: &mut Rng,
    cache: &mut Cache<B>,
    parts: &[(usize, std::ops::Range<usize>)],
) -> (Vec<Vec<f32>>, Vec<f32>) {
    let heads = cache.layout.heads;
    let width = heads.query() * heads.dim();
    let mut step = Step::default();
    for (seq, rows) in parts {
        step.push(&vec![0; rows.len()], rows.end, &cache.tables[*seq]).unwrap();
    }
    b.upload(&step, &mut cache.batch).unwrap();
    let queries: Vec<Vec<f32>> = (0..step.rows()).map(|_| rng.grids(width)).collect();
    let q = q_rows(b, heads, &queries);
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
    (queries, read(b, &out))
}

fn width(heads: Heads) -> usize {
    heads.query() * heads.dim()
}

pub(crate) fn causal<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(30);
    let shapes = [(2, 1, 32), (7, 1, 64), (4, 4, 80), (6, 2, 96), (16, 1, 128), (8, 4, 128), (2, 2, 256)];
    let pages = [1, 16, 4, 256, 64, 8, 32];
    for (case, (h, kv, dim)) in shapes.into_iter().enumerate() {
        for &dtype in s.dtypes {
            let layout = layout(h, kv, dim, pages[case], dtype);
            let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[150, 9, 41]);
            let plans: [&[(usize, std::ops::Range<usize>)]; 3] =
                [&[(0, 0..150)], &[(0, 37..150), (2, 40..41), (1, 0..9)], &[(2, 7..39), (1, 3..5)]];
            for plan in plans {
                let (queries, got) = run(&mut s.b, &mut rng, &mut cache, plan);
                let positions = plan.iter().flat_map(|(seq, rows)| rows.clone().map(move |t| (*seq, t)));
                for (row, (seq, t)) in positions.enumerate() {
                    let want = attend_heads(
                        layout.heads,
                        &queries[row],
                        &cache.keys[seq],
                        &cache.values[seq],
                        1.0 / (dim as f64).sqrt(),
                        |_| (0..=t).collect(),
                    );
                    for (i, want) in want.into_iter().enumerate().step_by(5) {
                        let tolerance = 5e-5 + 2.0 * (s.rounding)(dtype);
                        let what = format!("{layout:?} seq {seq} position {t} element {i}");
                        close(got[row * width(layout.heads) + i], want, tolerance, what);
                    }
                }
            }
        }
    }
}
