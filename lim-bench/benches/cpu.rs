//! The CPU backend's ops one by one, throughput in bytes (or operations) a second; `plain read` is the ceiling.
//!
//! `cargo bench -p lim-bench --bench cpu -- gemv` runs one group; LIM_THREADS sets the threads.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lim_bench::fixture::{Decode, Layers, Op, Prefill};
use lim_bench::roofline::{attention_bytes, causal_flops, gemm_flops, gemv_bytes};
use lim_kernels::cpu::Cpu;
use lim_kernels::{DType, Heads, KvLayout, PageSize, Quota};

/// The paper's default: K = 2048, a quarter recent, four sinks.
const QUOTA: Quota = Quota { sinks: 4, history: 1532, window: 512 };

fn cpu() -> Cpu {
    let threads = std::env::var("LIM_THREADS").ok().map(|t| t.parse().expect("LIM_THREADS is a number"));
    Cpu::new(threads).expect("threads")
}

fn layout(query: usize) -> KvLayout {
    KvLayout {
        heads: Heads::new(query, 8, 128).expect("heads"),
        page_size: PageSize::default(),
        dtype: DType::BF16,
    }
}

fn read(c: &mut Criterion) {
    let (mut cpu, data) = (cpu(), vec![1.0f32; 64 << 20]);
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(data.len() as u64 * 4));
    group.bench_function("plain", |b| b.iter(|| cpu.read(&data)));
}

/// Qwen3-0.6B's head, and layers of Qwen3-0.6B and Qwen3-8B in copies beyond the caches.
fn gemv(c: &mut Criterion) {
    let mut cpu = cpu();
    let mut group = c.benchmark_group("gemv");
    for (dtype, shape, copies, rows) in [
        (DType::BF16, [151936, 1024], 1, 1),
        (DType::F16, [151936, 1024], 1, 1),
        (DType::F32, [151936, 1024], 1, 1),
        (DType::BF16, [4096, 1024], 16, 1),
        (DType::BF16, [1024, 3072], 24, 1),
        (DType::BF16, [12288, 4096], 2, 1),
        (DType::BF16, [151936, 1024], 1, 4),
        (DType::BF16, [151936, 1024], 1, 8),
    ] {
        let mut layers = Layers::new(&mut cpu, dtype, shape, copies, rows).expect("layers");
        group.throughput(Throughput::Bytes((copies * gemv_bytes(dtype, shape)) as u64));
        let id = BenchmarkId::new(format!("{dtype} {shape:?}"), format!("{rows} rows"));
        group.bench_function(id, |b| b.iter(|| layers.run(&mut cpu).expect("gemv")));
    }
}

fn gemm(c: &mut Criterion) {
    let mut cpu = cpu();
    let mut group = c.benchmark_group("gemm");
    group.sample_size(20);
    for (shape, rows) in [([6144, 1024], 16), ([6144, 1024], 64), ([6144, 1024], 512), ([1024, 3072], 512)] {
        let mut layers = Layers::new(&mut cpu, DType::BF16, shape, 1, rows).expect("layers");
        group.throughput(Throughput::Elements(gemm_flops(rows, shape) as u64));
        let id = BenchmarkId::new(format!("bf16 {shape:?}"), format!("{rows} rows"));
        group.bench_function(id, |b| b.iter(|| layers.run(&mut cpu).expect("gemm")));
    }
}

fn decode(c: &mut Criterion) {
    let mut cpu = cpu();
    let mut group = c.benchmark_group("decode");
    group.sample_size(20);
    for (query, layers, seqs, len) in
        [(16, 8, 1, 4096), (16, 3, 1, 16384), (32, 3, 1, 16384), (16, 2, 4, 4096)]
    {
        let layout = layout(query);
        let mut step = Decode::new(&mut cpu, layout, layers, seqs, len, QUOTA).expect("decode");
        let name = format!("{query} heads, {seqs} x {len}");
        let sets = layout.heads.group();
        for (op, bytes) in [
            (Op::Dense, attention_bytes(layout, len)),
            (Op::DenseScored, attention_bytes(layout, len)),
            (Op::Shared, attention_bytes(layout, QUOTA.budget())),
            (Op::PerQueryHead, attention_bytes(layout, QUOTA.budget()) * sets),
            (Op::ScoreTokens, attention_bytes(layout, len) / 2),
            (Op::ScorePages, attention_bytes(layout, len.div_ceil(layout.page_size.tokens()))),
            // Selections rank float32 scores, and an append writes one token.
            (Op::SelectUnion, len * query * 4),
            (Op::SelectPerHead, len * query * 4),
            (Op::Append, attention_bytes(layout, 1)),
        ] {
            group.throughput(Throughput::Bytes((layers * seqs * bytes) as u64));
            group.bench_function(BenchmarkId::new(format!("{op:?}"), &name), |b| {
                b.iter(|| step.run(&mut cpu, op).expect("decode"));
            });
        }
    }
}

fn prefill(c: &mut Criterion) {
    let mut cpu = cpu();
    let mut group = c.benchmark_group("prefill");
    group.sample_size(20);
    for (rows, len) in [(512, 512), (512, 4096)] {
        let layout = layout(16);
        let mut prompt = Prefill::new(&mut cpu, layout, rows, len).expect("prefill");
        group.throughput(Throughput::Elements(causal_flops(layout, rows, len) as u64));
        group.bench_function(format!("{rows} rows up to {len}"), |b| {
            b.iter(|| prompt.run(&mut cpu).expect("prefill"));
        });
    }
}

criterion_group!(benches, read, gemv, gemm, decode, prefill);
criterion_main!(benches);
