//! run.json: all that results depend on. A directory holds the results of one configuration.

use lim_kernels::PageSize;
use serde_json::{Map, Value, json};

use super::settings::Setting;
use crate::open::Opened;
use crate::output::Sampling;

/// What a run is made of.
pub(super) struct Config<'a> {
    pub(super) opened: &'a Opened,
    pub(super) device: &'a str,
    pub(super) page_size: PageSize,
    pub(super) sampling: &'a Sampling,
    pub(super) settings: &'a [Setting],
    /// Problems in words.
    pub(super) source: &'a str,
    pub(super) problems: usize,
    /// Of all prompts' ids and references.
    pub(super) checksum: u64,
    /// How prompts are put to the model.
    pub(super) form: &'static str,
    pub(super) thinking_budget: Option<usize>,
    pub(super) text: bool,
}

impl Config<'_> {
    pub(super) fn json(&self) -> Value {
        let Config { opened, sampling: s, .. } = self;
        let setting = |setting: &Setting| {
            let roles: Vec<String> =
                setting.attention.plan().roles().iter().map(|role| format!("{role:?}")).collect();
            json!({"setting": setting.label, "attention": setting.attention.report(), "roles": roles})
        };
        json!({
            "model": {"name": opened.name, "family": opened.config.family.name(),
                      "parameters": opened.config.parameters(), "dtype": opened.dtype.name()},
            "device": without_threads(self.device),
            "page_size": self.page_size.tokens(),
            "problems": {"source": self.source, "count": self.problems, "prompts": self.form,
                         "checksum": format!("{:016x}", self.checksum)},
            "sampling": {"samples": s.samples, "temperature": plain(s.temperature), "top_k": s.top_k, "top_p": plain(s.top_p),
                         "min_p": plain(s.min_p), "repetition_penalty": plain(s.repetition_penalty),
                         "presence_penalty": plain(s.presence_penalty), "frequency_penalty": plain(s.frequency_penalty),
                         "seed": s.seed, "max_new_tokens": s.max_new_tokens, "stop": s.stop,
                         "ignore_eos": s.ignore_eos, "thinking_budget": self.thinking_budget},
            "text": self.text,
            "settings": self.settings.iter().map(setting).collect::<Vec<_>>(),
        })
    }
}

/// The number of threads changes no result.
fn without_threads(device: &str) -> String {
    let Some((name, rest)) = device.split_once(" (") else { return device.to_owned() };
    let parts: Vec<&str> = rest.split(", ").filter(|part| !part.contains("thread")).collect();
    format!("{name} ({}", parts.join(", "))
}

/// A number as it was written: 0.9, not the binary fraction nearest to it.
fn plain(number: f32) -> Value {
    serde_json::from_str(&number.to_string()).unwrap_or(Value::Null)
}

/// FNV-1a (Fowler, Noll, Vo) of `parts`, each with its length.
pub(super) fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    parts.fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        let length = (part.len() as u64).to_le_bytes();
        length.iter().chain(part).fold(hash, |hash, byte| step(hash, *byte))
    })
}

/// What differs between the configuration in a directory and this run's, by name.
pub(super) fn differences(there: &Value, here: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(String::new(), there, here, &mut found);
    found
}

fn compare(name: String, there: &Value, here: &Value, found: &mut Vec<String>) {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let of = |object: &Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                compare(within(key), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(format!("{name}[{index}]"), a, b, found);
            }
        }
        _ if there == here => {}
        _ => found.push(format!("{name} is {} there, {} here", short(there), short(here))),
    }
}

/// A value in a message.
fn short(value: &Value) -> String {
    if let Value::Array(items) = value {
        let labels = items.iter().filter_map(|item| item.get("setting")?.as_str());
        let labels: Vec<&str> = labels.collect();
        if !labels.is_empty() {
            return labels.join(",");
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let there =
            json!({"a": 1, "sampling": {"seed": 0, "top_k": 1}, "settings": [{"setting": "full"}], "old": 1});
        let here = json!({"a": 1, "sampling": {"seed": 7, "top_k": 1},
                          "settings": [{"setting": "full"}, {"setting": "lim:64"}], "new": true});
        assert_eq!(
            differences(&there, &here),
            [
                "sampling.seed is 0 there, 7 here",
                "settings is full there, full,lim:64 here",
                "old is 1 there, null here",
                "new is null there, true here"
            ]
        );
        assert!(differences(&there, &there).is_empty());
    }

    #[test]
    fn devices_are_the_same_with_any_number_of_threads() {
        assert_eq!(without_threads("cpu (2 threads, avx2)"), "cpu (avx2)");
        assert_eq!(without_threads("cuda:0 (NVIDIA H200)"), "cuda:0 (NVIDIA H200)");
    }

    #[test]
    fn the_checksum_is_fnv_and_sees_where_parts_end() {
        let sum = |parts: &[&[u8]]| checksum(parts.iter().copied());
        assert_eq!(sum(&[]), 0xcbf2_9ce4_8422_2325);
        assert_ne!(sum(&[b"ab", b"c"]), sum(&[b"a", b"bc"]));
    }
}
