//! Norm, rotation and the write to pages; page bounds.

use lim_kernels::{Append, Attend, Backend, DType, Over, RowsKind, Score, ScoreOf, Step};

use crate::fixture::{
    Cache, Rng, Subject, close, epsilon, host, layout, no_rotation, poisoned, q_rows, read, rows,
};
use crate::reference::{rms_norm, rotate};

/// Keys of all cached tokens of a one-sequence cache, read through the seam: `e_i . k` is element i.
fn read_keys<B: Backend>(b: &mut B, cache: &Cache<B>, kv_head: usize, dims: &[usize]) -> Vec<Vec<f32>> {
    let heads = cache.layout.heads;
    let mut scores = b.scores(cache.capacity(), heads).unwrap();
    let mut counters = b.counters(1).unwrap();
    let mut columns = Vec::new();
    for &i in dims {
        let mut q = vec![0.0; heads.query() * heads.dim()];
        q[kv_head * heads.group() * heads.dim() + i] = 1.0;
        let q = q_rows(b, heads, &[q]);
        let op = Score {
            q: &q,
            kv: &cache.kv,
            heads,
            batch: &cache.batch,
            of: ScoreOf::Tokens,
            budget: 0,
            layer: 0,
            counters: &mut counters,
            out: &mut scores,
        };
        b.score(op).unwrap();
        let all = b.read_scores(0, cache.lens[0], &scores).unwrap();
        let head = kv_head * heads.group();
        columns.push(all[head * cache.lens[0]..][..cache.lens[0]].to_vec());
    }
    columns
}

pub(crate) fn norm_and_rotation<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(10);
    let shapes = [(4, 2, 32), (7, 1, 64), (2, 2, 80), (6, 2, 96), (8, 1, 128), (2, 1, 256)];
    for (case, (dtype, (h, kv, dim))) in s.dtypes.iter().flat_map(|&d| shapes.map(|x| (d, x))).enumerate() {
        let layout = layout(h, kv, dim, [1, 4, 16][case % 3], dtype);
        let (heads, half, n) = (layout.heads, dim / 2, 9);
        let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[n]);
        let angles: Vec<f64> =
            (0..n * half).map(|i| (i / half) as f64 * 0.7f64.powi((i % half) as i32)).collect();
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.iter().map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
        let rope = s.b.rope(&cos, &sin, half).unwrap();
        let (q_norm, k_norm) = (rng.grids(dim), rng.grids(dim));
        let vectors = [&q_norm, &k_norm].map(|w| s.b.vector(&host(DType::F32, [dim], w)).unwrap());
        let normed = case % 2 == 0;
        // Two rows at the end of the sequence, the first 7 tokens stay.
        let data = rng.grids(2 * heads.qkv_width());
        let mut qkv = rows(&mut s.b, RowsKind::Activation, heads.qkv_width(), &data);
        let mut step = Step::default();
        step.push(&[0, 0], n, &cache.tables[0]).unwrap();
        s.b.upload(&step, &mut cache.batch).unwrap();
        let op = Append {
            qkv: &mut qkv,
            qk_norm: normed.then_some((&vectors[0], &vectors[1])),
            eps: 1e-5,
            rope: &rope,
            batch: &cache.batch,
            kv: &mut cache.kv,
        };
        s.b.append(op).unwrap();
        let mut got = vec![0.0; data.len()];
        s.b.read_rows(&qkv, &mut got).unwrap();
        cache.upload(&mut s.b);
        let want = |row: usize, head: usize, norm: &[f32]| {
            let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|&x| f64::from(x)).collect() };
            let x = wide(&data[row * heads.qkv_width() + head * dim..][..dim]);
            let x = if normed { rms_norm(&x, &wide(norm), 1e-5) } else { x };
            let at = (n - 2 + row) * half;
            rotate(&x, &wide(&cos[at..at + half]), &wide(&sin[at..at + half]))
        };
        let what = format!("{dtype} {layout:?}");
        for row in 0..2 {
            for head in 0..h {
                for (i, want) in want(row, head, &q_norm).into_iter().enumerate() {
                    let got = got[row * heads.qkv_width() + head * dim + i];
                    close(got, want, 1e-5 + (s.rounding)(dtype) * 8.0, &what);
                }
            }
        }
        let dims = [0, 1, half - 1, half, dim - 1];
        for head in 0..kv {
            let columns = read_keys(&mut s.b, &cache, head, &dims);
            for (&i, column) in dims.iter().zip(&columns) {
                for (t, &got) in column[..n - 2].iter().enumerate() {
                    close(got, cache.keys[0][t][head * dim + i], 0.0, format!("{what} kept token {t}"));
                }
                for row in 0..2 {
                    let want = want(row, h + head, &k_norm)[i];
                    let tolerance = want.abs() * epsilon(dtype) * 0.51 + 2e-5 + (s.rounding)(dtype) * 8.0;
                    close(
                        column[n - 2 + row],
                        want,
                        tolerance,
                        format!("{what} new token {row} element {i}"),
                    );
                }
            }
        }
    }
}

/// Rounding to the pages' type is to nearest, ties to even: ones times cosines that lie between two of its values.
pub(crate) fn rounding<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(11);
    let layout = layout(1, 1, 32, 4, DType::BF16);
    if !s.takes(layout) {
        return;
    }
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[1]);
    let ulp = 1.0 / 128.0;
    let cases = [(1.0 + 0.5 * ulp, 1.0), (1.0 + 1.5 * ulp, 1.0 + 2.0 * ulp), (1.0 + 0.51 * ulp, 1.0 + ulp)];
    let mut cos = [1.0f32; 16];
    for (cos, case) in cos.iter_mut().zip(cases) {
        *cos = case.0;
    }
    let rope = s.b.rope(&cos, &[0.0; 16], 16).unwrap();
    let mut qkv = rows(&mut s.b, RowsKind::Activation, 96, &[1.0; 96]);
    let op = Append {
        qkv: &mut qkv,
        qk_norm: None,
        eps: 0.0,
        rope: &rope,
        batch: &cache.batch,
        kv: &mut cache.kv,
    };
    s.b.append(op).unwrap();
    let columns = read_keys(&mut s.b, &cache, 0, &[0, 1, 2]);
    for ((x, want), column) in cases.into_iter().zip(columns) {
        close(column[0], f64::from(want), 0.0, x);
    }
}

