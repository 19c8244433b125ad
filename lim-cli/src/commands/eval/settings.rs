//! The settings that one run compares: `--attention full,lim,tidal:128:dense=0-1,select=2,5 --token-budget 64,128`.

use lim_select::{Attention, Policy, Settings};

use crate::args::EvalArgs;
use crate::error::{Error, Result};
use crate::open::Opened;
use crate::policy;

/// One way to decode.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// `full`, `lim:128`, `tidal:128:dense=0-1,select=2,5`: what `--attention` takes, and unique in a run.
    pub(super) label: String,
    /// The same without the budget: settings that differ in nothing else.
    pub(super) series: String,
    pub(super) attention: Attention,
}

/// One entry of `--attention`.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// `None` for the model's own.
    policy: Option<Policy>,
    budget: Option<usize>,
    layers: Option<String>,
}

/// The model's own setting.
const DEFAULT: &str = "default";

/// Settings in order: entries of `--attention`, each with the budgets it is to be taken with.
///
/// # Errors
/// When an entry does not follow the grammar, a setting does not go with any of them, or two come to the same.
pub(super) fn settings(args: &EvalArgs, opened: &Opened) -> Result<Vec<Setting>> {
    let page_size = args.model.page_size;
    let entries = entries(&args.attention)?;
    let own = opened.attention(&Settings::default(), page_size)?.policy();
    let policies: Vec<Policy> = entries.iter().map(|entry| entry.policy.unwrap_or(own)).collect();
    let knobs = policy::from_flags(None, &args.knobs.budget())?;
    let asked = Settings { token_budget: args.token_budget.first().copied(), ..knobs.clone() };
    // Asked of none of them: resolving says which, and why.
    let refused = policy::refused_by_all(&asked, &policies);

    let mut settings: Vec<Setting> = Vec::new();
    for (entry, &policy) in entries.iter().zip(&policies) {
        let sweeps = policy.rule().select.is_some() || refused;
        let budgets: Vec<Option<usize>> = match entry.budget {
            None if sweeps && !args.token_budget.is_empty() => {
                args.token_budget.iter().copied().map(Some).collect()
            }
            given => vec![given],
        };
        for token_budget in budgets {
            let taken = if refused { knobs.clone() } else { policy::applicable(&knobs, policy) };
            let layers = entry.layers.as_deref().map(policy::parse_layers).transpose()?.or(taken.layers);
            let flags = Settings { policy: entry.policy, token_budget, layers, ..taken };
            let attention = opened.attention(&flags, page_size)?;
            let written = entry.layers.as_deref().or(args.knobs.layers.as_deref());
            let setting = Setting::new(attention, written);
            if settings.iter().any(|other| other.label == setting.label) {
                return Err(Error::Usage(format!(
                    "--attention and --token-budget give {} twice",
                    setting.label
                )));
            }
            settings.push(setting);
        }
    }
    Ok(settings)
}

impl Setting {
    fn new(attention: Attention, layers: Option<&str>) -> Self {
        let name = attention.policy().name();
        let Some(quota) = attention.quota() else {
            return Setting { label: name.into(), series: name.into(), attention };
        };
        let layers = layers.map_or(String::new(), |layers| format!(":{layers}"));
        let (label, series) = (format!("{name}:{}{layers}", quota.budget()), format!("{name}{layers}"));
        Setting { label, series, attention }
    }
}

/// Commas part entries and, in an entry's layers, layers: a part that names no policy goes on with those.
fn entries(text: &str) -> Result<Vec<Entry>> {
    let mut texts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let name = part.split(':').next().unwrap_or(part);
        match texts.last_mut() {
            _ if name == DEFAULT || name.parse::<Policy>().is_ok() => texts.push(part.to_owned()),
            Some(last) if last.matches(':').count() == 2 => {
                last.push(',');
                last.push_str(part);
            }
            _ => {
                let known: Vec<&str> = Policy::ALL.iter().map(|p| p.name()).chain([DEFAULT]).collect();
                return Err(Error::Usage(format!(
                    "--attention: `{name}` is no policy; there are {}",
                    known.join(", ")
                )));
            }
        }
    }
    texts.iter().map(|text| entry(text)).collect()
}

fn entry(text: &str) -> Result<Entry> {
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or(text);
    let budget = match parts.next() {
        None | Some("") => None,
        Some(number) => Some(number.parse().map_err(|_| {
            Error::Usage(format!(
                "--attention {text}: `{number}` is no token budget; write POLICY:K or POLICY:K:LAYERS"
            ))
        })?),
    };
    Ok(Entry { policy: name.parse().ok(), budget, layers: parts.next().map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_layers_part_no_entries() {
        let read =
            entries("full,tidal:128:dense=0-1,select=2,5,lim:64,default,lim::select=2s").expect("valid");
        let entry = |policy, budget, layers: Option<&str>| Entry {
            policy,
            budget,
            layers: layers.map(str::to_owned),
        };
        assert_eq!(
            read,
            [
                entry(Some(Policy::Full), None, None),
                entry(Some(Policy::Tidal), Some(128), Some("dense=0-1,select=2,5")),
                entry(Some(Policy::Lim), Some(64), None),
                entry(None, None, None),
                entry(Some(Policy::Lim), None, Some("select=2s")),
            ]
        );
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for (text, word) in [("lime", "`lime`"), ("full,5", "`5`"), ("lim:x", "`x`"), ("", "``")] {
            let error = entries(text).expect_err(text).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
