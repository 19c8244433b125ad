//! Criterion over the graphs of `lim_bench::gpu`: time of one call, throughput in the bytes it must move.
//!
//!     cargo bench -p lim-bench --features cuda --bench gpu -- 'attention/'
//!
//! The share of the limit is the throughput over the copy rate that is printed first.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use lim_bench::gpu::{self, Model, Pool, Prepared, Product, Rule, Settings};
use lim_kernels::cuda::Cuda;
use lim_kernels::{DType, Result, Sets};

const PAGES: usize = 1 << 17;

fn main() -> Result<()> {
    let mut cuda = Cuda::new(0, DType::BF16)?;
    eprintln!("copy rate: {:.2} TB/s", cuda.copy_bandwidth(2 << 30)? / 1e12);
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    attention(&mut criterion, &mut cuda)?;
    selection(&mut criterion, &mut cuda)?;
    linear(&mut criterion, &mut cuda)?;
    criterion.final_summary();
    Ok(())
}

fn attention(criterion: &mut Criterion, cuda: &mut Cuda) -> Result<()> {
    let pool = Pool::new(cuda, PAGES)?;
    for [seqs, n] in [[1, 4096], [1, 32768], [1, 131_072], [8, 32768]] {
        let work = gpu::dense(cuda, Settings::FULL, &pool, [seqs, n, n])?;
        bench(criterion, cuda, "attention", &format!("dense {seqs} x {n}"), &work);
    }
    let work = gpu::dense_scored(cuda, Settings::FULL, &pool, [1, 32768])?;
    bench(criterion, cuda, "attention", "dense + scores 1 x 32768", &work);
    for seqs in [1, 8] {
        let work = gpu::gather(cuda, Settings::FULL, &pool, Sets::Shared, [seqs, 2048, 32768])?;
        bench(criterion, cuda, "attention", &format!("gather {seqs} x 2048 of 32768"), &work);
    }
    Ok(())
}

fn selection(criterion: &mut Criterion, cuda: &mut Cuda) -> Result<()> {
    for [seqs, n] in [[1, 32768], [1, 131_072], [8, 32768]] {
        let work = gpu::select(cuda, Rule::Union, [seqs, 2048, n])?;
        bench(criterion, cuda, "selection", &format!("union {seqs} x {n}"), &work);
    }
    for (name, rule) in [("per head", Rule::PerQueryHead), ("pages", Rule::Pages)] {
        let work = gpu::select(cuda, rule, [1, 2048, 32768])?;
        bench(criterion, cuda, "selection", &format!("{name} 1 x 32768"), &work);
    }
    Ok(())
}

fn linear(criterion: &mut Criterion, cuda: &mut Cuda) -> Result<()> {
    let model = Model::new(cuda, 36)?;
    for rows in [1, 8, 16] {
        let work = model.step(cuda, rows)?;
        bench(criterion, cuda, "linear", &format!("all weights of Qwen3-8B, {rows} rows"), &work);
    }
    for product in [Product::Qkv, Product::GateUp, Product::Down, Product::Head] {
        let work = model.product(cuda, product, 1)?;
        bench(criterion, cuda, "linear", &format!("{product:?} 1 row"), &work);
    }
    Ok(())
}

/// Criterion's unit is one call: an iteration count is rounded up to whole graphs and scaled back.
fn bench(criterion: &mut Criterion, cuda: &mut Cuda, group: &str, name: &str, work: &Prepared) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Bytes(work.bytes));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|calls| {
            let graphs = calls.div_ceil(work.calls as u64);
            match work.elapsed(cuda, graphs as usize) {
                Ok(time) => time.mul_f64(calls as f64 / (graphs * work.calls as u64) as f64),
                Err(error) => panic!("{name}: {error}"),
            }
        });
    });
}
