//! Measures every CUDA kernel on one GPU and writes the report as JSON; `lim_bench::gpu` prepares the work.

use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Instant;

use lim_bench::gpu::{self, Model, Pool, Prepared, Product, Rule, Settings};
use lim_bench::report::{Failure, Machine, Report, Row, Timing};
use lim_kernels::cuda::Cuda;
use lim_kernels::{Backend, DType, Pooling, Result, SampleParams, ScoreOf, Sets};

const USAGE: &str = "\
usage: gpu [OUT.json] [--quick] [--parts NAME,...] [--device N] [--commit NAME]

Writes the report to OUT.json, or to stdout. --quick runs every kernel on small shapes, to see that it runs: its times
say nothing. --parts takes some of kv, selection, model, sample. The commit can also come from the environment, as LIM_COMMIT. Exit code 1: a row failed, or no GPU.";

/// The device and what has been measured; a row that fails, or memory that cannot be had, costs its own rows only.
struct Runner {
    cuda: Cuda,
    settings: Settings,
    quick: bool,
    report: Report,
}

/// A part of the report: its name in `--parts`, and what measures it.
type Part = (&'static str, fn(&mut Runner));

const PARTS: [Part; 4] = [
    ("kv", Runner::kv_rows),
    ("selection", Runner::selection_rows),
    ("model", Runner::model_rows),
    ("sample", Runner::sample_rows),
];

struct Args {
    out: Option<String>,
    quick: bool,
    /// Names in [`PARTS`]; all where none is given.
    parts: Vec<String>,
    device: usize,
    commit: Option<String>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            eprintln!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("gpu: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let commit = std::env::var("LIM_COMMIT").ok();
    let mut parsed = Args { out: None, quick: false, parts: Vec::new(), device: 0, commit };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--quick" => parsed.quick = true,
            "--parts" => {
                parsed.parts = value()?.split(',').map(str::to_owned).collect();
                let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
                if let Some(name) = parsed.parts.iter().find(|name| !known(name)) {
                    return Err(format!("--parts: no part {name:?}"));
                }
            }
            "--device" => parsed.device = value()?.parse().map_err(|e| format!("--device: {e}"))?,
            "--commit" => parsed.commit = Some(value()?),
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}")),
            _ if parsed.out.is_none() => parsed.out = Some(arg),
            _ => return Err(format!("unexpected argument {arg}")),
        }
    }
    Ok(Some(parsed))
}

fn write(report: &Report, out: Option<&str>) -> Result<(), String> {
    let Some(path) = out else { return Ok(()) };
    std::fs::write(path, json(report)? + "\n").map_err(|e| format!("{path}: {e}"))
}

#[allow(clippy::print_stdout)]
fn say(report: &Report) -> Result<(), String> {
    println!("{}", json(report)?);
    Ok(())
}

fn json(report: &Report) -> Result<String, String> {
    serde_json::to_string_pretty(report).map_err(|e| e.to_string())
}

/// Whether no row failed.
fn measure(args: &Args) -> Result<bool, String> {
    let cuda = Cuda::new(args.device, DType::BF16).map_err(|e| e.to_string())?;
    let settings = if args.quick { Settings::QUICK } else { Settings::FULL };
    let machine = Machine {
        gpu: cuda.device(),
        driver: driver(),
        commit: args.commit.clone(),
        command: std::env::args().collect(),
        copy_gb_per_s: None,
        cold_bytes: settings.cold_bytes,
        replays: settings.replays,
    };
    let mut runner = Runner { cuda, settings, quick: args.quick, report: Report::new(machine) };
    runner.bandwidth();
    for (name, part) in PARTS {
        if !args.parts.is_empty() && !args.parts.iter().any(|wanted| wanted == name) {
            continue;
        }
        part(&mut runner);
        // What is measured so far outlives a run that is cut short.
        write(&runner.report.clone().judged(), args.out.as_deref())?;
    }
    let report = runner.report.judged();
    if args.out.is_none() {
        say(&report)?;
    }
    for row in &report.rows {
        let goal = row.goal_us.map_or(String::new(), |goal| format!(" goal {goal:.1}"));
        let limit = row.limit_us.map_or(String::new(), |limit| format!(" limit {limit:.1}"));
        eprintln!("{:<40} {:>10.1} us{limit}{goal}", name(&row.op, row.batch, row.n), row.us);
    }
    Ok(report.failed.is_empty())
}

