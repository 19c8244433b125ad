//! From attention flags and a model's lim.json to the settings in force, with errors in the words of the flags.

use lim_kernels::PageSize;
use lim_select::{Attention, Error as SelectError, Knob, Layers, ModelHint, Policy, Settings};

use crate::args::BudgetArgs;
use crate::error::{Error, Result};

const LAYERS_GRAMMAR: &str = "write dense= and select=, each with layers or ranges: --layers dense=0-1,select=2,12 \
                              (select=2,12s: layer 12 attends to its own choice)";

/// The settings that flags ask for.
///
/// # Errors
/// When `--layers` does not follow its grammar: the message underlines the part.
pub(crate) fn from_flags(attention: Option<Policy>, budget: &BudgetArgs) -> Result<Settings> {
    let layers = budget.layers.as_deref().map(parse_layers).transpose()?;
    let &BudgetArgs { token_budget, recent_ratio, sinks, top_mass, .. } = budget;
    Ok(Settings { policy: attention, token_budget, recent_ratio, sinks, top_mass, layers })
}

pub(crate) fn parse_layers(text: &str) -> Result<Layers> {
    text.parse().map_err(|error| match error {
        SelectError::Layers { part, column, reason } => {
            let indent = " ".repeat(column - 1);
            let marks = "^".repeat(part.chars().count().max(1));
            Error::Usage(format!("--layers: {reason}\n  {text}\n  {indent}{marks}\n{LAYERS_GRAMMAR}"))
        }
        other => Error::Usage(format!("--{other}; {LAYERS_GRAMMAR}")),
    })
}

/// Whether some setting was asked for that none of `policies` has.
pub(crate) fn refused_by_all(asked: &Settings, policies: &[Policy]) -> bool {
    let mut taken = Settings::default();
    for &policy in policies {
        let Settings { token_budget, recent_ratio, sinks, top_mass, layers, .. } = applicable(asked, policy);
        taken.token_budget = taken.token_budget.or(token_budget);
        taken.recent_ratio = taken.recent_ratio.or(recent_ratio);
        taken.sinks = taken.sinks.or(sinks);
        taken.top_mass = taken.top_mass.or(top_mass);
        taken.layers = taken.layers.or(layers);
    }
    taken != *asked
}

/// What of `asked` the policy has.
pub(crate) fn applicable(asked: &Settings, policy: Policy) -> Settings {
    let Some(rule) = policy.rule().select else {
        return Settings { policy: Some(policy), ..Settings::default() };
    };
    Settings {
        policy: Some(policy),
        recent_ratio: asked.recent_ratio.filter(|_| matches!(rule.recent_ratio, Knob::Default(_))),
        sinks: asked.sinks.filter(|_| matches!(rule.sinks, Knob::Default(_))),
        top_mass: asked.top_mass.filter(|_| rule.top_mass.is_some()),
        ..asked.clone()
    }
}

/// What `flags`, completed by the model's own settings, come to for the model.
///
/// # Errors
/// A usage error where a flag is to blame, a failure that names lim.json where that is.
pub(crate) fn resolve(
    flags: &Settings,
    file: Option<&Settings>,
    hint: &ModelHint<'_>,
    page_size: PageSize,
) -> Result<Attention> {
    let settings = flags.clone().or_else(file.cloned().unwrap_or_default());
    settings.resolve(hint, page_size).map_err(|error| explain(error, flags))
}

fn explain(error: SelectError, flags: &Settings) -> Error {
    let given = |setting: &str| match setting {
        "token_budget" => flags.token_budget.is_some(),
        "recent_ratio" => flags.recent_ratio.is_some(),
        "sinks" => flags.sinks.is_some(),
        "top_mass" => flags.top_mass.is_some(),
        _ => flags.layers.is_some(),
    };
    let flag = |setting: &str| format!("--{}", setting.replace('_', "-"));
    match error {
        SelectError::NotApplicable { setting, policy, reason } if given(setting) => {
            let flag = flag(setting);
            let rest = match policy {
                _ if setting == "top_mass" => "or choose --attention topp",
                Policy::Full => "or choose a policy that selects, such as --attention lim",
                _ => "or choose a policy that has it, such as --attention lim",
            };
            Error::Usage(format!(
                "{flag} does not go with --attention {policy}: {reason}; leave out {flag}, {rest}"
            ))
        }
        SelectError::Value { setting, got, must } if given(setting) => {
            Error::Usage(format!("{} is {got}, must be {must}", flag(setting)))
        }
        SelectError::Plan(reason) if flags.layers.is_some() => Error::Usage(format!("--layers: {reason}")),
        other => Error::Failed(format!("the model's lim.json: {other}")),
    }
}

