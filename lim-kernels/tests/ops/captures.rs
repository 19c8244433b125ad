//! Recordings in several threads, each with a backend of its own: what one does beside another's capture does not end it.

use lim_kernels::cuda::Cuda;
use lim_kernels::{Backend, DType, Error, NormLinear, RowsKind};

use crate::fixture::{Rng, host, plain_batch, rows};

const THREADS: u64 = 8;
/// Backends that each thread makes and drops, and recordings with each.
const BACKENDS: u64 = 5;
const RECORDINGS: usize = 10;

/// Layers of two sizes, over few rows (kernels of our own, whose shared memory goes with the size) and many (cublasLt).
fn record_and_replay(seed: u64) {
    let mut b = Cuda::new(0, DType::BF16).expect("feature `cuda` is tested on a machine with a GPU");
    let mut rng = Rng(seed);
    let (inputs, outputs) = (256 << rng.below(5), 64 * (1 + rng.below(4)));
    let weight = host(DType::BF16, [outputs, inputs], &rng.grids(outputs * inputs));
    let linear = b.linear(&[(weight, None)]).unwrap();
    let norm = b.vector(&host(DType::F32, [inputs], &vec![1.0; inputs])).unwrap();
    for count in [3, 40] {
        let x = rows(&mut b, RowsKind::Residual, inputs, &rng.grids(count * inputs));
        let batch = plain_batch(&mut b, count);
        let mut out = b.rows(RowsKind::Activation, [count, outputs]).unwrap();
        let zeros = vec![0.0; count * outputs];
        let (mut expected, mut got) = (zeros.clone(), zeros.clone());
        for recording in 0..=RECORDINGS {
            let mut step = |b: &mut Cuda| -> Result<(), Error> {
                let op = NormLinear {
                    x: &x,
                    norm: &norm,
                    eps: 1e-6,
                    linear: &linear,
                    batch: &batch,
                    out: &mut out,
                };
                b.norm_linear(op)
            };
            if recording == 0 {
                step(&mut b).unwrap();
                b.read_rows(&out, &mut expected).unwrap();
                continue;
            }
            let made = b.record(|b| (0..20).try_for_each(|_| step(b))).unwrap();
            b.write_rows(&zeros, &mut out).unwrap();
            Backend::replay(&mut b, made.as_ref().unwrap()).unwrap();
            b.read_rows(&out, &mut got).unwrap();
            assert_eq!(got, expected, "{count} rows of {inputs}, recording {recording}");
        }
    }
}

mod cuda {
    use super::*;

    #[test]
    fn threads_record_beside_each_other() {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || (0..BACKENDS).for_each(|i| record_and_replay(1 + thread * BACKENDS + i)));
            }
        });
    }
}
