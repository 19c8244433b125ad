//! Embedding, norms, linear layers, SwiGLU, logits.

use lim_kernels::{
    Backend, Capacity, DType, Embed, LinearAdd, Logits, NormGateUp, NormLinear, PageSize, RowsKind, Step,
};

use crate::fixture::{Rng, Subject, close, host, plain_batch, poisoned, read, rows};
use crate::reference::{dot, rms_norm, silu};

const EPS: f32 = 1e-6;

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn embed<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(1);
    for &dtype in s.dtypes {
        let (vocab, hidden) = (50, 36);
        let table = rng.grids(vocab * hidden);
        let linear = s.b.linear(&[(host(dtype, [vocab, hidden], &table), None)]).unwrap();
        let tokens = [0u32, 49, 7, 7, 31];
        let mut batch =
            s.b.batch(Capacity { rows: 5, seqs: 2, tokens: 5 }, PageSize::new(4).unwrap()).unwrap();
        let mut step = Step::default();
        step.push(&tokens[..4], 4, &[0]).unwrap();
        step.push(&tokens[4..], 1, &[1]).unwrap();
        s.b.upload(&step, &mut batch).unwrap();
        let mut x = poisoned(&mut s.b, RowsKind::Residual, [5, hidden]);
        s.b.embed(Embed { table: &linear, batch: &batch, x: &mut x }).unwrap();
        let got = read(&mut s.b, &x);
        for (row, &token) in tokens.iter().enumerate() {
            assert_eq!(
                got[row * hidden..][..hidden],
                table[token as usize * hidden..][..hidden],
                "{dtype} {row}"
            );
        }
    }
}

/// Weights beyond any buffer on the way, in parts that end anywhere, stored in every type: all rows arrive, converted to
/// the type that the device computes in.
pub(crate) fn large_weights<B: Backend>(s: &mut Subject<B>) {
    let (hidden, sizes) = (1027, [20_011usize, 13, 4_000]);
    let total: usize = sizes.iter().sum();
    let mut rng = Rng(6);
    let values: Vec<Vec<f32>> = sizes.iter().map(|rows| rng.grids(rows * hidden)).collect();
    for stored in [DType::F32, DType::F16, DType::BF16] {
        let parts: Vec<_> =
            sizes.iter().zip(&values).map(|(&rows, v)| (host(stored, [rows, hidden], v), None)).collect();
        let linear = s.b.linear(&parts).unwrap();
        drop(parts);
        let tokens: Vec<u32> = (0..512).map(|i| (i * (total - 1) / 511) as u32).collect();
        let mut batch = plain_batch(&mut s.b, tokens.len());
        let mut step = Step::default();
        let pages: Vec<u32> = (0..32).collect();
        step.push(&tokens, tokens.len(), &pages).unwrap();
        s.b.upload(&step, &mut batch).unwrap();
        let mut x = poisoned(&mut s.b, RowsKind::Residual, [tokens.len(), hidden]);
        s.b.embed(Embed { table: &linear, batch: &batch, x: &mut x }).unwrap();
        let got = read(&mut s.b, &x);
        let all: Vec<&[f32]> = values.iter().flat_map(|v| v.chunks(hidden)).collect();
        for (row, &token) in tokens.iter().enumerate() {
            assert!(got[row * hidden..][..hidden] == *all[token as usize], "{stored} row {token}");
        }
    }
}

/// Numbers of rows that take every path: one, a few, and enough for matrix products.
const COUNTS: [usize; 9] = [1, 2, 3, 5, 8, 9, 16, 17, 70];

pub(crate) fn norm_linear<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(2);
    for (dtype, inputs) in s.dtypes.iter().flat_map(|&d| [64, 104, 1024].map(|i| (d, i))) {
        let sizes = [67usize, 3, 130];
        let norm = rng.grids(inputs);
        let weights: Vec<_> = sizes.iter().map(|out| rng.grids(out * inputs)).collect();
        let biases: Vec<_> = sizes.iter().map(|&out| rng.grids(out)).collect();
        let bias = |i: usize| (i != 1).then(|| host(dtype, [sizes[i]], &biases[i]));
        let parts: Vec<_> = (0..3).map(|i| (host(dtype, [sizes[i], inputs], &weights[i]), bias(i))).collect();
        let linear = s.b.linear(&parts).unwrap();
        let norm_weight = s.b.vector(&host(dtype, [inputs], &norm)).unwrap();
        for count in COUNTS {
            let data = rng.grids(count * inputs);
            let x = rows(&mut s.b, RowsKind::Residual, inputs, &data);
            let batch = plain_batch(&mut s.b, count);
            let mut out = poisoned(&mut s.b, RowsKind::Activation, [count, 200]);
            let op = NormLinear {
                x: &x,
                norm: &norm_weight,
                eps: EPS,
                linear: &linear,
                batch: &batch,
                out: &mut out,
            };
            s.b.norm_linear(op).unwrap();
            let got = read(&mut s.b, &out);
            for row in 0..count {
                let h = rms_norm(&wide(&data[row * inputs..][..inputs]), &wide(&norm), f64::from(EPS));
                for o in (0..200usize).step_by(if count > 9 { 7 } else { 1 }) {
                    let (part, at) = [(0, o), (1, o.wrapping_sub(67)), (2, o.wrapping_sub(70))]
                        [usize::from(o >= 67) + usize::from(o >= 70)];
                    let w = wide(&weights[part][at * inputs..][..inputs]);
                    let want = dot(&h, &w) + if part == 1 { 0.0 } else { f64::from(biases[part][at]) };
                    let size: f64 = h.iter().zip(&w).map(|(a, b)| (a * b).abs()).sum();
                    let tolerance = size * (2e-6 + (s.rounding)(dtype)) + 1e-5;
                    close(
                        got[row * 200 + o],
                        want,
                        tolerance,
                        format!("{dtype} {inputs} row {row}/{count} out {o}"),
                    );
                }
            }
        }
    }
}

