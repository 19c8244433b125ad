//! `bench`: llama-bench's conventions.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use lim_select::Policy;

use super::common::policy;
use super::{BudgetArgs, ModelArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Prompt tokens of the prefill test; 0 leaves it out
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_name = "N,..")]
    pub(crate) n_prompt: Vec<usize>,
    /// Tokens of the decode test; 0 leaves it out
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128", value_name = "N,..")]
    pub(crate) n_gen: Vec<usize>,
    /// Tokens already cached when decoding starts; filled without computing a prefill
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0", value_name = "N,..")]
    pub(crate) depth: Vec<usize>,
    /// Sequences decoded together
    #[arg(short = 'b', long, value_delimiter = ',', default_value = "1", value_name = "N,..")]
    pub(crate) batch: Vec<NonZeroUsize>,
    /// Measured runs of each test, after one that is not counted
    #[arg(short = 'r', long, default_value = "5", value_name = "N")]
    pub(crate) repeats: NonZeroUsize,
    /// Policies to compare, taken in turn within each repeat
    #[arg(long, value_parser = policy(), value_delimiter = ',', default_value = "full,lim", value_name = "POLICY,..")]
    pub(crate) attention: Vec<Policy>,
    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
    /// Random weights instead of a checkpoint, in the shape of qwen3-0.6b, qwen3-4b, qwen3-8b, llama-3.1-8b or
    /// r1-distill-qwen-7b
    #[arg(long, value_name = "SHAPE", conflicts_with = "model", help_heading = "Model")]
    pub(crate) random_weights: Option<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Table on stdout
    #[arg(short, long, value_enum, default_value_t = TableFormat::Md, value_name = "FORMAT")]
    pub(crate) output: TableFormat,
    /// Also plot step time against context, a line a policy, with the byte limits
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// No progress and no reports on stderr, only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `bench --output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    Md,
    Json,
    Csv,
}
