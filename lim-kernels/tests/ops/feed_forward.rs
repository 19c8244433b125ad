//! The verbs that hold several products.

use lim_kernels::{Append, Backend, DType, FeedForward, Project, Projection, RowsKind};

use crate::append::read_keys;
use crate::fixture::{Cache, Rng, Subject, close, epsilon, host, layout, no_rotation, poisoned, read, rows};
use crate::reference::{dot, rms_norm, silu};

const EPS: f32 = 1e-6;

/// Rows that take every path of a device.
const COUNTS: [usize; 8] = [1, 2, 3, 7, 8, 9, 16, 17];

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// `out[o] = sum_i x[i] w[o][i]` and the sum of the terms' sizes.
fn product(x: &[f64], w: &[f32]) -> Vec<(f64, f64)> {
    let row = |w: &[f32]| {
        let w = wide(w);
        (dot(x, &w), x.iter().zip(&w).map(|(x, w)| (x * w).abs()).sum())
    };
    w.chunks(x.len()).map(row).collect()
}

/// A block's products with and without another block behind it, twice: the same bits, and what float64 says.
pub(crate) fn between_attentions<B: Backend>(s: &mut Subject<B>) {
    // The longer inner widths exceed what a kernel may hold of x at a time.
    let shapes = [(200, 264, (4, 2, 32)), (72, 4200, (3, 1, 64)), (64, 9000, (2, 2, 32))];
    let mut rng = Rng(40);
    for (dtype, (hidden, inner, (h, kv, dim))) in s.dtypes.iter().flat_map(|&d| shapes.map(|x| (d, x))) {
        let (layout, width) = (layout(h, kv, dim, 4, dtype), (h + 2 * kv) * dim);
        let mut small = |n: usize| rng.grids(n).iter().map(|w| w / 8.0).collect::<Vec<f32>>();
        let (o, gate_up) = (small(hidden * h * dim), small(2 * inner * hidden));
        let (down, qkv) = (small(hidden * inner), small(width * hidden));
        let (norms, bias) = ([rng.grids(hidden), rng.grids(hidden)], rng.grids(width));
        let mut linear = |shape: [usize; 2], w: &[f32]| s.b.linear(&[(host(dtype, shape, w), None)]).unwrap();
        let (o_linear, down_linear) = (linear([hidden, h * dim], &o), linear([hidden, inner], &down));
        let halves = gate_up.chunks(inner * hidden).map(|w| (host(dtype, [inner, hidden], w), None));
        let gate_up_linear = s.b.linear(&halves.collect::<Vec<_>>()).unwrap();
        let with_bias = (host(dtype, [width, hidden], &qkv), Some(host(dtype, [width], &bias)));
        let qkv_linear = s.b.linear(&[with_bias]).unwrap();
        let [norm, next_norm] = [0, 1].map(|i| s.b.vector(&host(DType::F32, [hidden], &norms[i])).unwrap());
        let rope = no_rotation(&mut s.b, 3, dim / 2);
        for count in COUNTS {
            let mut cache = Cache::new(&mut s.b, &mut rng, layout, &vec![3; count]);
            cache.upload(&mut s.b);
            let (before, data) = (rng.grids(count * hidden), rng.grids(count * h * dim));
            let attended = rows(&mut s.b, RowsKind::Activation, h * dim, &data);
            let mut run = |b: &mut B, follows: bool| {
                let mut x = poisoned(b, RowsKind::Residual, [count, hidden]);
                b.write_rows(&before, &mut x).unwrap();
                let mut gated = poisoned(b, RowsKind::Activation, [count, inner]);
                let mut fused = poisoned(b, RowsKind::Activation, [count, width]);
                let append = Append {
                    qkv: &mut fused,
                    qk_norm: None,
                    eps: EPS,
                    rope: &rope,
                    batch: &cache.batch,
                    kv: &mut cache.kv,
                };
                let next = Projection { norm: &next_norm, eps: EPS, linear: &qkv_linear, append };
                let op = FeedForward {
                    attended: &attended,
                    o: &o_linear,
                    norm: &norm,
                    eps: EPS,
                    gate_up: &gate_up_linear,
                    gated: &mut gated,
                    down: &down_linear,
                    next: follows.then_some(next),
                    batch: &cache.batch,
                    x: &mut x,
                };
                b.feed_forward(op).unwrap();
                let x = read(b, &x);
                (x, follows.then(|| read(b, &fused)))
            };
            let (x, _) = run(&mut s.b, false);
            let (again, first) = run(&mut s.b, true);
            assert_eq!(x, again, "{dtype} {hidden} {inner} {count} rows: what follows changes x");
            let (again, second) = run(&mut s.b, true);
            assert!((x == again) && (first == second), "{dtype} {hidden} {inner} {count} rows, run twice");
            let fused = first.unwrap();
            let keys = read_keys(&mut s.b, &cache, 0, &[1])[0][2];
            let key = f64::from(fused[h * dim + 1]);
            close(keys, key, key.abs() * epsilon(dtype), "the new key in its page");

            let rounding = (s.rounding)(dtype);
            for row in 0..count {
                let what = format!("{dtype} {hidden} {inner} row {row}/{count}");
                let mut want = wide(&before[row * hidden..][..hidden]);
                let mixed = product(&wide(&data[row * h * dim..][..h * dim]), &o);
                want.iter_mut().zip(&mixed).for_each(|(x, (sum, _))| *x += sum);
                let both = product(&rms_norm(&want, &wide(&norms[0]), f64::from(EPS)), &gate_up);
                let (gate, up) = both.split_at(inner);
                let gated: Vec<f64> = gate.iter().zip(up).map(|(g, u)| silu(g.0) * u.0).collect();
                // What the gates and the ups are off by, each for a different sum, stands beside the rounded result.
                let doubt =
                    |i: usize| gated[i].abs() + 1.1 * gate[i].1 * up[i].0.abs() + up[i].1 * gate[i].0.abs();
                let doubts: f64 = (0..inner).map(doubt).map(|d| d * d).sum::<f64>().sqrt();
                let added = product(&gated, &down);
                want.iter_mut().zip(&added).for_each(|(x, (sum, _))| *x += sum);
                for (i, &want) in want.iter().enumerate() {
                    let tolerance = 1e-4 + 2e-6 * (mixed[i].1 + added[i].1) + rounding * doubts;
                    close(x[row * hidden + i], want, tolerance, format!("{what} x {i}"));
                }
                // The rows as they are, so that only the last product is in question.
                let x = wide(&x[row * hidden..][..hidden]);
                let projected = product(&rms_norm(&x, &wide(&norms[1]), f64::from(EPS)), &qkv);
                for (i, (sum, size)) in projected.into_iter().enumerate() {
                    let (got, want) = (fused[row * width + i], sum + f64::from(bias[i]));
                    close(
                        got,
                        want,
                        size * (2e-6 + rounding) + 1e-4 + want.abs() * rounding,
                        format!("{what} qkv {i}"),
                    );
                }
            }
        }
    }
}

