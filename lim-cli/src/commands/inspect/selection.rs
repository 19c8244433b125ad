//! `inspect --selection`: what the select layers keep of one sequence, as text, JSON and picture.

use lim_kernels::{Capacity, PageExtras, SampleParams};
use lim_model::{Continuation, Engine, EngineOptions, Trace, TraceOptions};
use lim_select::{Attention, Report};
use serde::Serialize;

use super::highlight::Marks;
use super::picture;
use crate::args::{InspectArgs, OutputFormat, SamplingArgs, StopArgs};
use crate::commands::generate::options;
use crate::console::Console;
use crate::device::{Device, Job};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::memory;
use crate::open::{self, Opened, Text};
use crate::prompt::{self, Prompt};
use crate::{output, policy, report};

/// `inspect --selection --output json`.
#[derive(Debug, Serialize)]
struct Selection {
    model: String,
    device: String,
    dtype: &'static str,
    attention: Report,
    prompt_ids: Vec<u32>,
    /// What was generated.
    token_ids: Vec<u32>,
    /// Steps that selected.
    steps: usize,
    /// By position: steps in which it was neither first nor recent.
    candidate_steps: Vec<usize>,
    layers: Vec<Layer>,
}

/// What one select layer chose from the history.
#[derive(Debug, Serialize)]
struct Layer {
    layer: usize,
    /// Positions a step, mean.
    chosen: f64,
    /// Share of the candidates that it chose at least once.
    ever_kept: Option<f64>,
    /// Share of a choice that is new to the step; null with one step.
    turnover: Option<f64>,
    /// Share of its choice that the select layer before has chosen too; null for the first.
    in_layer_before: Option<f64>,
    /// By position: steps in which it was chosen.
    kept_steps: Vec<u32>,
}

pub(super) fn run(args: &InspectArgs, console: Console) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let opened = open::open(&args.model, console)?;
    let flags = policy::from_flags(args.attention.attention, &args.attention.budget)?;
    let attention = opened.attention(&flags, args.model.page_size)?;
    if attention.quota().is_none() {
        return Err(Error::Usage(format!(
            "--selection: --attention {} selects nothing; choose a policy that does, such as --attention lim",
            attention.policy()
        )));
    }
    let text = opened.text()?;
    let prompt = prompt::for_generate(&args.prompt, &args.chat, args.seed, &opened, &text)?;
    let (flags, stop) = (SamplingArgs::seeded(args.seed), StopArgs::at_most(args.max_new_tokens));
    let sampling = options::sampling(&flags, &stop, &opened, &text.generation, prompt.ids.len())?;
    console.item("model", opened.describe());
    console.item("attention", policy::describe(&attention));
    console.item("sampling", report::sampling(&sampling));
    console.item("prompt", prompt.describe());

    let device = Device { device: args.model.device, threads: args.model.threads, dtype: opened.dtype };
    let advice = opened.advice("Shorten the context (--max-new-tokens)");
    let params = options::params(&sampling);
    let max_new_tokens = sampling.max_new_tokens;
    let job = Look {
        args,
        console,
        interrupt,
        opened: &opened,
        text: &text,
        attention: &attention,
        prompt: &prompt,
        params,
        max_new_tokens,
    };
    let (device, trace) = memory::advise(device.run(console, job), &advice)?;
    if trace.steps.is_empty() {
        let budget = attention.quota().map_or(0, |quota| quota.budget());
        return Err(Error::Failed(format!(
            "nothing was selected: the sequence has {} tokens, the budget holds {budget}. Lower --token-budget or take a \
             longer problem",
            trace.ids.len()
        )));
    }
    if let Some(path) = &args.plot {
        let title = format!("{}, {} of K = {}", opened.name, attention.policy(), trace.quota.budget());
        std::fs::write(path, picture::svg(&trace, prompt.ids.len(), &title)).map_err(Error::io(path))?;
    }
    let selection = Selection::new(&opened, device, &attention, prompt.ids.len(), &trace);
    match args.report.output {
        OutputFormat::Json => console.result(output::json(&selection)?),
        OutputFormat::Text => {
            console.result(selection.figures())?;
            if text.has_words {
                console.result(marked(&selection, &trace, &text)?)?;
            } else {
                console.note("note: the model has no tokenizer.json, so there is no text to show");
            }
            Ok(())
        }
    }
}

