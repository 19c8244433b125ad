//! `calibrate`: which layers should select, measured on a model's own answers under full attention.

mod answers;
mod choose;
mod model_file;
mod plots;
mod report;
mod words;

use std::path::Path;

use lim_kernels::{Capacity, Quota};
use lim_model::{Continuation, Engine, EngineOptions, Recall, RecallOptions, Request, sample_seed};
use lim_select::{Attention, Policy, Settings};

use super::generate::options;
use crate::args::{CalibrateArgs, OutputFormat, StopArgs};
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory;
use crate::open::{self, Opened, Text};
use crate::output::{self, Sampling};
use crate::{policy, problems, prompt, report as lines};
use choose::Goal;
use report::{About, Report};

/// Prompts whose pages are kept, for their other samples.
const PROMPTS: usize = 64;

pub(super) fn run(args: CalibrateArgs) -> Result<()> {
    let console = Console::new(args.report.quiet);
    let interrupt = Interrupt::install()?;
    let opened = open::open(&args.model, console)?;
    if args.write && opened.path().is_none() {
        return Err(Error::usage(
            "--write: the embedded model lies in the executable; --out DIR writes its lim.json elsewhere",
        ));
    }
    let flags = Settings {
        policy: Some(Policy::Lim),
        recent_ratio: args.recent_ratio,
        sinks: args.sinks,
        ..Settings::default()
    };
    let settings = settings(&args, &opened, &flags)?;
    let goal = Goal::new(&args.goal, settings[0].plan())?;
    let text = opened.text()?;
    let set = problems::prompts(&args.source, opened.is_embedded(), args.sampling.seed.unwrap_or(0))?;
    let (mut prompts, mut form) = (Vec::new(), "");
    for text_of_prompt in &set.prompts {
        let (ids, how) = prompt::encode(text_of_prompt, &args.chat, &opened, &text)?;
        prompts.push(ids);
        form = how.name();
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let stop = StopArgs::at_most(args.max_new_tokens);
    let sampling = options::sampling(&args.sampling, &stop, &opened, &text.generation, longest)?;

    console.item("model", opened.describe());
    for attention in &settings {
        console.item("attention", policy::describe(attention));
    }
    console.item("sampling", lines::sampling(&sampling));
    console.item("prompts", format_args!("{}, {form}", set.source));
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Lower --batch or --max-new-tokens");
    let job =
        Calibrate { args: &args, console, interrupt, opened: &opened, text, settings, prompts, sampling };
    let measured = memory::advise(device.run(console, job), &advice)?;
    let Measured { device, settings, sampling, recall, sequences, generated, every } = measured;
    let about = About {
        model: opened.name.clone(),
        device,
        dtype: opened.dtype.name(),
        prompts: set.source,
        sampling,
        sequences,
        generated_tokens: generated,
        every,
    };
    let report = Report::new(about, goal, &settings, &recall)?;

    let chosen = Settings {
        token_budget: Some(report.budgets[0].token_budget),
        layers: Some(report.layers.clone()),
        ..flags
    };
    let file = model_file::merged(opened.model_file()?.as_deref(), &chosen)?;
    if let Some(dir) = &args.out {
        write_report(dir, &report)?;
        file.write(dir, console)?;
        console.item("report", dir.join("report.md").display());
    }
    if let Some(dir) = opened.path().filter(|_| args.write) {
        file.write(dir, console)?;
    }
    console.result(match args.report.output {
        OutputFormat::Text => report.text(),
        OutputFormat::Json => output::json(&report)?,
    })?;
    if args.out.is_none() && !args.write {
        console.note("note: nothing was written; --out DIR writes lim.json, report and plots, --write the model's lim.json");
    }
    Ok(())
}

/// LessIsMore at each budget, with the layers that the model selects at now. Budgets that are named twice count once.
fn settings(args: &CalibrateArgs, opened: &Opened, flags: &Settings) -> Result<Vec<Attention>> {
    let mut budgets: Vec<Option<usize>> = Vec::new();
    for &budget in &args.token_budget {
        if !budgets.contains(&Some(budget)) {
            budgets.push(Some(budget));
        }
    }
    if budgets.is_empty() {
        budgets.push(None);
    }
    let at =
        |token_budget| opened.attention(&Settings { token_budget, ..flags.clone() }, args.model.page_size);
    budgets.into_iter().map(at).collect()
}

fn write_report(dir: &Path, report: &Report) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::io(path))
    };
    let plots = [("heat.svg", plots::heat(report)), ("layers.svg", plots::layers(report))];
    for (name, plot) in &plots {
        write(name, plot)?;
    }
    write("report.md", &report.markdown(&plots.map(|(name, _)| name)))?;
    write("calibration.json", &output::json(report)?)
}

struct Calibrate<'a> {
    args: &'a CalibrateArgs,
    console: Console,
    interrupt: Interrupt,
    opened: &'a Opened,
    text: Text,
    /// One a budget.
    settings: Vec<Attention>,
    /// Ids of each prompt.
    prompts: Vec<Vec<u32>>,
    sampling: Sampling,
}