/// The first block's projection is the norm, the product and the write to pages.
pub(crate) fn first_projection<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(41);
    for &dtype in s.dtypes {
        let (hidden, layout, width) = (136, layout(4, 2, 32, 4, dtype), 8 * 32);
        let (w, weight) = (rng.grids(width * hidden), rng.grids(hidden));
        let linear = s.b.linear(&[(host(dtype, [width, hidden], &w), None)]).unwrap();
        let norm = s.b.vector(&host(DType::F32, [hidden], &weight)).unwrap();
        let rope = no_rotation(&mut s.b, 3, 16);
        let mut cache = Cache::new(&mut s.b, &mut rng, layout, &[3, 2]);
        cache.upload(&mut s.b);
        let data = rng.grids(2 * hidden);
        let x = rows(&mut s.b, RowsKind::Residual, hidden, &data);
        let mut qkv = poisoned(&mut s.b, RowsKind::Activation, [2, width]);
        let append = Append {
            qkv: &mut qkv,
            qk_norm: None,
            eps: EPS,
            rope: &rope,
            batch: &cache.batch,
            kv: &mut cache.kv,
        };
        let into = Projection { norm: &norm, eps: EPS, linear: &linear, append };
        s.b.project(Project { x: &x, into }).unwrap();
        let got = read(&mut s.b, &qkv);
        for row in 0..2 {
            let h = rms_norm(&wide(&data[row * hidden..][..hidden]), &wide(&weight), f64::from(EPS));
            for (i, (want, size)) in product(&h, &w).into_iter().enumerate() {
                let tolerance = size * (2e-6 + (s.rounding)(dtype)) + 1e-5;
                close(got[row * width + i], want, tolerance, format!("{dtype} row {row} {i}"));
            }
        }
        let (keys, key) = (read_keys(&mut s.b, &cache, 1, &[5])[0][2], f64::from(got[4 * 32 + 32 + 5]));
        close(keys, key, key.abs() * epsilon(dtype), "the new key in its page");
    }
}
