//! `doctor`: what this machine has, and whether the embedded model solves a problem on it.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend as _, PageSize, SampleParams};
use lim_model::{Engine, EngineOptions, FinishReason, GenerateOptions, Hub};
use lim_select::Settings;
use serde::Serialize;

use crate::args::{DTypeArg, DoctorArgs, OutputFormat};
use crate::bandwidth::Yardstick;
use crate::console::Console;
use crate::demo::Problem;
use crate::device::{self, Job};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::open::{self, Opened};
use crate::{output, report};

/// A short problem that the embedded model is sure to solve.
const PROBLEM: &str = "edit kitten sitting";

/// `doctor --output json`.
#[derive(Debug, Serialize)]
struct Diagnosis {
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

pub(super) fn run(args: DoctorArgs) -> Result<()> {
    let console = Console::new(args.report.quiet);
    let spinner = console.spinner("measuring memory".into());
    let read = Yardstick::new(&mut device::cpu(args.threads)?)?.gb_per_s();
    let fact = |name, detail| Check { name, ok: true, detail };
    let mut checks = vec![
        fact("cpu", cpu(args.threads)?),
        fact("memory", memory()),
        fact("read", format!("{read:.1} GB/s, {}", Cpu::READING)),
        fact("gpu", device::gpu()),
        fact("cache", cache()),
    ];
    spinner.set_message("solving a problem");
    checks.push(match demo(args.threads) {
        Ok((ok, detail)) => Check { name: "demo model", ok, detail },
        Err(error) => Check { name: "demo model", ok: false, detail: error.to_string() },
    });
    spinner.finish_and_clear();
    let diagnosis = Diagnosis { ok: checks.iter().all(|c| c.ok), checks };
    match args.report.output {
        OutputFormat::Json => console.result(output::json(&diagnosis)?)?,
        OutputFormat::Text => {
            for Check { name, ok, detail } in &diagnosis.checks {
                let mark = if *ok { "ok" } else { "FAILED" };
                console.result(format_args!("{name:<10} {mark:<6} {detail}\n"))?;
            }
        }
    }
    let failed: Vec<&str> = diagnosis.checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Failed(format!("failed: {}", failed.join(", ")))) }
}

fn cpu(threads: Option<NonZeroUsize>) -> Result<String> {
    let mut text = device::cpu(threads)?.device();
    let features = features();
    if !features.is_empty() {
        text += &format!("; has {}", features.join(" "));
    }
    Ok(text)
}

/// Instruction sets that matter to the kernels.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    all.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

/// Total and available memory, where the system says so.
fn memory() -> String {
    let field = |name: &str| crate::memory::system(name).map(report::bytes);
    match (field("MemTotal"), field("MemAvailable")) {
        (Some(total), Some(free)) => format!("{total}, {free} available"),
        _ => "unknown on this system".into(),
    }
}

/// Where models from the hub are kept.
fn cache() -> String {
    match Hub::from_env() {
        Ok(Hub { cache, .. }) if cache.is_dir() => cache.display().to_string(),
        Ok(Hub { cache, .. }) => format!("{} (not there yet)", cache.display()),
        Err(error) => error.to_string(),
    }
}

/// Whether the embedded model solves the problem, and how fast.
fn demo(threads: Option<NonZeroUsize>) -> Result<(bool, String)> {
    let opened = open::embedded(DTypeArg::Auto)?;
    Solve { opened }.run(device::cpu(threads)?)
}

struct Solve {
    opened: Opened,
}

impl Job for Solve {
    type Out = (bool, String);

    fn run<B: Machine>(self, mut backend: B) -> Result<(bool, String)> {
        let Solve { opened } = self;
        let failed = |what: &str| Error::Failed(what.to_owned());
        let problem = Problem::parse(PROBLEM).ok_or_else(|| failed("not a problem"))?;
        let text = opened.text()?;
        let prompt = text.chat(PROBLEM, None, None)?;
        let attention = opened.attention(&Settings::default(), PageSize::default())?;
        let options = GenerateOptions {
            samples: 1,
            params: SampleParams::default(),
            max_new_tokens: 2048,
            stop: Vec::new(),
            eos: text.end_ids.clone(),
            thinking_budget: None,
            prompt,
        };
        let tokens = options.prompt.len() + options.max_new_tokens - 1;
        let model =
            opened.load(&mut backend, tokens, std::slice::from_ref(&attention), Console::new(true))?;
        let sizes = EngineOptions { kv_dtype: opened.dtype, ..EngineOptions::new(1, tokens) };
        let mut engine = Engine::new(backend, model, attention, sizes)?;
        let never = AtomicBool::new(false);
        let generation = lim_model::generate(&mut engine, &text.tokenizer, &options, &never, |_| {})?;
        let (speed, sample) = (generation.timing.decode_tokens_per_s, &generation.samples[0]);
        let check = problem.check(&sample.text, sample.finish_reason == FinishReason::Stop);
        let answer = check.answer.unwrap_or_else(|| "nothing".into());
        let verdict = if check.correct { "right".into() } else { format!("wrong, it is {}", check.expected) };
        Ok((
            check.correct,
            format!(
                "{PROBLEM} = {answer}: {verdict}; {} tokens, {speed:.0} tokens/s",
                sample.token_ids.len()
            ),
        ))
    }
}