/// What a run has found.
struct Measured {
    device: String,
    settings: Vec<Attention>,
    sampling: Sampling,
    recall: Recall,
    sequences: usize,
    generated: usize,
    every: usize,
}

/// A prompt and its answer.
struct Sequence<'a> {
    prompt: &'a [u32],
    answer: Vec<u32>,
}

impl Sequence<'_> {
    /// The answer but for its last token, which no step feeds.
    fn fed(&self) -> &[u32] {
        &self.answer[..self.answer.len().saturating_sub(1)]
    }

    /// Decode steps with more than `least` cached tokens.
    fn steps(&self, least: usize) -> usize {
        (self.prompt.len() + self.fed().len()).saturating_sub(self.prompt.len().max(least))
    }
}

impl Job for Calibrate<'_> {
    type Out = Measured;

    fn run<B: Machine>(self, mut backend: B) -> Result<Measured> {
        let sizes = self.sizes(&backend)?;
        let Calibrate { args, console, interrupt, opened, text, settings, prompts, sampling } = self;
        let device = backend.device();
        let full = Settings { policy: Some(Policy::Full), ..Settings::default() };
        let full = opened.attention(&full, sizes.page_size)?;
        let model = opened.load(&mut backend, sizes.capacity.tokens, console)?;
        let mut engine = Engine::new(backend, model, full, sizes)?;

        let params = options::params(&sampling);
        let request = |index: usize, sample: usize| {
            // The draws of `eval` for the same prompts.
            let seed = sample_seed(sample_seed(sampling.seed, index), sample);
            Request {
                params: lim_kernels::SampleParams { seed, ..params },
                stop_ids: text.end_ids.clone(),
                ..Request::new(prompts[index].clone(), sampling.max_new_tokens)
            }
        };
        let all =
            (0..prompts.len()).flat_map(|index| (0..sampling.samples).map(move |sample| (index, sample)));
        let all: Vec<(usize, usize)> = all.collect();
        let requests = all.iter().map(|&(index, sample)| request(index, sample));
        let bar = console.bar("answers", all.len() as u64);
        let answers =
            answers::answers(&mut engine, requests, &interrupt, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        engine.forget_prompts()?;
        let prompt = all.iter().map(|&(index, _)| prompts[index].as_slice());
        let sequences: Vec<Sequence<'_>> =
            prompt.zip(answers).map(|(prompt, answer)| Sequence { prompt, answer }).collect();

        let quotas: Vec<Quota> = settings.iter().filter_map(Attention::quota).collect();
        check_lengths(&sequences, &quotas)?;
        let least = quotas.iter().map(|quota| quota.budget()).min().unwrap_or(0);
        let steps: usize = sequences.iter().map(|sequence| sequence.steps(least)).sum();
        let every = steps.div_ceil(args.steps.get()).max(1);
        let mut recall = Recall::new(opened.config.layers, opened.config.heads, &quotas);
        let bar = console.bar("measuring", steps as u64);
        let mut before = 0;
        for sequence in &sequences {
            let (prompt, continuation) = (sequence.prompt, Continuation::Given(sequence.fed()));
            let start = prompt.len().max(least);
            engine.recall(
                RecallOptions { prompt, continuation, every },
                &mut recall,
                interrupt.flag(),
                |cached| bar.set_position((before + cached.saturating_sub(start)) as u64),
            )?;
            before += sequence.steps(least);
        }
        bar.finish_and_clear();
        let generated = sequences.iter().map(|sequence| sequence.answer.len()).sum();
        Ok(Measured { device, settings, sampling, recall, sequences: sequences.len(), generated, every })
    }
}

impl Calibrate<'_> {
    /// Room for a batch of the longest answers; pages are cut to what fits into memory.
    fn sizes<B: Machine>(&self, backend: &B) -> Result<EngineOptions> {
        let Calibrate { args, console, opened, settings, prompts, sampling, .. } = self;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let tokens = longest + sampling.max_new_tokens - 1;
        let seqs = args.batch.get().min(prompts.len() * sampling.samples);
        let page_size = args.model.page_size;
        let pages = page_size.pages_for(tokens);
        let sizes = EngineOptions {
            capacity: Capacity { rows: seqs.max(B::PREFILL_ROWS), seqs, tokens },
            pages: seqs * pages,
            page_size,
            kv_dtype: opened.dtype,
            prompts: PROMPTS,
            page_bounds: false,
        };
        memory::fit(*console, backend, &opened.demand(settings), sizes, pages)
    }
}

/// Every budget needs a step with more cached tokens than it.
fn check_lengths(sequences: &[Sequence<'_>], quotas: &[Quota]) -> Result<()> {
    let longest = sequences.iter().map(|s| s.prompt.len() + s.fed().len()).max().unwrap_or(0);
    let budgets = || quotas.iter().map(|quota| quota.budget());
    match budgets().find(|&budget| sequences.iter().all(|sequence| sequence.steps(budget) == 0)) {
        Some(budget) => Err(Error::Failed(format!(
            "--token-budget {budget}: no decode step had more cached tokens, so nothing is chosen there; the longest \
             sequence has {longest}. Lower the budget, raise --max-new-tokens or take longer problems"
        ))),
        None => Ok(()),
    }
}
