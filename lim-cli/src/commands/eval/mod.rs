//! `eval`: answers problems under policies and budgets, grades the answers, and sums up.

mod config;
mod reads;
mod record;
mod report;
mod settings;
mod solve;
mod stats;
mod store;

use lim_model::{Engine, EngineOptions, sample_seed};

use super::generate::options;
use crate::args::{EvalArgs, EvalFormat};
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory::{self, Batch};
use crate::open::{self, Opened, Text};
use crate::output::{self, Sampling};
use crate::problems::{self, Problem, ProblemSet};
use crate::{policy, prompt, report as words};
use config::Config;
use record::{Outcome, Record};
use report::{Described, Report};
use settings::Setting;
use solve::{Recipe, Task};
use store::Store;

const PLOTS: [&str; 2] = ["accuracy.svg", "length.svg"];

pub(super) fn run(args: EvalArgs) -> Result<()> {
    let console = Console::new(args.quiet);
    let interrupt = Interrupt::install()?;
    let opened = open::open(&args.model, console)?;
    let settings = settings::settings(&args, &opened)?;
    let text = opened.text()?;
    let set = problems::load(&args.problems, opened.is_embedded(), args.sampling.seed.unwrap_or(0))?;
    let (mut prompts, mut form) = (Vec::new(), "");
    for problem in &set.problems {
        let (ids, how) = prompt::encode(&problem.prompt, &args.chat, &opened, &text)?;
        prompts.push(ids);
        form = how.name();
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let sampling = options::sampling(&args.sampling, &args.stop, &opened, &text.generation, longest)?;
    let thinking_budget = options::thinking_budget(&args.stop, &text)?;

    console.item("model", opened.describe());
    for setting in &settings {
        console.item("attention", policy::describe(&setting.attention));
    }
    console.item("sampling", words::sampling(&sampling));
    console.item("problems", format_args!("{}, {form}", set.source));
    if sampling.samples > 1 && sampling.temperature == 0.0 {
        console.note("note: samples are all the same at temperature 0 (greedy); set --temperature");
    }
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Lower --batch or --max-new-tokens");
    let (output, out) = (args.output, args.out.clone());
    let job = Eval {
        run: Run { settings, set, prompts, sampling },
        args,
        console,
        interrupt,
        opened,
        text,
        form,
        thinking_budget,
    };
    let report = memory::advise(device.run(console, job), &advice)?;
    if let Some(dir) = out {
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(Error::io(path))
        };
        let plots = report.plots();
        for (name, plot) in PLOTS.iter().zip(plots.iter().flatten()) {
            write(name, plot)?;
        }
        write("report.md", &report.markdown(if plots.is_some() { &PLOTS } else { &[] }))?;
        write("report.json", &output::json(&report)?)?;
        console.item("report", dir.join("report.md").display());
    }
    console.result(match output {
        EvalFormat::Md => report.table(),
        EvalFormat::Json => output::json(&report)?,
    })
}

/// What is to be answered: every setting, every problem, every sample, in this order.
struct Run {
    settings: Vec<Setting>,
    set: ProblemSet,
    /// Ids of each problem.
    prompts: Vec<Vec<u32>>,
    sampling: Sampling,
}

struct Eval {
    run: Run,
    args: EvalArgs,
    console: Console,
    interrupt: Interrupt,
    opened: Opened,
    text: Text,
    form: &'static str,
    thinking_budget: Option<usize>,
}

impl Job for Eval {
    type Out = Report;

    fn run<B: Machine>(self, mut backend: B) -> Result<Report> {
        let device = backend.device();
        let config = self.config(&device);
        let Eval { run, args, console, interrupt, opened, .. } = &self;
        let out = args.out.as_deref();
        let mut store = Store::open(out, &config, |at, record| run.is_at(at, record))?;
        if store.len() > 0 {
            console.item("resuming", format_args!("{} of {} answers are there", store.len(), run.len()));
        }
        if store.len() < run.len() {
            let recipe = self.recipe()?;
            let sizes = self.sizes(&backend)?;
            let model = opened.load(&mut backend, sizes.capacity.tokens, &run.attentions(), *console)?;
            let mut engine = Engine::new(backend, model, run.settings[0].attention.clone(), sizes)?;
            let bar = console.bar("answers", run.len() as u64);
            for (index, setting) in run.settings.iter().enumerate() {
                let missing: Vec<Task<'_>> =
                    run.tasks(index).filter(|task| !store.has(task.position)).collect();
                let solved = solve::solve(
                    &mut engine,
                    &recipe,
                    setting,
                    missing.into_iter(),
                    interrupt,
                    |position, outcome| {
                        store.put(position, outcome)?;
                        bar.set_position(store.len() as u64);
                        Ok(())
                    },
                );
                if let (Err(Error::Interrupted), Some(dir)) = (&solved, out) {
                    bar.finish_and_clear();
                    console.note(format_args!(
                        "{} of {} answers are in {}; the same command goes on from there",
                        store.len(),
                        run.len(),
                        dir.display()
                    ));
                }
                solved?;
            }
            bar.finish_and_clear();
            let timing = engine.usage()?.timing();
            console.item("decode", format_args!("{:.1} tokens/s", timing.decode_tokens_per_s));
        }
        Ok(run.report(opened, device, &store.tidy()?))
    }
}

