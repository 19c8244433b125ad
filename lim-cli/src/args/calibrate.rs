//! `calibrate`: sample prompts, what to choose by, and where the choice goes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::generate::{ChatArgs, SamplingArgs};
use super::{ModelArgs, ReportArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// K to measure at; layers are chosen for the first [default: the model's]
    #[arg(long, value_delimiter = ',', value_name = "K,..", help_heading = "Attention")]
    pub(crate) token_budget: Vec<usize>,
    /// Share of the budget for sinks and the most recent tokens, 0 to 1
    #[arg(long, value_name = "R", help_heading = "Attention")]
    pub(crate) recent_ratio: Option<f64>,
    /// First tokens that are always kept
    #[arg(long, value_name = "S", help_heading = "Attention")]
    pub(crate) sinks: Option<usize>,
    #[command(flatten)]
    pub(crate) goal: GoalArgs,
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Most tokens to generate per sample, as of generate
    #[arg(short = 'n', long, value_name = "N", help_heading = "Sampling")]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Sequences that are generated together
    #[arg(short, long, default_value = "16", value_name = "N", help_heading = "Running")]
    pub(crate) batch: NonZeroUsize,
    /// Decode steps to measure, about so many of all, at even distances
    #[arg(long, default_value = "512", value_name = "N", help_heading = "Running")]
    pub(crate) steps: NonZeroUsize,
    /// Put lim.json, report.md, calibration.json and plots into this directory
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// Put the choice into the lim.json of the model's own directory; other settings there stay
    #[arg(long, help_heading = "Output")]
    pub(crate) write: bool,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// Where prompts come from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Prompts")]
pub(crate) struct SourceArgs {
    /// Prompts: FILE.jsonl as eval takes it, answers or not, and any other file as one prompt [default for the embedded
    /// demo model: --demo 4]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// So many generated problems of each of the demo model's tasks
    #[arg(long, value_name = "N", conflicts_with = "files")]
    pub(crate) demo: Option<NonZeroUsize>,
    /// Only the first N problems of each task or subject of a FILE.jsonl
    #[arg(long, value_name = "N", requires = "files")]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Added to each problem of a FILE.jsonl, as eval does
    #[arg(long, value_name = "TEXT", requires = "files")]
    pub(crate) instruction: Option<String>,
}

/// What the choice is to reach.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Choice")]
pub(crate) struct GoalArgs {
    /// Choose the N select layers that keep the most attention [default: as many as the model selects at now]
    #[arg(long, value_name = "N", conflicts_with = "floor")]
    pub(crate) select: Option<usize>,
    /// Choose the fewest select layers such that every layer keeps this share of its attention, 0 to 1
    #[arg(long, value_name = "SHARE")]
    pub(crate) floor: Option<f64>,
    /// Dense layers; the first select layer comes after them [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) dense: Option<usize>,
    /// Let select layers read only what they have selected (as 12s of --layers), with --floor where that keeps the floor
    #[arg(long)]
    pub(crate) own_sparse: bool,
}
