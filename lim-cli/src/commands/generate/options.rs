//! From flags and generation_config.json to what the engine is asked for.

use lim_kernels::SampleParams;
use lim_model::{GenerateOptions, GenerationConfig, Origin, SamplingSettings};

use crate::args::{GenerateArgs, SamplingArgs, StopArgs};
use crate::error::{Error, Result};
use crate::open::{Opened, Text};
use crate::output::Sampling;
use crate::prompt::Prompt;

/// The token that thinking budgets need.
const END_OF_THINKING: &str = "</think>";

/// Where neither flag nor model says how much to generate; bounds the memory taken for the KV cache.
const MAX_NEW_TOKENS: usize = 32_768;

/// Sampling in force: flags over the model's generation_config.json.
///
/// # Errors
/// When the prompt leaves no room for `--max-new-tokens` in the model's context.
pub(in crate::commands) fn sampling(
    flags: &SamplingArgs,
    stop: &StopArgs,
    opened: &Opened,
    generation: &GenerationConfig,
    prompt: usize,
) -> Result<Sampling> {
    let context = opened.config.max_positions;
    // The last token is drawn, not fed: it needs no position.
    let Some(room) = (context + 1).checked_sub(prompt).filter(|&room| room > 0) else {
        return Err(Error::usage(format!("the prompt has {prompt} tokens, the model's context {context}")));
    };
    let asked = stop.max_new_tokens.map(|n| n.get());
    if let Some(asked) = asked.filter(|&n| n > room) {
        return Err(Error::usage(format!(
            "--max-new-tokens {asked} does not fit: the model's context has {context} positions, the prompt takes \
             {prompt}; at most {room}"
        )));
    }
    lim_model::StopStrings::new(&stop.stop).map_err(|e| Error::Usage(format!("--stop: {e}")))?;
    let given = SamplingSettings {
        temperature: flags.temperature,
        top_k: flags.top_k,
        top_p: flags.top_p,
        min_p: flags.min_p,
        repetition_penalty: flags.repetition_penalty,
        presence_penalty: flags.presence_penalty,
        frequency_penalty: flags.frequency_penalty,
        seed: flags.seed,
    };
    lim_model::Sampling::resolve(given, SamplingSettings::default()).map_err(as_flag)?;
    let resolved = lim_model::Sampling::resolve(given, generation.sampling)
        .map_err(|e| Error::Failed(format!("{}: generation_config.json: {e}", opened.name)))?;
    let from_model = resolved.origins().into_iter().filter(|(_, origin)| *origin == Origin::Model);
    let params = resolved.params;
    Ok(Sampling {
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p,
        repetition_penalty: params.repetition_penalty,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        seed: params.seed,
        samples: flags.samples.get(),
        max_new_tokens: asked.or(generation.max_new_tokens).unwrap_or(MAX_NEW_TOKENS).min(room),
        stop: stop.stop.clone(),
        ignore_eos: stop.ignore_eos,
        from_model: from_model.map(|(name, _)| name).collect(),
    })
}

/// A setting out of range, in the words of its flag.
fn as_flag(error: lim_model::Error) -> Error {
    match error {
        lim_model::Error::Request { what, reason } => {
            Error::Usage(format!("--{} {reason}", what.replace('_', "-")))
        }
        other => other.into(),
    }
}

/// How the engine draws.
pub(in crate::commands) fn params(sampling: &Sampling) -> SampleParams {
    SampleParams {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed,
    }
}

/// `--thinking-budget`.
///
/// # Errors
/// When it is asked of a model that has no token to end thinking with.
pub(in crate::commands) fn thinking_budget(stop: &StopArgs, text: &Text) -> Result<Option<usize>> {
    if stop.thinking_budget.is_some() && text.tokenizer.token_id(END_OF_THINKING).is_none() {
        return Err(Error::usage(format!(
            "--thinking-budget needs a model with a token {END_OF_THINKING}; this one has none: leave it out"
        )));
    }
    Ok(stop.thinking_budget)
}

/// What the engine is asked for.
///
/// # Errors
/// When `--thinking-budget` is asked of a model that has no token to end thinking with.
pub(super) fn options(
    args: &GenerateArgs,
    text: &Text,
    prompt: &Prompt,
    sampling: &Sampling,
) -> Result<GenerateOptions> {
    let thinking_budget = thinking_budget(&args.stop, text)?;
    Ok(GenerateOptions {
        prompt: prompt.ids.clone(),
        samples: sampling.samples,
        params: params(sampling),
        max_new_tokens: sampling.max_new_tokens,
        stop: sampling.stop.clone(),
        eos: if sampling.ignore_eos { Vec::new() } else { text.end_ids.clone() },
        thinking_budget,
    })
}

/// Flags that change nothing here, to be told to the user.
pub(super) fn without_effect(args: &GenerateArgs, sampling: &Sampling) -> Option<String> {
    if sampling.temperature != 0.0 {
        return None;
    }
    let flags = [
        ("--top-p", args.sampling.top_p.is_some()),
        ("--top-k", args.sampling.top_k.is_some()),
        ("--min-p", args.sampling.min_p.is_some()),
        ("--samples", sampling.samples > 1),
    ];
    let given: Vec<&str> = flags.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect();
    (!given.is_empty())
        .then(|| format!("{} change nothing at temperature 0 (greedy); set --temperature", given.join(", ")))
}