impl Runner {
    fn bandwidth(&mut self) {
        let bytes = if self.quick { 64 << 20 } else { 2 << 30 };
        match self.cuda.copy_bandwidth(bytes) {
            Ok(rate) => self.report.machine.copy_gb_per_s = Some(rate / 1e9),
            Err(error) => self.failed("copy bandwidth".into(), &error),
        }
    }

    /// Rows over the KV pool.
    fn kv_rows(&mut self) {
        let pages = if self.quick { 1 << 13 } else { 1 << 17 };
        let Some(pool) = self.made("KV pool", |r| Pool::new(&mut r.cuda, pages)) else { return };
        let (settings, quick) = (self.settings, self.quick);
        let shapes: &[[usize; 3]] = &[
            [1, 4096, 4096],
            [1, 32768, 32768],
            [1, 131_072, 131_072],
            [8, 32768, 32768],
            [32, 32768, 32768],
            [1, 32768, 131_072],
        ];
        for &shape in if quick { &shapes[..1] } else { shapes } {
            let [seqs, n, capacity] = shape;
            let note = (capacity != n).then(|| format!("room for {capacity}"));
            self.row("dense", seqs, Some(n), note, |r| gpu::dense(&mut r.cuda, settings, &pool, shape));
        }
        let n = if quick { 4096 } else { 32768 };
        self.row("dense + scores", 1, Some(n), None, |r| {
            gpu::dense_scored(&mut r.cuda, settings, &pool, [1, n])
        });
        let batches: &[usize] = if quick { &[1] } else { &[1, 8, 32] };
        for &seqs in batches {
            self.row("gather", seqs, Some(2048), None, |r| {
                gpu::gather(&mut r.cuda, settings, &pool, Sets::Shared, [seqs, 2048, n])
            });
        }
        let note = Some("a set per query head".into());
        self.row("gather", 1, Some(2048), note, |r| {
            gpu::gather(&mut r.cuda, settings, &pool, Sets::PerQueryHead, [1, 2048, n])
        });
        self.row("token scores", 1, Some(n), None, |r| {
            gpu::score(&mut r.cuda, settings, &pool, ScoreOf::Tokens, [1, n])
        });
        self.row("page scores", 1, Some(n), None, |r| {
            gpu::score(&mut r.cuda, settings, &pool, ScoreOf::Pages, [1, n])
        });
        for seqs in [1, 8] {
            self.row("gate scores", seqs, Some(n), None, |r| {
                gpu::gate_score(&mut r.cuda, settings, &pool, [seqs, n])
            });
            for (fills, note) in [(true, "every page fills"), (false, "no page fills")] {
                self.row("key gates", seqs, None, Some(note.into()), |r| {
                    gpu::key_gates(&mut r.cuda, settings, &pool, seqs, fills)
                });
            }
        }
        for seqs in [1, 8] {
            self.row("append", seqs, Some(n), None, |r| gpu::append(&mut r.cuda, pool.rotary(), [seqs, n]));
        }
        let prefills = if quick { [[256, 256], [256, 4096]] } else { [[8192, 8192], [2048, 65536]] };
        for [rows, len] in prefills {
            let note = (rows != len).then(|| format!("the last {rows} rows"));
            self.row("prefill attention", 1, Some(len), note, |r| {
                gpu::prefill(&mut r.cuda, &pool, [rows, len])
            });
        }
    }

