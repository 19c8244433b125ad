//! The command line: what may be written, in clap's derive form. Nothing here opens a file or a device.

mod bench;
mod calibrate;
mod common;
mod eval;
mod generate;
mod inspect;
mod score;
mod small;

use clap::{Parser, Subcommand};

pub(crate) use bench::{BenchArgs, TableFormat};
pub(crate) use calibrate::{CalibrateArgs, GoalArgs, SourceArgs};
pub(crate) use common::{
    AttentionArgs, BudgetArgs, DTypeArg, DeviceArg, ModelArgs, OutputFormat, ReportArgs,
};
pub(crate) use eval::{EvalArgs, EvalFormat, ProblemArgs};
pub(crate) use generate::{ChatArgs, GenerateArgs, OnOff, PromptArgs, SamplingArgs, StopArgs};
pub(crate) use inspect::InspectArgs;
pub(crate) use score::ScoreArgs;
pub(crate) use small::{CompletionsArgs, DoctorArgs, ManArgs};

const AFTER_HELP: &str = "\
Text and JSON go to stdout; progress, reports and messages go to stderr.
Exit codes: 0 done, 1 failed or interrupted, 2 bad usage.";

/// Reasoning models on a diet: decode reads the tokens that matter (LessIsMore) instead of the whole KV cache.
#[derive(Debug, Parser)]
#[command(name = "lim-cli", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a prompt; without one, the embedded demo model solves a sample problem
    Generate(Box<GenerateArgs>),
    /// Negative log-likelihood of a text under a policy, token by token through the decode path
    Score(Box<ScoreArgs>),
    /// Measure prefill and decode speed, policies interleaved in one run
    Bench(Box<BenchArgs>),
    /// Answer a set of problems under policies and budgets, grade the answers, and report accuracy and length
    Eval(Box<EvalArgs>),
    /// Measure which layers should select for a model, on prompts of its work, and write that as its lim.json
    Calibrate(Box<CalibrateArgs>),
    /// What a model is made of, what the attention settings make each layer do, and what they keep of a prompt
    Inspect(Box<InspectArgs>),
    /// Check this machine: CPU, memory bandwidth, GPU, cache, and the embedded model's answer to a problem
    Doctor(DoctorArgs),
    /// Write a shell completion script to stdout
    Completions(CompletionsArgs),
    /// Write the manual page to stdout, or all pages to a directory
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_its_own_definitions() {
        super::Cli::command().debug_assert();
    }
}
