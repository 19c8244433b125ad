//! `generate`: continues a prompt, streaming, and reports what it took.

pub(super) mod options;
mod show;

use std::sync::atomic::Ordering;
use std::time::Instant;

use indicatif::ProgressBar;
use lim_kernels::{Capacity, PageExtras};
use lim_model::{Engine, EngineOptions, FinishReason, GenerateOptions, Progress};

use crate::args::{GenerateArgs, OutputFormat};
use crate::console::Console;
use crate::demo::Problem;
use crate::device::{Device, Job};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory::{self, Room};
use crate::open::{self, Opened, Text};
use crate::output::{self, Generated, Sample, Sampling, Timing};
use crate::prompt::{self, Prompt};
use crate::{demo, policy, report};
use show::Show;

pub(super) fn run(args: GenerateArgs) -> Result<()> {
    let console = Console::new(args.report.quiet);
    let interrupt = Interrupt::install()?;
    let opened = open::open(&args.model, console)?;
    let flags = policy::from_flags(args.attention.attention, &args.attention.budget)?;
    let attention = opened.attention(&flags, args.model.page_size)?;
    let text = opened.text()?;
    let prompt = prompt::for_generate(&args.prompt, &args.chat, args.sampling.seed, &opened, &text)?;
    let sampling =
        options::sampling(&args.sampling, &args.stop, &opened, &text.generation, prompt.ids.len())?;
    let options = options::options(&args, &text, &prompt, &sampling)?;

    console.item("model", opened.describe());
    console.item("attention", policy::describe(&attention));
    console.item("sampling", report::sampling(&sampling));
    console.item("prompt", prompt.describe());
    if let Some(problem) = &prompt.problem {
        console.item("problem", problem);
    }
    if let Some(flags) = options::without_effect(&args, &sampling) {
        console.note(format_args!("note: {flags}"));
    }
    if opened.is_embedded() && prompt.problem.is_none() {
        console.note(format_args!("note: {}", demo::ONLY));
    }
    if !text.has_words {
        console
            .note("note: the model has no tokenizer.json: it generates token ids (--output json), no text");
    }
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Shorten the context (--max-new-tokens), lower --samples");
    let job =
        Generate { args: &args, console, interrupt, opened, text, attention, prompt, sampling, options };
    memory::advise(device.run(console, job), &advice)
}

struct Generate<'a> {
    args: &'a GenerateArgs,
    console: Console,
    interrupt: Interrupt,
    opened: Opened,
    text: Text,
    attention: lim_select::Attention,
    prompt: Prompt,
    sampling: Sampling,
    options: GenerateOptions,
}

impl Job for Generate<'_> {
    type Out = ();

    fn run<B: Machine>(self, mut backend: B) -> Result<()> {
        let sizes = self.sizes(&backend)?;
        let Generate { args, console, interrupt, opened, text, attention, prompt, mut sampling, mut options } =
            self;
        let (device, samples, tokens) = (backend.device(), options.samples, sizes.capacity.tokens);
        options.max_new_tokens = tokens + 1 - options.prompt.len();
        sampling.max_new_tokens = options.max_new_tokens;
        let begun = Instant::now();
        let model = opened.load(&mut backend, tokens, std::slice::from_ref(&attention), console)?;
        let load_s = begun.elapsed().as_secs_f64();
        let mut engine = Engine::new(backend, model, attention.clone(), sizes)?;

        let live = args.report.output == OutputFormat::Text;
        let mut show = live.then(|| Show::new(console, samples));
        let mut shown = Ok(());
        let prefill = console.bar("prefill", options.prompt.len() as u64);
        // Live text is its own progress.
        let kept = (samples * options.max_new_tokens) as u64;
        let decode = if live { ProgressBar::hidden() } else { console.bar("decode", kept) };
        let progress = |progress: Progress<'_>| {
            match progress {
                Progress::Prefill { done, total } if done == total => prefill.finish_and_clear(),
                Progress::Prefill { done, .. } => prefill.set_position(done as u64),
                Progress::Token { .. } => decode.inc(1),
                Progress::Finished { .. } => {}
            }
            if let Some(show) = &mut show
                && shown.is_ok()
            {
                shown = show.progress(progress);
                // Nobody reads what is still to come.
                interrupt.flag().fetch_or(shown.is_err(), Ordering::Relaxed);
            }
        };
        let generation =
            lim_model::generate(&mut engine, &text.tokenizer, &options, interrupt.flag(), progress)?;
        decode.finish_and_clear();
        shown?;

        let generated = generation.samples.iter().map(|s| s.token_ids.len()).sum();
        let result = Generated {
            model: opened.name,
            device,
            dtype: opened.dtype.name(),
            attention: attention.report(),
            sampling,
            prompt_ids: prompt.ids,
            samples: generation.samples.into_iter().map(|s| sample(s, prompt.problem.as_ref())).collect(),
            timing: Timing::new(load_s, generation.timing),
            sparsity: generation.sparsity.into(),
        };
        if !live {
            console.result(output::json(&result)?)?;
        }
        report::timing(console, result.prompt_ids.len(), generated, &result.timing);
        report::sparsity(console, &result.sparsity);
        for sample in &result.samples {
            report::ending(console, sample);
        }
        interrupt.check()
    }
}

impl Generate<'_> {
    /// Sizes for what was asked for. On a device with memory of its own, pages are cut to what fits, and so is the length
    /// where no flag asked for it.
    fn sizes<B: Machine>(&self, backend: &B) -> Result<EngineOptions> {
        let Generate { args, console, opened, options, .. } = self;
        let (prompt, samples, page_size) = (options.prompt.len(), options.samples, args.model.page_size);
        let sizes = |tokens: usize| EngineOptions {
            capacity: Capacity { rows: samples.max(B::PREFILL_ROWS), seqs: samples, tokens },
            pages: samples * page_size.pages_for(tokens),
            page_size,
            kv_dtype: opened.dtype,
            prompts: 0,
            extras: PageExtras::default(),
        };
        let mut tokens = prompt + options.max_new_tokens - 1;
        let Some(free) = backend.free_memory()? else { return Ok(sizes(tokens)) };
        let demand = opened.demand(std::slice::from_ref(&self.attention));
        let longest = demand.longest(&sizes(tokens), 1, free);
        if args.stop.max_new_tokens.is_none() && (prompt..tokens).contains(&longest) {
            tokens = longest;
            console.note(format_args!("note: at most {} new tokens fit into memory", tokens + 1 - prompt));
        }
        let room = Room { device: &backend.device(), free };
        room.fit(*console, &demand, sizes(tokens), page_size.pages_for(tokens))
    }
}

fn sample(sample: lim_model::Sample, problem: Option<&Problem>) -> Sample {
    let lim_model::Sample { text, token_ids, logprobs, finish_reason } = sample;
    let check = problem.map(|p| p.check(&text, finish_reason == FinishReason::Stop));
    Sample { text, token_ids, logprobs, finish_reason: finish_reason.name(), check }
}
