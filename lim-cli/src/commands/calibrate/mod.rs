//! `calibrate`: which layers should select, measured on a model's own answers under full attention.

mod answers;
mod choose;
mod model_file;
mod plots;
mod report;
mod sequences;
mod words;

use std::path::Path;

use lim_kernels::{Quota, SampleParams};
use lim_model::{Divergence, Engine, EngineOptions, Recall, Request, sample_seed};
use lim_select::{Attention, Layers, Policy, Settings};

use super::generate::options;
use crate::args::{CalibrateArgs, OutputFormat, StopArgs};
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory::{self, Batch};
use crate::open::{self, Opened, Text};
use crate::output::{self, Sampling};
use crate::{policy, problems, prompt, report as lines};
use choose::{Diverges, Goal};
use report::{About, Budget, Report};
use sequences::Sequences;

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

    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    }

    console.item("model", opened.describe());
    for attention in &settings {
        console.item("attention", policy::describe(attention));
    }
    console.item("sampling", lines::sampling(&sampling));
    console.item("prompts", format_args!("{}, {form}", set.source));
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Lower --batch or --max-new-tokens");
    let job = Calibrate {
        args: &args,
        console,
        interrupt,
        opened: &opened,
        text,
        flags: &flags,
        settings,
        goal,
        source: set.source,
        prompts,
        sampling,
    };
    let report = memory::advise(device.run(console, job), &advice)?;

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
    flags: &'a Settings,
    /// One a budget.
    settings: Vec<Attention>,
    goal: Goal,
    /// Of the prompts, in words.
    source: String,
    /// Ids of each prompt.
    prompts: Vec<Vec<u32>>,
    sampling: Sampling,
}

impl Job for Calibrate<'_> {
    type Out = Report;

    fn run<B: Machine>(self, mut backend: B) -> Result<Report> {
        let Calibrate { args, console, interrupt, opened, .. } = &self;
        let (sizes, device) = (self.sizes(&backend)?, backend.device());
        let full = Settings { policy: Some(Policy::Full), ..Settings::default() };
        let full = opened.attention(&full, sizes.page_size)?;
        let model = opened.load(&mut backend, sizes.capacity.tokens, &self.settings, *console)?;
        let mut engine = Engine::new(backend, model, full, sizes)?;

        let requests = self.requests();
        let bar = console.bar("answers", requests.len() as u64);
        let answers =
            answers::answers(&mut engine, &requests, interrupt, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        engine.forget_prompts()?;
        let prompts = requests.iter().map(|request| request.prompt.as_slice());
        let sequences = Sequences::new(prompts, answers, args.steps.get());

        let quotas: Vec<Quota> = self.settings.iter().filter_map(Attention::quota).collect();
        sequences.check(&quotas)?;
        let least = quotas.iter().map(|quota| quota.budget()).min().unwrap_or(0);
        let mut recall = Recall::new(opened.config.layers, opened.config.heads, &quotas);
        sequences.measure("attention", least, *console, |options, progress| {
            engine.recall(options, &mut recall, interrupt.flag(), progress)
        })?;

        let mut budgets = Vec::new();
        for (index, setting) in self.settings.iter().enumerate() {
            let default = setting.plan().layers();
            let default = default.ok_or_else(|| Error::usage("the model's own setting selects nowhere"))?;
            let budget = quotas[index].budget();
            let mass = recall.kept_mass(index);
            let found = self.goal.search(&mass, &default, &self.goal.by_count(&mass)?, |list| {
                let settings = self.at(list, budget)?;
                let mut divergence = Divergence::new(list.len());
                sequences.measure("layers", budget, *console, |options, progress| {
                    engine.divergence(options, &settings, &mut divergence, interrupt.flag(), progress)
                })?;
                let of = |i| Diverges { mean: divergence.mean(i), changed: divergence.changed(i) };
                Ok((0..list.len()).map(of).collect())
            })?;
            budgets.push(Budget::new(index, self.goal, default, &recall, found)?);
        }
        let about = About {
            model: opened.name.clone(),
            device,
            dtype: opened.dtype.name(),
            prompts: self.source.clone(),
            sampling: self.sampling.clone(),
            sequences: sequences.len(),
            generated_tokens: sequences.generated(),
        };
        Report::new(about, self.goal, budgets)
    }
}

impl Calibrate<'_> {
    /// Every sample of every prompt, drawn as `eval` would.
    fn requests(&self) -> Vec<Request> {
        let Calibrate { text, prompts, sampling, .. } = self;
        let params = options::params(sampling);
        let sample = |index: usize, sample: usize| Request {
            params: SampleParams { seed: sample_seed(sample_seed(sampling.seed, index), sample), ..params },
            stop_ids: text.end_ids.clone(),
            ..Request::new(prompts[index].clone(), sampling.max_new_tokens)
        };
        (0..prompts.len())
            .flat_map(|index| (0..sampling.samples).map(move |i| (index, i)))
            .map(|(p, i)| sample(p, i))
            .collect()
    }

    /// LessIsMore with a budget at each choice of layers.
    fn at(&self, list: &[Layers], budget: usize) -> Result<Vec<Attention>> {
        let at = |layers: &Layers| {
            let layers = Some(layers.clone());
            let flags = Settings { token_budget: Some(budget), layers, ..self.flags.clone() };
            self.opened.attention(&flags, self.args.model.page_size)
        };
        list.iter().map(at).collect()
    }

    /// Room for a batch of the longest answers; pages are cut to what fits into memory.
    fn sizes<B: Machine>(&self, backend: &B) -> Result<EngineOptions> {
        let Calibrate { args, console, opened, settings, prompts, sampling, .. } = self;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let batch = Batch {
            attentions: settings,
            seqs: args.batch.get().min(prompts.len() * sampling.samples),
            prompt: longest,
            answer: sampling.max_new_tokens,
            page_size: args.model.page_size,
        };
        batch.sizes(*console, backend, opened)
    }
}