    fn selection_rows(&mut self) {
        let n = if self.quick { 4096 } else { 32768 };
        let rows: &[(&str, Rule, usize, usize)] = &[
            ("select", Rule::Union, 1, n),
            ("select", Rule::Union, 1, 4 * n),
            ("select", Rule::Union, 8, n),
            ("select by mass", Rule::Mass, 1, n),
            ("select per head", Rule::PerQueryHead, 1, n),
            ("select pages", Rule::Pages, 1, n),
        ];
        for &(op, rule, seqs, n) in rows {
            self.row(op, seqs, Some(n), None, |r| gpu::select(&mut r.cuda, rule, [seqs, 2048, n]));
        }
        let poolings = [
            ("pool groups", Pooling::Groups),
            ("pool peak", Pooling::Peak),
            ("pool pages", Pooling::PagePeak),
        ];
        for (op, by) in poolings {
            self.row(op, 1, Some(n), None, |r| gpu::pool(&mut r.cuda, by, [1, n]));
        }
    }

    /// Rows over the weights of Qwen3-8B.
    fn model_rows(&mut self) {
        let layers = if self.quick { 2 } else { 36 };
        let Some(model) = self.made("weights", |r| Model::new(&mut r.cuda, layers)) else { return };
        for rows in [1, 2, 4, 8, 16] {
            let note = self.quick.then(|| format!("{layers} layers"));
            self.row("weights", rows, None, note, |r| model.step(&mut r.cuda, rows));
        }
        let products = [
            ("norm + qkv", Product::Qkv),
            ("o + add", Product::O),
            ("norm + gate, up + swiglu", Product::GateUp),
            ("down + add", Product::Down),
            ("norm + logits", Product::Head),
        ];
        for (op, product) in products {
            for rows in [1, 8] {
                self.row(op, rows, None, None, |r| model.product(&mut r.cuda, product, rows));
            }
        }
        for rows in [1, 8] {
            self.row("embed", rows, None, None, |r| gpu::embed(&mut r.cuda, &model, rows));
        }
    }

    fn sample_rows(&mut self) {
        let top = SampleParams { temperature: 0.6, top_k: 20, top_p: 0.95, ..SampleParams::default() };
        for (op, params) in [("sample greedy", SampleParams::default()), ("sample top-k, top-p", top)] {
            for rows in [1, 8] {
                match gpu::sample(&mut self.cuda, rows, params, self.settings.replays) {
                    Ok((us, bytes)) => {
                        let row = Row::graph(op, rows, None, us, bytes);
                        self.report.rows.push(Row { timing: Timing::Host, ..row });
                    }
                    Err(error) => self.failed(name(op, rows, None), &error),
                }
            }
        }
    }

    fn row(
        &mut self,
        op: &str,
        batch: usize,
        n: Option<usize>,
        note: Option<String>,
        prepare: impl FnOnce(&mut Self) -> Result<Prepared>,
    ) {
        let replays = self.settings.replays;
        let timed = prepare(self).and_then(|work| Ok((work.median_us(&mut self.cuda, replays)?, work)));
        match timed {
            Ok((us, work)) => {
                eprintln!("{}: {us:.1} us", name(op, batch, n));
                let row = Row::graph(op, batch, n, us, work.bytes);
                self.report.rows.push(Row { note, flops: work.flops, ..row });
            }
            Err(error) => self.failed(name(op, batch, n), &error),
        }
    }

    /// What several rows share; says how long it took.
    fn made<T>(&mut self, what: &str, make: impl FnOnce(&mut Self) -> Result<Rc<T>>) -> Option<Rc<T>> {
        let begun = Instant::now();
        match make(self) {
            Ok(made) => {
                eprintln!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
                Some(made)
            }
            Err(error) => {
                self.failed(format!("{what} (all rows that need it)"), &error);
                None
            }
        }
    }

    fn failed(&mut self, row: String, error: &lim_kernels::Error) {
        eprintln!("FAILED {row}: {error}");
        self.report.failed.push(Failure { row, error: error.to_string() });
    }
}

fn name(op: &str, batch: usize, n: Option<usize>) -> String {
    let n = n.map_or(String::new(), |n| format!(" n={n}"));
    format!("{op} B={batch}{n}")
}

/// What `nvidia-smi` says, where there is one.
fn driver() -> Option<String> {
    let query = ["--query-gpu=driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}
