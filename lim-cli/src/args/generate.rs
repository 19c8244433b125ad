//! `generate`: prompt, sampling and stopping.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{AttentionArgs, ModelArgs, ReportArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) attention: AttentionArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) stop: StopArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// One source of the prompt.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct PromptArgs {
    /// The prompt; - reads it from stdin
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Token ids, taken as they are: no BOS, no chat template
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) prompt_ids: Option<Vec<u32>>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Prompt")]
pub(crate) struct ChatArgs {
    /// Wrap the prompt in the model's chat template [default: when the model has one]
    #[arg(long, conflicts_with = "raw")]
    pub(crate) chat: bool,
    /// Take the prompt as it is, with the tokenizer's own special tokens only
    #[arg(long)]
    pub(crate) raw: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Tell the chat template whether the model should think (its enable_thinking)
    #[arg(long, value_enum, value_name = "ON|OFF", conflicts_with = "raw")]
    pub(crate) thinking: Option<OnOff>,
}

/// `--thinking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// How tokens are drawn; what is not given comes from the model's generation_config.json.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Independent continuations of the prompt, decoded together
    #[arg(long, default_value = "1", value_name = "N")]
    pub(crate) samples: NonZeroUsize,
    /// 0 is greedy
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Draw from the smallest set of tokens with this probability; 1 is off
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Draw from the K most likely tokens; 0 is off
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Drop tokens less likely than this share of the most likely; 0 is off
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Scales down logits of tokens seen in prompt or answer; 1 is off
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f32>,
    /// Taken once from logits of tokens in the answer; 0 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Taken per occurrence from logits of tokens in the answer; 0 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Seed of the draws [default: 0]; also picks the sample problem when there is no prompt
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stopping")]
pub(crate) struct StopArgs {
    /// Most tokens to generate per sample [default: the model's generation_config.json, otherwise what is left of
    /// its context, 32768 at most]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_new_tokens: Option<NonZeroUsize>,
    /// Stop before this text; may be given several times
    #[arg(long = "stop", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// Go on after an end-of-sequence token
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    /// Make a model that thinks stop thinking after N tokens, and answer
    #[arg(long, value_name = "N")]
    pub(crate) thinking_budget: Option<usize>,
}

impl SamplingArgs {
    /// One sample as the model's generation_config.json has it.
    pub(crate) fn seeded(seed: Option<u64>) -> Self {
        SamplingArgs {
            samples: NonZeroUsize::MIN,
            temperature: None,
            top_p: None,
            top_k: None,
            min_p: None,
            repetition_penalty: None,
            presence_penalty: None,
            frequency_penalty: None,
            seed,
        }
    }
}

impl StopArgs {
    /// At an end token, or after so many tokens.
    pub(crate) fn at_most(max_new_tokens: Option<NonZeroUsize>) -> Self {
        StopArgs { max_new_tokens, stop: Vec::new(), ignore_eos: false, thinking_budget: None }
    }
}
