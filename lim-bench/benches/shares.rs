//! Shares of the machine's read bandwidth: every op in turn with a plain read between them, some rounds, the best of
//! each. On a shared machine a single timing says little; the best of interleaved ones is comparable.
//!
//! `cargo bench -p lim-bench --bench shares -- [rounds]`; LIM_THREADS sets the threads.
#![allow(missing_docs, clippy::print_stdout)]

use std::time::Instant;

use lim_bench::fixture::{Decode, Layers, Op};
use lim_bench::roofline::{Ceiling, Share, attention_bytes, gemv_bytes};
use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType, Heads, KvLayout, PageSize, Quota, Result};

const QUOTA: Quota = Quota { sinks: 4, history: 1532, window: 512 };

type Run = Box<dyn FnMut(&mut Cpu) -> Result<()>>;

struct Job {
    name: String,
    bytes: usize,
    best: f64,
    run: Run,
}

fn jobs(cpu: &mut Cpu) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for (dtype, shape, copies, rows) in [
        (DType::BF16, [151936, 1024], 1, 1),
        (DType::F16, [151936, 1024], 1, 1),
        (DType::F32, [151936, 1024], 1, 1),
        (DType::BF16, [4096, 1024], 16, 1),
        (DType::BF16, [6144, 1024], 16, 1),
        (DType::BF16, [1024, 3072], 24, 1),
        (DType::BF16, [151936, 1024], 1, 4),
        (DType::BF16, [151936, 1024], 1, 8),
    ] {
        let mut layers = Layers::new(cpu, dtype, shape, copies, rows)?;
        let name = format!("linear {dtype} {}x{} x {copies}, {rows} rows", shape[0], shape[1]);
        let run: Run = Box::new(move |cpu| layers.run(cpu));
        jobs.push(Job { name, bytes: copies * gemv_bytes(dtype, shape), best: f64::INFINITY, run });
    }
    for (query, layers, seqs, len) in
        [(16, 8, 1, 4096), (16, 3, 1, 16384), (32, 3, 1, 16384), (16, 2, 4, 4096)]
    {
        let layout = KvLayout {
            heads: Heads::new(query, 8, 128)?,
            page_size: PageSize::default(),
            dtype: DType::BF16,
        };
        let step = Decode::new(cpu, layout, layers, seqs, len, QUOTA)?;
        let step = std::rc::Rc::new(std::cell::RefCell::new(step));
        for (op, tokens) in [(Op::Dense, len), (Op::DenseScored, len), (Op::Shared, QUOTA.budget())] {
            let step = step.clone();
            let run: Run = Box::new(move |cpu| step.borrow_mut().run(cpu, op));
            let name = format!("{op:?} {query} heads, {seqs} x {len}");
            let bytes = layers * seqs * attention_bytes(layout, tokens);
            jobs.push(Job { name, bytes, best: f64::INFINITY, run });
        }
    }
    Ok(jobs)
}

fn main() -> Result<()> {
    let threads = std::env::var("LIM_THREADS").ok().map(|t| t.parse().expect("LIM_THREADS is a number"));
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(7);
    let mut cpu = Cpu::new(threads)?;
    let mut ceiling = Ceiling::default();
    let mut jobs = jobs(&mut cpu)?;
    for _ in 0..rounds {
        for job in &mut jobs {
            ceiling.read(&mut cpu);
            let begun = Instant::now();
            (job.run)(&mut cpu)?;
            job.best = job.best.min(begun.elapsed().as_secs_f64());
        }
    }
    let ceiling = ceiling.bytes_per_s();
    println!("{}, plain read {:.1} GB/s, best of {rounds}", cpu.device(), ceiling / 1e9);
    for job in &jobs {
        let share = Share { bytes: job.bytes, seconds: job.best, ceiling };
        let (speed, part) = (share.gb_per_s(), 100.0 * share.of_ceiling());
        println!("{:44} {:9.3} ms {speed:6.1} GB/s {part:4.0}%", job.name, job.best * 1e3);
    }
    Ok(())
}
