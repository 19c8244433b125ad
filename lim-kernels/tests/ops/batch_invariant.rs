//! A batch-invariant backend: what a row's products are does not depend on the rows beside it.

use lim_kernels::cuda::Cuda;
use lim_kernels::{Backend, DType, LinearAdd, NormGateUp, NormLinear, RowsKind};

use crate::fixture::{Rng, host, plain_batch, poisoned, read, rows};

const HIDDEN: usize = 1024;
/// More than a kernel holds of x at a time.
const INNER: usize = 4200;

/// The last of `data`'s rows after every kind of product, as bits.
fn last_row(b: &mut Cuda, rng: &mut Rng, dtype: DType, data: &[f32], count: usize) -> Vec<u32> {
    let mut linear = |b: &mut Cuda, [out, input]: [usize; 2]| {
        let w: Vec<f32> = rng.grids(out * input).iter().map(|w| w / 16.0).collect();
        b.linear(&[(host(dtype, [out, input], &w), None)]).unwrap()
    };
    let (qkv, gate_up, down) =
        (linear(b, [320, HIDDEN]), linear(b, [2 * INNER, HIDDEN]), linear(b, [HIDDEN, INNER]));
    let norm = b.vector(&host(DType::F32, [HIDDEN], &vec![1.5; HIDDEN])).unwrap();
    let batch = plain_batch(b, count);
    let mut x = poisoned(b, RowsKind::Residual, [count, HIDDEN]);
    b.write_rows(&data[data.len() - count * HIDDEN..], &mut x).unwrap();
    let mut out = poisoned(b, RowsKind::Activation, [count, 320]);
    let (norm, eps) = (&norm, 1e-6);
    b.norm_linear(NormLinear { x: &x, norm, eps, linear: &qkv, batch: &batch, out: &mut out }).unwrap();
    let mut gated = rows(b, RowsKind::Activation, INNER, &vec![0.0; count * INNER]);
    let op = NormGateUp { x: &x, norm, eps, gate_up: &gate_up, batch: &batch, out: &mut gated };
    b.norm_gate_up(op).unwrap();
    b.linear_add(LinearAdd { a: &gated, linear: &down, batch: &batch, x: &mut x }).unwrap();
    let (x, out) = (read(b, &x), read(b, &out));
    let last = x[(count - 1) * HIDDEN..].iter().chain(&out[(count - 1) * 320..]);
    last.map(|x| x.to_bits()).collect()
}

mod cuda {
    use super::*;

    #[test]
    fn a_row_is_the_same_among_any_others() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let gpu = Cuda::new(0, dtype).expect("feature `cuda` is tested on a machine with a GPU");
            let (mut b, data) = (gpu.batch_invariant(), Rng(50).grids(40 * HIDDEN));
            let alone = last_row(&mut b, &mut Rng(51), dtype, &data, 1);
            for count in [2, 7, 8, 9, 16, 17, 40] {
                assert!(
                    last_row(&mut b, &mut Rng(51), dtype, &data, count) == alone,
                    "{dtype}, one of {count} rows"
                );
            }
        }
    }
}
