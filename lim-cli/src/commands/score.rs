//! `score`: how likely a model finds a text, through the decode path.

use std::time::Instant;

use lim_kernels::{Capacity, PageExtras};
use lim_model::{Engine, EngineOptions, ScoreOptions};

use crate::args::{OutputFormat, ScoreArgs};
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory::{self, Room};
use crate::open::{self, Opened};
use crate::output::{self, Scored, Timing};
use crate::{policy, prompt, report};

/// Rows of logits taken at once during the prefill.
const LOGIT_ROWS: usize = 8;

pub(super) fn run(args: ScoreArgs) -> Result<()> {
    let console = Console::new(args.report.quiet);
    let interrupt = Interrupt::install()?;
    let opened = open::open(&args.model, console)?;
    let flags = policy::from_flags(args.attention.attention, &args.attention.budget)?;
    let attention = opened.attention(&flags, args.model.page_size)?;
    let ids = prompt::for_score(&args.prompt, &opened)?;
    check(&ids, args.prefill, opened.config.max_positions)?;
    console.item("model", opened.describe());
    console.item("attention", policy::describe(&attention));
    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Score a shorter text");
    let scored = device.run(console, Score { args, console, interrupt, opened, attention, ids });
    memory::advise(scored, &advice)
}

/// Refuses what cannot be scored, before anything is loaded.
fn check(ids: &[u32], prefill: usize, context: usize) -> Result<()> {
    let tokens = ids.len();
    if tokens < 2 {
        return Err(Error::usage(format!("a text of {tokens} tokens has nothing to score: give at least 2")));
    }
    if tokens > context + 1 {
        return Err(Error::usage(format!("the text has {tokens} tokens, the model's context {context}")));
    }
    if !(1..=tokens).contains(&prefill) {
        return Err(Error::usage(format!("--prefill {prefill} is not from 1 to the text's {tokens} tokens")));
    }
    Ok(())
}

struct Score {
    args: ScoreArgs,
    console: Console,
    interrupt: Interrupt,
    opened: Opened,
    attention: lim_select::Attention,
    ids: Vec<u32>,
}

impl Job for Score {
    type Out = ();

    fn run<B: Machine>(self, mut backend: B) -> Result<()> {
        let Score { args, console, interrupt, opened, attention, ids } = self;
        let (device, tokens, page_size) = (backend.device(), ids.len() - 1, args.model.page_size);
        let mut options = EngineOptions {
            capacity: Capacity { rows: B::PREFILL_ROWS, seqs: LOGIT_ROWS, tokens },
            pages: page_size.pages_for(tokens),
            page_size,
            kv_dtype: opened.dtype,
            prompts: 0,
            extras: PageExtras::default(),
        };
        if let Some(free) = backend.free_memory()? {
            let demand = opened.demand(std::slice::from_ref(&attention));
            let room = Room { device: &device, free };
            options = room.fit(console, &demand, options, options.pages)?;
        }
        let begun = Instant::now();
        let model = opened.load(&mut backend, tokens, std::slice::from_ref(&attention), console)?;
        let load_s = begun.elapsed().as_secs_f64();
        let mut engine = Engine::new(backend, model, attention.clone(), options)?;
        let bar = console.bar("scoring", tokens as u64);
        let nll =
            engine.score(ScoreOptions { ids: &ids, prefill: args.prefill }, interrupt.flag(), |done| {
                bar.set_position(done as u64)
            })?;
        bar.finish_and_clear();

        let usage = engine.usage()?;
        let mean = nll.iter().map(|&v| f64::from(v)).sum::<f64>() / nll.len() as f64;
        let timing = Timing::new(load_s, usage.timing());
        let result = Scored {
            model: opened.name,
            device,
            dtype: opened.dtype.name(),
            attention: attention.report(),
            tokens: nll.len(),
            nll_mean: mean,
            perplexity: mean.exp(),
            nll,
            sparsity: usage.sparsity().into(),
        };
        match args.report.output {
            OutputFormat::Json => console.result(output::json(&result)?)?,
            OutputFormat::Text => {
                let Scored { tokens, nll_mean, perplexity, .. } = &result;
                console.result(format_args!(
                    "tokens {tokens}\nnll_mean {nll_mean:.6}\nperplexity {perplexity:.6}\n"
                ))?;
            }
        }
        report::timing(console, args.prefill, tokens - args.prefill.min(tokens), &timing);
        report::sparsity(console, &result.sparsity);
        Ok(())
    }
}