impl Eval {
    fn config(&self, device: &str) -> serde_json::Value {
        let Eval { run, args, opened, form, thinking_budget, .. } = self;
        let ids =
            run.prompts.iter().map(|ids| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        let references = run.set.problems.iter().map(|problem| problem.reference.show().into_bytes());
        let parts: Vec<Vec<u8>> = ids.chain(references).collect();
        let config = Config {
            opened,
            device,
            page_size: args.model.page_size,
            sampling: &run.sampling,
            settings: &run.settings,
            source: &run.set.source,
            problems: run.set.problems.len(),
            checksum: config::checksum(parts.iter().map(Vec::as_slice)),
            form,
            thinking_budget: *thinking_budget,
            text: !args.no_text,
        };
        config.json()
    }

    fn recipe(&self) -> Result<Recipe<'_>> {
        let Eval { run: Run { sampling, .. }, args, text, thinking_budget, .. } = self;
        let thinking = thinking_budget.map(|tokens| lim_model::thinking_budget(&text.tokenizer, tokens));
        Ok(Recipe {
            tokenizer: &text.tokenizer,
            eos: if sampling.ignore_eos { Vec::new() } else { text.end_ids.clone() },
            stop: sampling.stop.clone(),
            params: options::params(sampling),
            max_new_tokens: sampling.max_new_tokens,
            thinking: thinking.transpose()?,
            batch: args.batch.get(),
            text: !args.no_text,
        })
    }

    /// Room for a batch of the longest answers; pages are cut to what fits into memory.
    fn sizes<B: Machine>(&self, backend: &B) -> Result<EngineOptions> {
        let Eval { run, args, console, opened, .. } = self;
        let longest = run.prompts.iter().map(Vec::len).max().unwrap_or(1);
        let batch = Batch {
            attentions: &run.attentions(),
            seqs: args.batch.get().min(run.per_setting()),
            prompt: longest,
            answer: run.sampling.max_new_tokens,
            page_size: args.model.page_size,
        };
        batch.sizes(*console, backend, opened)
    }
}

impl Run {
    fn attentions(&self) -> Vec<lim_select::Attention> {
        self.settings.iter().map(|setting| setting.attention.clone()).collect()
    }

    /// Answers in all.
    fn len(&self) -> usize {
        self.settings.len() * self.per_setting()
    }

    fn per_setting(&self) -> usize {
        self.set.problems.len() * self.sampling.samples
    }

    /// The answers of a setting, by its index, in order.
    fn tasks(&self, setting: usize) -> impl Iterator<Item = Task<'_>> {
        let problems = self.set.problems.iter().zip(&self.prompts).enumerate();
        problems.flat_map(move |(index, (problem, prompt))| {
            // Draws that have nothing to do with those of other problems.
            let seed = sample_seed(self.sampling.seed, index);
            let first = setting * self.per_setting() + index * self.sampling.samples;
            let task = move |sample| Task {
                position: first + sample,
                problem,
                prompt,
                sample,
                seed: sample_seed(seed, sample),
            };
            (0..self.sampling.samples).map(task)
        })
    }

    /// Whether `record` is the answer at a position in the order of all.
    fn is_at(&self, position: usize, record: &Record) -> bool {
        let within = position % self.per_setting();
        let (problem, sample) = (within / self.sampling.samples, within % self.sampling.samples);
        self.settings
            .get(position / self.per_setting())
            .is_some_and(|setting| setting.label == record.setting)
            && self.set.problems[problem].id == record.problem
            && sample == record.sample
    }

    fn report(&self, opened: &Opened, device: String, outcomes: &[Outcome]) -> Report {
        let problems = &self.set.problems;
        let mut groups: Vec<Option<&str>> = Vec::new();
        for problem in problems {
            if !groups.contains(&problem.group.as_deref()) {
                groups.push(problem.group.as_deref());
            }
        }
        // A single task is all problems.
        let tasks = if groups.len() > 1 { groups.iter().flatten().copied().collect() } else { Vec::new() };
        let same = |id: &str, a: &str, b: &str| {
            problems
                .iter()
                .find(|problem: &&Problem| problem.id == id)
                .is_some_and(|p| p.reference.same(a, b))
        };
        let mut rows = Vec::new();
        for (setting, outcomes) in self.settings.iter().zip(outcomes.chunks(self.per_setting())) {
            for group in std::iter::once(None).chain(tasks.iter().copied().map(Some)) {
                let is_in = |outcome: &&Outcome| group.is_none() || outcome.record.group.as_deref() == group;
                let outcomes: Vec<&Outcome> = outcomes.iter().filter(is_in).collect();
                rows.push(stats::row(&setting.label, group, &outcomes, same));
            }
        }
        let described = |setting: &Setting| Described {
            setting: setting.label.clone(),
            attention: setting.attention.report(),
            series: setting.series.clone(),
            words: policy::describe(&setting.attention),
        };
        Report {
            model: opened.name.clone(),
            device,
            dtype: opened.dtype.name(),
            problems: self.set.source.clone(),
            sampling: self.sampling.clone(),
            settings: self.settings.iter().map(described).collect(),
            rows,
        }
    }
}