fn page_scores<B: Backend>(b: &mut B, cache: &Cache<B>, q: &[f32]) -> Vec<f32> {
    let heads = cache.layout.heads;
    let q = q_rows(b, heads, &[q.to_vec()]);
    let mut scores = b.scores(cache.capacity(), heads).unwrap();
    let mut counters = b.counters(1).unwrap();
    let op = Score {
        q: &q,
        kv: &cache.kv,
        heads,
        batch: &cache.batch,
        of: ScoreOf::Pages,
        budget: 0,
        layer: 0,
        counters: &mut counters,
        out: &mut scores,
    };
    b.score(op).unwrap();
    b.read_scores(0, cache.layout.page_size.pages_for(cache.lens[0]), &scores).unwrap()
}

fn check_bounds<B: Backend>(b: &mut B, rng: &mut Rng, cache: &Cache<B>, what: &str) {
    let heads = cache.layout.heads;
    let q = rng.grids(heads.query() * heads.dim());
    let got = page_scores(b, cache, &q);
    let page_size = cache.layout.page_size.tokens();
    let pages: Vec<&[Vec<f64>]> = cache.keys[0][..cache.lens[0]].chunks(page_size).collect();
    for h in 0..heads.query() {
        for (p, keys) in pages.iter().enumerate() {
            let mut want = 0.0;
            for i in 0..heads.dim() {
                let column = h / heads.group() * heads.dim() + i;
                let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
                for k in *keys {
                    least = least.min(k[column]);
                    most = most.max(k[column]);
                }
                let q = f64::from(q[h * heads.dim() + i]);
                want += (q * least).max(q * most);
            }
            close(got[h * pages.len() + p], want, 1e-3, format!("{what}: head {h} page {p}"));
        }
    }
}

/// Bounds after a prompt, after appends into a partly filled page, and after a sequence was cut back and went on.
pub(crate) fn page_bounds<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(12);
    for (dtype, page_size, dim) in [
        (DType::BF16, 16, 64),
        (DType::F32, 4, 80),
        (DType::F16, 1, 32),
        (DType::BF16, 256, 128),
        (DType::F32, 16, 96),
    ] {
        let layout = layout(6, 2, dim, page_size, dtype);
        if !s.takes(layout) {
            continue;
        }
        let heads = layout.heads;
        let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[page_size * 2 + page_size.div_ceil(2)]);
        let rope = no_rotation(&mut s.b, cache.lens[0], dim / 2);
        let what = format!("{dtype} page {page_size}");
        check_bounds(&mut s.b, &mut rng, &cache, &format!("{what} prompt"));
        // Cut back into the second page, then go on token by token with smaller keys, past the page's end.
        cache.lens[0] = page_size + page_size / 2;
        for _ in 0..page_size.div_ceil(2) + 1 {
            cache.lens[0] += 1;
            cache.upload(&mut s.b);
            let mut data: Vec<f32> = rng.grids(heads.qkv_width());
            data.iter_mut().for_each(|x| *x = (*x * 16.0).round() / 64.0);
            let key = &data[heads.query() * dim..][..heads.kv() * dim];
            cache.keys[0][cache.lens[0] - 1] = key.iter().map(|&x| f64::from(x)).collect();
            let mut qkv = rows(&mut s.b, RowsKind::Activation, heads.qkv_width(), &data);
            let op = Append {
                qkv: &mut qkv,
                qk_norm: None,
                eps: 0.0,
                rope: &rope,
                batch: &cache.batch,
                kv: &mut cache.kv,
            };
            s.b.append(op).unwrap();
            check_bounds(&mut s.b, &mut rng, &cache, &format!("{what} at {}", cache.lens[0]));
        }
    }
}

/// A copied page has the keys, values and bounds of the original.
pub(crate) fn copied_page<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(13);
    let layout = layout(2, 1, 64, 8, s.dtypes[s.dtypes.len() - 1]);
    let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[20]);
    let heads = layout.heads;
    let unused = (0..4).find(|p| !cache.tables[0].contains(p)).unwrap();
    let mut outputs = Vec::new();
    for copied in [false, true] {
        if copied {
            let from = std::mem::replace(&mut cache.tables[0][1], unused);
            s.b.copy_page(&mut cache.kv, from, unused).unwrap();
            cache.upload(&mut s.b);
        }
        let mut out = poisoned(&mut s.b, RowsKind::Activation, [1, 128]);
        let mut counters = s.b.counters(1).unwrap();
        let op = Attend {
            q: &cache.q,
            kv: &cache.kv,
            heads,
            scale: 0.1,
            batch: &cache.batch,
            over: Over::Dense,
            layer: 0,
            counters: &mut counters,
            out: &mut out,
        };
        s.b.attend(op).unwrap();
        outputs.push((read(&mut s.b, &out), page_scores(&mut s.b, &cache, &cache.queries[0].clone())));
    }
    assert_eq!(outputs[0], outputs[1]);
    let beyond = s.b.copy_page(&mut cache.kv, 0, 4).unwrap_err();
    assert!(beyond.to_string().contains("page to copy to is 4"), "{beyond}");
}
