//! `inspect`: a model, and what its select layers keep of a prompt.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::generate::ChatArgs;
use super::{AttentionArgs, ModelArgs, PromptArgs, ReportArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) attention: AttentionArgs,
    /// Run a prompt and show which tokens the select layers keep; without a prompt the demo model's sample problem
    #[arg(long, help_heading = "Selection")]
    pub(crate) selection: bool,
    /// Draw which positions every select layer kept over the steps
    #[arg(long, value_name = "FILE.svg", requires = "selection", help_heading = "Selection")]
    pub(crate) plot: Option<PathBuf>,
    /// Most tokens to generate, as of generate
    #[arg(short = 'n', long, value_name = "N", requires = "selection", help_heading = "Selection")]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,
    /// Seed of the draws, and of the sample problem [default: 0]
    #[arg(long, value_name = "N", requires = "selection", help_heading = "Selection")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

impl InspectArgs {
    /// Whether something is given that only `--selection` looks at.
    pub(crate) fn has_prompt(&self) -> bool {
        let PromptArgs { prompt, prompt_file, prompt_ids } = &self.prompt;
        let ChatArgs { chat, raw, system, thinking } = &self.chat;
        let text = prompt.is_some() || prompt_file.is_some() || prompt_ids.is_some();
        text || *chat || *raw || system.is_some() || thinking.is_some()
    }
}