/// The settings in one line, as reports print them.
pub(crate) fn describe(attention: &Attention) -> String {
    let report = attention.report();
    let Some(quota) = attention.quota() else { return format!("{}: every token", report.policy) };
    let mut parts = Vec::new();
    for (count, what) in [(quota.sinks, "first"), (quota.history, "ranked"), (quota.window, "recent")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let most = match report.top_mass {
        Some(share) => format!("{share} of every head's attention in at most "),
        None => String::new(),
    };
    format!(
        "{}: {most}{} tokens ({}); {}",
        report.policy,
        quota.budget(),
        parts.join(" + "),
        layers(&report.dense_layers, &report.select_layers, attention.plan().roles().len())
    )
}

fn layers(dense: &[usize], select: &[usize], all: usize) -> String {
    let dense = if dense.is_empty() { String::new() } else { format!("dense layers {}, ", ranges(dense)) };
    if select.len() == all {
        "chosen in every layer".into()
    } else {
        format!("{dense}chosen in layers {}", ranges(select))
    }
}

/// `0-1,5` of `[0, 1, 5]`.
pub(crate) fn ranges(layers: &[usize]) -> String {
    layers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run[0].to_string(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINT: ModelHint<'_> = ModelHint { model_type: "qwen3", name: "", layers: 8, hidden: 64 };

    fn message(settings: Settings, file: Option<&Settings>) -> (u8, String) {
        let error = resolve(&settings, file, &HINT, PageSize::default()).expect_err("to be refused");
        (error.exit_code(), error.to_string())
    }

    #[test]
    fn a_setting_counts_for_the_policies_that_have_it() {
        let asked = Settings { sinks: Some(2), recent_ratio: Some(0.5), ..Settings::default() };
        assert!(!refused_by_all(&asked, &[Policy::Full, Policy::Lim]));
        assert!(refused_by_all(&asked, &[Policy::Full, Policy::Streaming]));
        let streaming = applicable(&asked, Policy::Streaming);
        assert_eq!((streaming.sinks, streaming.recent_ratio), (Some(2), None));
        assert_eq!(applicable(&asked, Policy::Full).sinks, None);
    }

    #[test]
    fn a_flag_without_meaning_is_bad_usage() {
        let flags = Settings { policy: Some(Policy::Full), token_budget: Some(64), ..Settings::default() };
        let (code, text) = message(flags, None);
        assert_eq!(code, 2);
        assert!(
            text.starts_with("--token-budget does not go with --attention full: it reads every token"),
            "{text}"
        );
        assert!(text.contains("--attention lim"), "{text}");
    }

    #[test]
    fn a_bad_model_file_is_a_failure() {
        let file = Settings { recent_ratio: Some(2.0), ..Settings::default() };
        let (code, text) = message(Settings::default(), Some(&file));
        assert_eq!(code, 1);
        assert!(text.contains("lim.json") && text.contains("recent_ratio is 2"), "{text}");
    }

    #[test]
    fn flags_override_the_model_file() {
        let file = Settings { token_budget: Some(128), sinks: Some(0), ..Settings::default() };
        let flags = Settings { token_budget: Some(64), ..Settings::default() };
        let attention = resolve(&flags, Some(&file), &HINT, PageSize::default()).expect("valid");
        assert_eq!(
            describe(&attention),
            "lim: 64 tokens (48 ranked + 16 recent); dense layers 0-1, chosen in layers 2-3"
        );
    }

    #[test]
    fn layer_errors_underline_the_part() {
        let error = parse_layers("dense=0,reuse=1").expect_err("no such key");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("\n  dense=0,reuse=1\n          ^^^^^\n"), "{error}");
    }

    #[test]
    fn ranges_are_joined() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }
}
