//! A backend's pooling and selection equal the reference, bit for bit, given the same scores.

use std::cell::RefCell;

use lim_kernels::{Backend, Capacity, Heads, PageSize, Pool, Quota, Select, Step};
use lim_select::{Choice, Mass, reference};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::cases::{budget, draw, score};

/// K = 2048 of a real model.
const QUOTA: Quota = Quota { sinks: 4, history: 1536, window: 508 };
const MASS: Mass = Mass { scale: 0.09, share: 0.95 };

/// Sequences of different lengths that select in one step.
#[derive(Clone, Debug)]
struct Batch {
    heads: usize,
    kv: usize,
    quota: Quota,
    page_size: usize,
    mass: Mass,
    /// n and scores `[H][n]` of each sequence.
    sequences: Vec<(usize, Vec<f32>)>,
}

fn batch() -> impl Strategy<Value = Batch> {
    let one = (1..=8usize).prop_map(|heads| (heads, heads));
    let grouped = prop::sample::select(vec![(2, 1), (8, 2), (16, 16), (32, 8), (40, 8), (128, 8), (7, 1)]);
    let heads = prop_oneof![1 => one, 1 => grouped];
    let mass = (prop::sample::select(vec![0.01f32, 0.125, 1.0, 30.0]), prop_oneof![0.001..1.0f64, Just(1.0)]);
    let page_size = prop::sample::select(vec![1usize, 8, 16]);
    let lengths = prop::collection::vec((0..200i64, any::<u64>()), 1..5);
    (heads, budget(120), page_size, score(), lengths, mass).prop_map(
        |((heads, kv), budget, page_size, values, lengths, (scale, share))| {
            let quota = budget.quota();
            let sequence = |(x, seed): (i64, u64)| {
                // A quarter within the budget, many just beyond it.
                let beyond = if x < 100 { x - 50 } else { (x - 100).min(4) };
                let n = (quota.budget() as i64 + beyond).max(1) as usize;
                (n, draw(&values, heads * n, seed))
            };
            let mass = Mass { scale, share };
            Batch {
                heads,
                kv,
                quota,
                page_size,
                mass,
                sequences: lengths.into_iter().map(sequence).collect(),
            }
        },
    )
}

/// Random batches with every kind of special score, then one of a real model's size.
pub(crate) fn selects_as_the_reference<B: Backend>(backend: B, cases: u32) {
    let backend = RefCell::new(backend);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&batch(), |batch| {
        compare(&mut *backend.borrow_mut(), &batch);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    compare(&mut *backend.borrow_mut(), &large());
}

/// 32 heads, K = 2048: n = K, K + 1, and enough for several blocks of any kernel, with and without ties.
fn large() -> Batch {
    let heads = 32;
    let distinct: Vec<f32> = (0..100_000).map(|i| i as f32 * 0.001 - 50.0).collect();
    let few: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let sequence = |n: usize, values: &[f32]| (n, draw(values, heads * n, n as u64));
    let sequences = vec![
        sequence(2048, &distinct),
        sequence(2049, &distinct),
        sequence(9000, &distinct),
        sequence(8999, &few),
        sequence(5000, &[1.0]),
    ];
    Batch { heads, kv: 8, quota: QUOTA, page_size: 16, mass: MASS, sequences }
}

/// A million tokens, K = 16,384, 128 heads.
pub(crate) fn selects_from_the_largest<B: Backend>(mut backend: B) {
    let mixed: Vec<f32> = (0..200_003).map(|i| (i * 7919 % 200_003) as f32 * 1e-3 - 100.0).collect();
    let mut special = mixed.clone();
    special.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0].repeat(4000));
    let ties: Vec<f32> = (0..500).map(|i| i as f32).collect();
    let k16384 = Quota { sinks: 4, history: 12_288, window: 4092 };
    for (heads, kv, quota, sequences) in [
        (8, 2, k16384, vec![(1_000_000, &special), (16_385, &mixed), (16_384, &mixed), (100_000, &ties)]),
        (16, 2, QUOTA, vec![(600_000, &mixed), (3000, &special), (70_000, &ties)]),
        (128, 8, QUOTA, vec![(20_001, &mixed), (2049, &special), (30_000, &ties)]),
    ] {
        let sequence = |(n, values): (usize, &Vec<f32>)| (n, draw(values, heads * n, n as u64));
        let sequences = sequences.into_iter().map(sequence).collect();
        compare(&mut backend, &Batch { heads, kv, quota, page_size: 16, mass: MASS, sequences });
    }
}

