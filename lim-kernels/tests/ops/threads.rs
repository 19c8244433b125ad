//! The CPU's results do not depend on its number of threads, nor a decode row's on its neighbours.

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType, NormLinear, Over, Pick, Quota, RowsKind, Select, Sets};

use crate::attend::run;
use crate::fixture::{Cache, Rng, host, layout, plain_batch, rows};
use crate::select::Lists;

/// A linear layer, dense attention with scores, a selection and attention over it.
fn all(threads: usize) -> (Vec<u32>, Lists) {
    let mut b = Cpu::new(Some(threads)).unwrap();
    let mut rng = Rng(70);
    let mut bits: Vec<u32> = Vec::new();
    for count in [1, 4, 40] {
        bits.extend(project(&mut b, &mut Rng(71), count).iter().map(|x| x.to_bits()));
    }
    let lens = [900, 3, 300];
    let cache = Cache::new(&mut b, &mut rng, layout(8, 2, 64, 16, DType::BF16), &lens);
    let heads = cache.layout.heads;
    let mut counters = b.counters(1).unwrap();
    let mut scores = b.scores(cache.capacity(), heads).unwrap();
    bits.extend(
        run(&mut b, &cache, Over::DenseScored(&mut scores), &mut counters).iter().map(|x| x.to_bits()),
    );
    let quota = Quota { sinks: 4, history: 96, window: 28 };
    let mut selection = b.selection(cache.capacity(), heads, Sets::Shared, quota.budget()).unwrap();
    let op = Select {
        pick: Pick::Union(&scores),
        quota,
        heads,
        batch: &cache.batch,
        layer: 0,
        counters: &mut counters,
        out: &mut selection,
    };
    b.select(op).unwrap();
    bits.extend(run(&mut b, &cache, Over::Selected(&selection), &mut counters).iter().map(|x| x.to_bits()));
    (bits, (0..3).map(|seq| b.read_selection(seq, &selection).unwrap()).collect())
}

/// `count` rows through one layer; the same weights and leading rows for the same seed.
fn project(b: &mut Cpu, rng: &mut Rng, count: usize) -> Vec<f32> {
    let (inputs, outputs) = (96, 333);
    let weight = host(DType::BF16, [outputs, inputs], &rng.grids(outputs * inputs));
    let linear = b.linear(&[(weight, None)]).unwrap();
    let norm = b.vector(&host(DType::F32, [inputs], &rng.grids(inputs))).unwrap();
    let x = rows(b, RowsKind::Residual, inputs, &rng.grids(count * inputs));
    let batch = plain_batch(b, count);
    let mut out = b.rows(RowsKind::Activation, [count, outputs]).unwrap();
    let op = NormLinear { x: &x, norm: &norm, eps: 1e-6, linear: &linear, batch: &batch, out: &mut out };
    b.norm_linear(op).unwrap();
    let mut got = vec![0.0; count * outputs];
    b.read_rows(&out, &mut got).unwrap();
    got
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let one = all(1);
    for threads in [2, 3, 5] {
        assert_eq!(all(threads), one, "{threads} threads");
    }
}

#[test]
fn a_decode_row_is_the_same_alone_and_in_a_batch() {
    let mut b = Cpu::new(Some(2)).unwrap();
    let alone = project(&mut b, &mut Rng(72), 1);
    for count in 2..=8 {
        assert_eq!(project(&mut b, &mut Rng(72), count)[..alone.len()], alone[..], "{count} rows");
    }
}

#[test]
fn refuses_no_threads() {
    assert!(Cpu::new(Some(0)).is_err());
    assert!(Cpu::new(Some(2)).unwrap().device().starts_with("cpu (2 threads, "));
}
