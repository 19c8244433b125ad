//! `bench`: prefill and decode speed, policies in turn, against the read bandwidth of the same run.

mod measure;
mod plan;
mod plot;
mod table;

use lim_kernels::{Capacity, PageExtras};
use lim_model::{Engine, EngineOptions, Usage};
use lim_select::{Attention, Policy};

use crate::args::{BenchArgs, TableFormat};
use crate::bandwidth::Yardstick;
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory::{self, Room};
use crate::open::{self, Opened};
use crate::{output, policy};
use plan::Test;
use table::{Report, Row};

pub(super) fn run(args: BenchArgs) -> Result<()> {
    let console = Console::new(args.quiet);
    let interrupt = Interrupt::install()?;
    let opened = match &args.random_weights {
        Some(shape) => open::random(shape, args.model.dtype)?,
        None => open::open(&args.model, console)?,
    };
    let attentions = plan::attentions(&args, &opened)?;
    // Random weights were not trained for any length: only their shape is measured.
    let context = args.random_weights.as_ref().map_or(opened.config.max_positions, |_| usize::MAX);
    let tests = plan::tests(&args, context)?;
    if let Some(path) = &args.plot {
        // A path that cannot be written is known before the measuring, not after it.
        std::fs::File::create(path).map_err(Error::io(path))?;
    }
    console.item("model", opened.describe());
    for attention in &attentions {
        console.item("attention", policy::describe(attention));
    }
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Lower --batch, --depth or --n-gen");
    let job = Bench { args: &args, console, interrupt, opened, attentions, tests };
    let report = memory::advise(device.run(console, job), &advice)?;
    if let Some(path) = &args.plot {
        let plot = plot::svg(&report).ok_or_else(|| Error::Failed("no decode test to plot".into()))?;
        std::fs::write(path, plot).map_err(Error::io(path))?;
        console.item("plot", path.display());
    }
    console.result(match args.output {
        TableFormat::Md => report.markdown(),
        TableFormat::Csv => report.csv(),
        TableFormat::Json => output::json(&report)?,
    })
}

struct Bench<'a> {
    args: &'a BenchArgs,
    console: Console,
    interrupt: Interrupt,
    opened: Opened,
    attentions: Vec<Attention>,
    tests: Vec<Test>,
}

impl Job for Bench<'_> {
    type Out = Report;

    fn run<B: Machine>(self, mut backend: B) -> Result<Report> {
        let Bench { args, console, opened, attentions, tests, .. } = &self;
        let (device, config) = (backend.device(), &opened.config);
        let tokens = tests.iter().map(|t| t.len()).max().unwrap_or(1);
        let mut options = self.options::<B>(tokens);
        if let Some(free) = backend.free_memory()? {
            let room = Room { device: &device, free };
            options = room.fit(*console, &opened.demand(attentions), options, options.pages)?;
        }
        let model = opened.load(&mut backend, tokens, attentions, *console)?;
        let mut engine = Engine::new(backend, model, attentions[0].clone(), options)?;

        let mut yardstick = Yardstick::new(engine.backend_mut())?;
        let mut measured = Vec::new();
        let bar = console.bar("measuring", self.runs() as u64);
        for &test in tests {
            // A prefill is dense whatever the policy: one row says it.
            let policies =
                if matches!(test, Test::Prefill { .. }) { &attentions[..1] } else { &attentions[..] };
            let mut runs: Vec<Vec<Usage>> = vec![Vec::new(); policies.len()];
            for repeat in 0..=args.repeats.get() {
                yardstick.read(engine.backend_mut())?;
                for (attention, runs) in policies.iter().zip(&mut runs) {
                    let test = if repeat == 0 { test.shortened() } else { test };
                    let usage = measure::once(&mut engine, test, attention, config.vocab, &self.interrupt)?;
                    if repeat > 0 {
                        runs.push(usage);
                    }
                    bar.inc(1);
                }
            }
            measured.extend(policies.iter().zip(runs).map(|(a, runs)| (test, a.policy(), runs)));
        }
        bar.finish_and_clear();
        let (read, weights) = (yardstick.gb_per_s(), opened.step_bytes());
        console.item("read", format_args!("{read:.1} GB/s, {}", B::READING));
        let row =
            |(test, policy, runs): &(Test, Policy, Vec<Usage>)| Row::new(*test, *policy, runs, weights, read);
        Ok(Report {
            model: opened.name.clone(),
            device,
            dtype: opened.dtype.name(),
            read_gb_per_s: read,
            attention: attentions.iter().map(Attention::report).collect(),
            tests: measured.iter().map(row).collect(),
        })
    }
}

impl Bench<'_> {
    /// Room for the largest test.
    fn options<B: Machine>(&self, tokens: usize) -> EngineOptions {
        let Bench { args, opened, attentions, tests, .. } = self;
        let page_size = args.model.page_size;
        let seqs = tests.iter().map(|t| t.batch()).max().unwrap_or(1);
        EngineOptions {
            capacity: Capacity { rows: seqs.max(B::PREFILL_ROWS), seqs, tokens },
            pages: tests.iter().map(|t| t.batch() * page_size.pages_for(t.len())).max().unwrap_or(1),
            page_size,
            kv_dtype: opened.dtype,
            prompts: 0,
            extras: attentions.iter().fold(PageExtras::default(), |all, a| all.and(a.policy().extras())),
        }
    }

    /// Runs in all, the uncounted ones included.
    fn runs(&self) -> usize {
        let policies =
            |test: &Test| if matches!(test, Test::Prefill { .. }) { 1 } else { self.attentions.len() };
        self.tests.iter().map(policies).sum::<usize>() * (self.args.repeats.get() + 1)
    }
}