fn compare<B: Backend>(backend: &mut B, batch: &Batch) {
    for choice in [
        Choice::Union,
        Choice::Mass,
        Choice::PerQueryHead,
        Choice::PerKvHead,
        Choice::Peak,
        Choice::Pages,
        Choice::Gates,
        Choice::PeakPages,
        Choice::Nothing,
    ] {
        let quota = match choice {
            Choice::PeakPages => {
                Quota { sinks: 0, history: batch.quota.history + batch.quota.sinks, ..batch.quota }
            }
            Choice::Pages | Choice::Gates => Quota { sinks: 0, history: batch.quota.budget(), window: 0 },
            // With nothing to rank, the budget is all sinks and window.
            Choice::Nothing => {
                Quota { history: 0, window: batch.quota.window + batch.quota.history, ..batch.quota }
            }
            _ => batch.quota,
        };
        let page_size = PageSize::new(batch.page_size).expect("valid");
        if choice.is_of_pages() && quota.budget() < page_size.tokens() {
            continue; // Settings refuse it.
        }
        let got = select(backend, choice, quota, page_size, batch);
        for (seq, (n, scores)) in batch.sequences.iter().enumerate() {
            let scores = scores_of(choice, heads(batch), page_size, *n, scores);
            let expected = reference::select(choice, scores, heads(batch), *n, page_size, quota, batch.mass);
            assert!(
                got[seq] == expected,
                "{choice:?} {quota:?}, sequence {seq} of {n} tokens: not the reference"
            );
        }
        assert!(select(backend, choice, quota, page_size, batch) == got, "{choice:?}: a second run differs");
    }
}

fn heads(batch: &Batch) -> Heads {
    Heads::new(batch.heads, batch.kv, 64).expect("valid")
}

/// `[H][n]`, or as many of them as there are page scores.
fn scores_of(choice: Choice, heads: Heads, page_size: PageSize, n: usize, scores: &[f32]) -> &[f32] {
    match choice {
        Choice::Pages => &scores[..heads.query() * page_size.pages_for(n)],
        Choice::Gates => &scores[..heads.kv() * page_size.pages_for(n)],
        _ => scores,
    }
}

fn select<B: Backend>(
    backend: &mut B,
    choice: Choice,
    quota: Quota,
    page_size: PageSize,
    batch: &Batch,
) -> Vec<Option<Vec<Vec<u32>>>> {
    let heads = heads(batch);
    let tokens = batch.sequences.iter().map(|&(n, _)| n).max().expect("not empty");
    let seqs = batch.sequences.len();
    let capacity = Capacity { rows: seqs, seqs, tokens };
    let mut step = Step::default();
    let pages: Vec<u32> = (0..page_size.pages_for(tokens) as u32).collect();
    let rows = choice.scores().map_or(heads.query(), |scoring| scoring.rows(heads));
    let mut scores = backend.pooled(capacity, rows).expect("scores");
    for (seq, (n, data)) in batch.sequences.iter().enumerate() {
        step.push(&[0], *n, &pages[..page_size.pages_for(*n)]).expect("one row");
        let data = scores_of(choice, heads, page_size, *n, data);
        backend.write_scores(seq, data, &mut scores).expect("fits");
    }
    let mut on_device = backend.batch(capacity, page_size).expect("batch");
    backend.upload(&step, &mut on_device).expect("fits");
    let mut pooled = None;
    if let Some(by) = choice.pooling() {
        let budget = quota.budget();
        let mut out = backend.pooled(capacity, by.rows(heads)).expect("pooled");
        let scale = batch.mass.scale;
        let op = Pool { scores: &scores, scale, heads, batch: &on_device, by, budget, out: &mut out };
        backend.pool(op).expect("pool");
        for (seq, (n, data)) in batch.sequences.iter().enumerate().filter(|(_, (n, _))| *n > budget) {
            let got = backend.read_scores(seq, by.columns(*n, page_size), &out).expect("pooled");
            let expected = reference::pooled(by, data, heads, page_size, scale);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let differs = bits(&got).iter().zip(bits(&expected)).position(|(a, b)| *a != b);
            assert!(
                got.len() == expected.len() && differs.is_none(),
                "{by:?} of sequence {seq}, {n} tokens, scale {scale}: at {differs:?} {:?} for {:?}",
                differs.map(|i| got[i]),
                differs.map(|i| expected[i])
            );
        }
        pooled = Some(out);
    }
    let mut counters = backend.counters(1).expect("counters");
    let mut selection = backend.selection(capacity, heads, choice.sets(), quota.budget()).expect("selection");
    backend
        .select(Select {
            pick: choice.pick(pooled.as_ref().or(Some(&scores)), batch.mass).expect("has scores"),
            quota,
            heads,
            batch: &on_device,
            layer: 0,
            counters: &mut counters,
            out: &mut selection,
        })
        .expect("select");
    let made = batch.sequences.iter().filter(|(n, _)| *n > quota.budget()).count();
    assert_eq!(backend.read_counters(&counters).expect("counters")[0].selections, made as u64);
    (0..seqs).map(|seq| backend.read_selection(seq, &selection).expect("made")).collect()
}
