//! `eval`: problems, the settings to compare, and where results go.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::generate::{ChatArgs, SamplingArgs, StopArgs};
use super::{BudgetArgs, ModelArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) problems: ProblemArgs,
    /// Settings to compare: POLICY, POLICY:K or POLICY:K:LAYERS, as full,lim,tidal:128:dense=0-1,select=2,5; default is
    /// the model's own setting
    #[arg(long, default_value = "default", value_name = "SETTING,..", help_heading = "Attention")]
    pub(crate) attention: String,
    /// K of the settings that name none: each of them is taken with each of these
    #[arg(long, value_delimiter = ',', value_name = "K,..", help_heading = "Attention")]
    pub(crate) token_budget: Vec<usize>,
    #[command(flatten)]
    pub(crate) knobs: KnobArgs,
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Sequences that decode together; as one ends the next begins
    #[arg(short, long, default_value = "16", value_name = "N", help_heading = "Running")]
    pub(crate) batch: NonZeroUsize,
    /// Write results.jsonl, report.md, report.json and plots into this directory; a run that was stopped goes on where
    /// its results end
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Leave what the model wrote out of results.jsonl
    #[arg(long, help_heading = "Output")]
    pub(crate) no_text: bool,
    /// Report on stdout
    #[arg(long, value_enum, default_value_t = EvalFormat::Md, value_name = "FORMAT", help_heading = "Output")]
    pub(crate) output: EvalFormat,
    /// No progress and no reports on stderr, only errors
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// Where problems come from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Problems")]
pub(crate) struct ProblemArgs {
    /// Problems, a JSON object a line, with the fields of AIME, MATH, GSM8K or GPQA files [default for the embedded demo
    /// model: --demo 10]
    #[arg(value_name = "FILE.jsonl")]
    pub(crate) file: Option<PathBuf>,
    /// So many generated problems of each of the demo model's tasks
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub(crate) demo: Option<NonZeroUsize>,
    /// Only the first N problems of each task or subject of the file
    #[arg(long, value_name = "N", requires = "file")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Added to each problem of a file, after an empty line; "" adds nothing [default: to reason step by step and put
    /// the answer within \boxed{}]
    #[arg(long, value_name = "TEXT", requires = "file")]
    pub(crate) instruction: Option<String>,
}

/// What every setting that has it takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Attention")]
pub(crate) struct KnobArgs {
    /// Share of the budget for sinks and the most recent tokens, 0 to 1 (where the policy has it)
    #[arg(long, value_name = "R")]
    pub(crate) recent_ratio: Option<f64>,
    /// First tokens that are always kept (where the policy has it)
    #[arg(long, value_name = "S")]
    pub(crate) sinks: Option<usize>,
    /// Share of every head's attention that the chosen tokens shall hold, above 0 to 1 (topp)
    #[arg(long, value_name = "SHARE")]
    pub(crate) top_mass: Option<f64>,
    /// Layer roles of the settings that name none, as dense=0-1,select=2,12
    #[arg(long, value_name = "LAYERS")]
    pub(crate) layers: Option<String>,
}

impl KnobArgs {
    /// The same as `generate` has them.
    pub(crate) fn budget(&self) -> BudgetArgs {
        let KnobArgs { recent_ratio, sinks, top_mass, layers } = self.clone();
        BudgetArgs { token_budget: None, recent_ratio, sinks, top_mass, layers }
    }
}

/// `eval --output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalFormat {
    Md,
    Json,
}
