//! `score`: a text or ids, and where decoding starts.

use clap::Args;

use super::{AttentionArgs, ModelArgs, PromptArgs, ReportArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Tokens taken in by a dense prefill before token-by-token decoding starts
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) prefill: usize,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) attention: AttentionArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}
