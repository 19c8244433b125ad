//! Reports on stderr, one aligned line a subject.

use crate::console::Console;
use crate::output::{Check, Sample, Sampling, Sparsity, Timing};

impl Console {
    /// A subject and what is to be said about it.
    pub(crate) fn item(self, subject: &str, text: impl std::fmt::Display) {
        self.note(format_args!("{subject:<10} {text}"));
    }
}

/// What drawing looks like, without what is off.
pub(crate) fn sampling(s: &Sampling) -> String {
    let mut parts = Vec::new();
    if s.temperature == 0.0 {
        parts.push("greedy".to_owned());
    } else {
        parts.push(format!("temperature {}", s.temperature));
        parts.extend((s.top_k > 0).then(|| format!("top-k {}", s.top_k)));
        parts.extend((s.top_p < 1.0).then(|| format!("top-p {}", s.top_p)));
        parts.extend((s.min_p > 0.0).then(|| format!("min-p {}", s.min_p)));
        parts.push(format!("seed {}", s.seed));
    }
    parts.extend(
        (s.repetition_penalty != 1.0).then(|| format!("repetition penalty {}", s.repetition_penalty)),
    );
    parts.extend((s.presence_penalty != 0.0).then(|| format!("presence penalty {}", s.presence_penalty)));
    parts.extend((s.frequency_penalty != 0.0).then(|| format!("frequency penalty {}", s.frequency_penalty)));
    parts.push(format!("at most {} new tokens", s.max_new_tokens));
    parts.extend((s.samples > 1).then(|| format!("{} samples", s.samples)));
    let from = if s.from_model.is_empty() {
        String::new()
    } else {
        format!(" (from generation_config.json: {})", s.from_model.join(", "))
    };
    parts.join(", ") + &from
}

/// Speeds of the two phases. `prompt` and `generated`: tokens.
pub(crate) fn timing(console: Console, prompt: usize, generated: usize, t: &Timing) {
    console.item("prefill", format_args!("{prompt} tokens, {:.1} tokens/s", t.prefill_tokens_per_s));
    console.item("decode", format_args!("{generated} tokens, {:.1} tokens/s", t.decode_tokens_per_s));
}

/// What decoding read against what dense attention would have read. Says nothing where nothing was decoded.
pub(crate) fn sparsity(console: Console, s: &Sparsity) {
    if s.kv_bytes_dense == 0 {
        return;
    }
    console.item(
        "attended",
        format_args!(
            "{:.0} of {:.0} tokens (means over steps and layers), {} selections",
            s.mean_attended_tokens, s.mean_context_tokens, s.selections
        ),
    );
    console.item(
        "KV read",
        format_args!(
            "{}, {:.0}% of the {} that dense attention reads",
            bytes(s.kv_bytes_read),
            100.0 * s.kv_bytes_read as f64 / s.kv_bytes_dense as f64,
            bytes(s.kv_bytes_dense)
        ),
    );
}

/// How a sample ended, and for a demo problem whether it was solved.
pub(crate) fn ending(console: Console, sample: &Sample) {
    match sample.finish_reason {
        "stop" => {}
        "length" => console.item("ended", "at --max-new-tokens"),
        "context" => console.item("ended", "at the end of the model's context"),
        other => console.item("ended", other),
    }
    if let Some(check) = &sample.check {
        answer(console, check);
    }
}

fn answer(console: Console, check: &Check) {
    let Check { expected, answer, correct, .. } = check;
    match answer {
        _ if *correct => console.item("answer", format_args!("{expected}: right")),
        Some(answer) => console.item("answer", format_args!("{answer}: wrong, it is {expected}")),
        None => console.item("answer", format_args!("none was given; it is {expected}")),
    }
}

/// `12.3 MB`: decimal units, three digits or so.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `596.0 M`: parameters.
pub(crate) fn millions(count: u64) -> String {
    if count < 1_000_000_000 {
        format!("{:.1} M", count as f64 / 1e6)
    } else {
        format!("{:.2} G", count as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_decimal_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(14_800_000), "14.8 MB");
        assert_eq!(bytes(2_000_000_000_000), "2.0 TB");
    }

    #[test]
    fn sampling_names_only_what_is_on() {
        let greedy = Sampling {
            temperature: 0.0,
            top_k: 20,
            top_p: 0.9,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 1,
            samples: 1,
            max_new_tokens: 8,
            stop: Vec::new(),
            ignore_eos: false,
            from_model: Vec::new(),
        };
        assert_eq!(sampling(&greedy), "greedy, at most 8 new tokens");
        let drawn = Sampling { temperature: 0.5, samples: 2, from_model: vec!["top_k", "top_p"], ..greedy };
        assert_eq!(
            sampling(&drawn),
            "temperature 0.5, top-k 20, top-p 0.9, seed 1, at most 8 new tokens, 2 samples \
             (from generation_config.json: top_k, top_p)"
        );
    }
}