impl Selection {
    fn new(opened: &Opened, device: String, attention: &Attention, prompt: usize, trace: &Trace) -> Self {
        let layer = |index: usize| Layer {
            layer: trace.layers[index],
            chosen: trace.chosen(index).unwrap_or(0.0),
            ever_kept: trace.ever_kept(Some(index)),
            turnover: trace.turnover(index),
            in_layer_before: index.checked_sub(1).and_then(|before| trace.overlap(index, before)),
            kept_steps: trace.counts(Some(index)),
        };
        Selection {
            model: opened.name.clone(),
            device,
            dtype: opened.dtype.name(),
            attention: attention.report(),
            prompt_ids: trace.ids[..prompt].to_vec(),
            token_ids: trace.ids[prompt..].to_vec(),
            steps: trace.steps.len(),
            candidate_steps: (0..trace.ids.len()).map(|t| trace.candidate_steps(t)).collect(),
            layers: (0..trace.layers.len()).map(layer).collect(),
        }
    }

    /// A line a select layer.
    fn figures(&self) -> String {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let mut before = None;
        let mut out = String::new();
        for Layer { layer, chosen, ever_kept, turnover, in_layer_before, .. } in &self.layers {
            let mut parts = vec![format!("{chosen:.0} tokens chosen in each of {} steps", self.steps)];
            parts.extend(ever_kept.map(|share| format!("{} of all ever", percent(share))));
            parts.extend(turnover.map(|share| format!("{} new to the step", percent(share))));
            parts.extend(
                in_layer_before
                    .zip(before)
                    .map(|(share, b)| format!("{} in the choice of layer {b}", percent(share))),
            );
            out += &format!("{:<10} {}\n", format!("layer {layer}"), parts.join(", "));
            before = Some(*layer);
        }
        out
    }
}

/// The text with what any select layer kept, under a legend.
fn marked(selection: &Selection, trace: &Trace, text: &Text) -> Result<String> {
    let marks = Marks::for_stdout();
    let mut stream = text.tokenizer.stream(false);
    let mut pieces = Vec::with_capacity(trace.ids.len());
    for ((&id, count), &steps) in trace.ids.iter().zip(trace.counts(None)).zip(&selection.candidate_steps) {
        let share = (steps > 0).then(|| f64::from(count) / steps as f64);
        pieces.push((stream.push(id)?, share));
    }
    pieces.push((stream.finish()?, None));
    Ok(format!("{}\n\n{}\n", marks.legend(), marks.mark(&pieces)))
}

struct Look<'a> {
    args: &'a InspectArgs,
    console: Console,
    interrupt: Interrupt,
    opened: &'a Opened,
    text: &'a Text,
    attention: &'a Attention,
    prompt: &'a Prompt,
    params: SampleParams,
    max_new_tokens: usize,
}

impl Job for Look<'_> {
    type Out = (String, Trace);

    fn run<B: Machine>(self, mut backend: B) -> Result<(String, Trace)> {
        let Look { args, console, interrupt, opened, text, attention, prompt, params, max_new_tokens } = self;
        let (device, tokens, page_size) =
            (backend.device(), prompt.ids.len() + max_new_tokens - 1, args.model.page_size);
        let sizes = EngineOptions {
            capacity: Capacity { rows: B::PREFILL_ROWS, seqs: 1, tokens },
            pages: page_size.pages_for(tokens),
            page_size,
            kv_dtype: opened.dtype,
            prompts: 0,
            extras: PageExtras::default(),
        };
        let demand = opened.demand(std::slice::from_ref(attention));
        let sizes = memory::fit(console, &backend, &demand, sizes, sizes.pages)?;
        let model = opened.load(&mut backend, tokens, std::slice::from_ref(attention), console)?;
        let mut engine = Engine::new(backend, model, attention.clone(), sizes)?;
        let continuation = Continuation::Generate { max_new_tokens, params, stop_ids: &text.end_ids };
        let bar = console.bar("tokens", tokens as u64);
        let options = TraceOptions { prompt: &prompt.ids, continuation };
        let trace = engine.trace(options, interrupt.flag(), |cached| bar.set_position(cached as u64))?;
        bar.finish_and_clear();
        Ok((device, trace))
    }
}
