//! Options that several commands share.

use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use lim_kernels::PageSize;
use lim_select::Policy;

/// Which model, on what, stored how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Hugging Face model: a directory, or ORG/NAME from the hub's cache or the hub [default: the embedded demo model]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) model: Option<String>,
    /// Where to run: auto (the first GPU where it can be used, else the CPU; it says which), cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: DeviceArg,
    /// Element type of weights and KV cache; auto keeps the checkpoint's
    #[arg(long, value_enum, default_value_t = DTypeArg::Auto, value_name = "DTYPE")]
    pub(crate) dtype: DTypeArg,
    /// CPU threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Tokens per KV page: a power of two from 1 to 256
    #[arg(long, default_value = "16", value_name = "TOKENS", value_parser = page_size)]
    pub(crate) page_size: PageSize,
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(DeviceArg::Auto),
            "cpu" => Ok(DeviceArg::Cpu),
            "cuda" => Ok(DeviceArg::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(DeviceArg::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N with N a device number".to_owned()),
        }
    }
}

fn page_size(s: &str) -> Result<PageSize, String> {
    let tokens: usize = s.parse().map_err(|_| "expected a whole number".to_owned())?;
    PageSize::new(tokens).map_err(|e| e.to_string())
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DTypeArg {
    /// As the checkpoint stores it
    Auto,
    /// IEEE binary32
    F32,
    /// bfloat16
    Bf16,
}

/// The values of `--attention`, with what each reads and where it was published.
pub(crate) fn policy() -> impl TypedValueParser<Value = Policy> {
    let values = Policy::ALL.map(|policy| PossibleValue::new(policy.name()).help(about(policy)));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Policy>())
}

fn about(policy: Policy) -> String {
    let reads = match policy {
        Policy::Full => return "every token".into(),
        Policy::Lim => "one token set for all heads, chosen at select layers, reused by later ones",
        Policy::LimLayer => "as lim, but every layer from 2 on chooses its own and reads only that",
        Policy::Kascade => {
            "each KV head's tokens of most attention in its group, chosen at select layers, reused"
        }
        Policy::OmniKv => {
            "the tokens of most attention in any head, for all heads, chosen at select layers, reused"
        }
        Policy::Delta => {
            "the pages of most attention and the last ones, for all heads, chosen at select layers, reused"
        }
        Policy::TopP => {
            "tokens until --top-mass of every head's attention is reached, chosen at select layers, reused"
        }
        Policy::Tidal => "each query head's own tokens, chosen at select layers, reused by later ones",
        Policy::Seer => "each KV head's own pages, by gates distilled from the model, chosen in every layer",
        Policy::Quest => "each query head's own pages, by bounds of their keys, chosen in every layer",
        Policy::Streaming => "the first tokens and the last",
    };
    format!("{reads} ({})", policy.rule().source)
}

/// Which tokens decoding reads.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Attention")]
pub(crate) struct AttentionArgs {
    /// Policy of decode attention [default: the model's lim.json, otherwise lim]
    #[arg(long, value_parser = policy(), value_name = "POLICY")]
    pub(crate) attention: Option<Policy>,
    #[command(flatten)]
    pub(crate) budget: BudgetArgs,
}

/// A policy's settings; what is not given comes from the model's lim.json, then from the policy.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Attention")]
pub(crate) struct BudgetArgs {
    /// K, tokens a sparse layer reads per step
    #[arg(long, value_name = "K")]
    pub(crate) token_budget: Option<usize>,
    /// Share of the budget for sinks and the most recent tokens, 0 to 1 (not quest, seer and streaming)
    #[arg(long, value_name = "R")]
    pub(crate) recent_ratio: Option<f64>,
    /// First tokens that are always kept
    #[arg(long, value_name = "S")]
    pub(crate) sinks: Option<usize>,
    /// Share of every head's attention that the chosen tokens shall hold, above 0 to 1 (topp)
    #[arg(long, value_name = "SHARE")]
    pub(crate) top_mass: Option<f64>,
    /// Layer roles, as dense=0-1,select=2,12: layers or ranges after each key; 12s attends to its own choice; every
    /// other layer reuses
    #[arg(long, value_name = "LAYERS")]
    pub(crate) layers: Option<String>,
}

/// How results are written.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct ReportArgs {
    /// Result on stdout: text, or one JSON object
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(crate) output: OutputFormat,
    /// No progress and no reports on stderr, only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Text,
    Json,
}