pub(crate) fn linear_add<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(3);
    // The longer one exceeds what a kernel may hold of x at a time, and ends within a part.
    let cases = s.dtypes.iter().flat_map(|&d| COUNTS.map(|c| (d, c)));
    for ((dtype, count), (inputs, outputs)) in cases.flat_map(|case| [(case, (192, 99)), (case, (9000, 19))])
    {
        let (weight, a, before) =
            (rng.grids(outputs * inputs), rng.grids(count * inputs), rng.grids(count * outputs));
        let linear = s.b.linear(&[(host(dtype, [outputs, inputs], &weight), None)]).unwrap();
        let batch = plain_batch(&mut s.b, count);
        let a_rows = rows(&mut s.b, RowsKind::Activation, inputs, &a);
        let mut x = poisoned(&mut s.b, RowsKind::Residual, [count, outputs]);
        s.b.write_rows(&before, &mut x).unwrap();
        s.b.linear_add(LinearAdd { a: &a_rows, linear: &linear, batch: &batch, x: &mut x }).unwrap();
        let got = read(&mut s.b, &x);
        for (i, &got) in got.iter().enumerate() {
            let (row, o) = (i / outputs, i % outputs);
            let (a, w) = (wide(&a[row * inputs..][..inputs]), wide(&weight[o * inputs..][..inputs]));
            let want = f64::from(before[i]) + dot(&a, &w);
            let size: f64 = a.iter().zip(&w).map(|(a, w)| (a * w).abs()).sum();
            close(got, want, 1e-3 + 2e-6 * size, format!("{dtype} {inputs} row {row}/{count} out {o}"));
        }
    }
}

pub(crate) fn norm_gate_up<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(4);
    // Rows of 80 elements can be read 16 bytes at a time, rows of 77 cannot.
    let cases = s.dtypes.iter().flat_map(|&d| COUNTS.map(|c| [(d, c, 77), (d, c, 80)])).flatten();
    for (dtype, count, inner) in cases {
        let hidden = 64;
        // Small weights, so that the gates cover the bend of the sigmoid.
        let small: Vec<f32> = rng.grids(2 * inner * hidden).iter().map(|w| w / 8.0).collect();
        let (gate, up) = small.split_at(inner * hidden);
        let (norm, data) = (rng.grids(hidden), rng.grids(count * hidden));
        let shape = [inner, hidden];
        let linear = s.b.linear(&[(host(dtype, shape, gate), None), (host(dtype, shape, up), None)]).unwrap();
        let norm_weight = s.b.vector(&host(DType::F32, [hidden], &norm)).unwrap();
        let x = rows(&mut s.b, RowsKind::Residual, hidden, &data);
        let batch = plain_batch(&mut s.b, count);
        let mut out = poisoned(&mut s.b, RowsKind::Activation, [count, inner]);
        let op = NormGateUp {
            x: &x,
            norm: &norm_weight,
            eps: EPS,
            gate_up: &linear,
            batch: &batch,
            out: &mut out,
        };
        s.b.norm_gate_up(op).unwrap();
        let got = read(&mut s.b, &out);
        for (i, &got) in got.iter().enumerate() {
            let (row, o) = (i / inner, i % inner);
            let h = rms_norm(&wide(&data[row * hidden..][..hidden]), &wide(&norm), f64::from(EPS));
            let part = |w: &[f32]| dot(&h, &wide(&w[o * hidden..][..hidden]));
            let (g, u) = (part(gate), part(up));
            let tolerance =
                1e-4 + (s.rounding)(dtype) * (8.0 + 8.0 * g.abs() + 8.0 * u.abs() + (g * u).abs());
            close(got, silu(g) * u, tolerance, format!("{dtype} row {row}/{count} out {o}"));
        }
    }
}

pub(crate) fn logits<B: Backend>(s: &mut Subject<B>) {
    let mut rng = Rng(5);
    for &dtype in s.dtypes {
        let (hidden, vocab) = (128, 301);
        let (table, norm, data) = (rng.grids(vocab * hidden), rng.grids(hidden), rng.grids(6 * hidden));
        let head = s.b.linear(&[(host(dtype, [vocab, hidden], &table), None)]).unwrap();
        let norm_weight = s.b.vector(&host(dtype, [hidden], &norm)).unwrap();
        let x = rows(&mut s.b, RowsKind::Residual, hidden, &data);
        let picked = [5u32, 0, 5];
        let mut out = poisoned(&mut s.b, RowsKind::Logits, [3, vocab]);
        let op = Logits { x: &x, norm: &norm_weight, eps: EPS, head: &head, rows: &picked, out: &mut out };
        s.b.logits(op).unwrap();
        let got = read(&mut s.b, &out);
        for (i, &got) in got.iter().enumerate() {
            let (row, o) = (picked[i / vocab] as usize, i % vocab);
            let h = rms_norm(&wide(&data[row * hidden..][..hidden]), &wide(&norm), f64::from(EPS));
            let w = wide(&table[o * hidden..][..hidden]);
            let size: f64 = h.iter().zip(&w).map(|(a, b)| (a * b).abs()).sum();
            close(got, dot(&h, &w), size * (2e-6 + (s.rounding)(dtype)), format!("{dtype} {row} {o}"));
        }
    }
}
