//! What `bench` writes: one row a test and policy, as markdown, JSON or CSV.

use std::fmt::Write;

use lim_model::{Sparsity, Usage};
use lim_select::{Policy, Report as Attention};
use serde::Serialize;

use super::plan::Test;

/// Everything one run measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) device: String,
    pub(super) dtype: &'static str,
    /// Read bandwidth measured in this run.
    pub(super) read_gb_per_s: f64,
    pub(super) attention: Vec<Attention>,
    pub(super) tests: Vec<Row>,
}

/// One test under one policy.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// llama-bench's name: `pp512`, `tg128`, `tg128 @ d4096`.
    pub(super) test: String,
    pub(super) policy: &'static str,
    pub(super) batch: usize,
    pub(super) n_prompt: usize,
    pub(super) n_gen: usize,
    pub(super) depth: usize,
    pub(super) repeats: usize,
    /// Over all sequences.
    pub(super) tokens_per_s: f64,
    /// Sample standard deviation over the repeats; 0 for a single one.
    pub(super) tokens_per_s_sd: f64,
    /// Milliseconds per decode step, or of the whole prefill.
    pub(super) ms_per_step: f64,
    /// Weight and KV bytes that decode read, per second; a prefill is bound by arithmetic and has none.
    pub(super) gb_per_s: Option<f64>,
    /// `gb_per_s` over [`Report::read_gb_per_s`].
    pub(super) read_share: Option<f64>,
    /// Tokens read per step, sequence and layer.
    pub(super) attended_tokens: Option<f64>,
    /// Cached tokens per step and sequence.
    pub(super) context_tokens: Option<f64>,
}

impl Row {
    /// Sums up the repeats of a test. `weights`: bytes of weights that a decode step reads. `read`: gigabytes a second
    /// that this machine reads.
    pub(super) fn new(test: Test, policy: Policy, runs: &[Usage], weights: u64, read: f64) -> Self {
        let (n_prompt, n_gen, depth) = match test {
            Test::Prefill { tokens, depth } => (tokens, 0, depth),
            Test::Decode { tokens, depth, .. } => (0, tokens, depth),
        };
        let decodes = n_gen > 0;
        let speeds: Vec<f64> = runs
            .iter()
            .map(Usage::timing)
            .map(|t| if decodes { t.decode_tokens_per_s } else { t.prefill_tokens_per_s })
            .collect();
        let (tokens_per_s, tokens_per_s_sd) = mean_sd(&speeds);
        let seconds: f64 =
            runs.iter().map(|r| if decodes { r.totals.decode_s } else { r.totals.prefill_s }).sum();
        let steps: u64 = runs.iter().map(|r| if decodes { r.totals.decode_steps } else { 1 }).sum();
        let bytes: u64 =
            runs.iter().map(|r| r.totals.decode_steps * weights + r.sparsity().kv_bytes_read).sum();
        let gb_per_s = decodes.then(|| bytes as f64 / seconds / 1e9);
        let mean = |part: fn(Sparsity) -> f64| {
            decodes.then(|| runs.iter().map(|r| part(r.sparsity())).sum::<f64>() / runs.len() as f64)
        };
        Row {
            test: test.name(),
            policy: policy.name(),
            batch: test.batch(),
            n_prompt,
            n_gen,
            depth,
            repeats: runs.len(),
            tokens_per_s,
            tokens_per_s_sd,
            ms_per_step: seconds / steps as f64 * 1e3,
            gb_per_s,
            read_share: gb_per_s.map(|g| g / read),
            attended_tokens: mean(|s| s.mean_attended_tokens),
            context_tokens: mean(|s| s.mean_context_tokens),
        }
    }
}

impl Report {
    /// A table as llama-bench prints it.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::from(
            "| test | policy | batch | t/s | ms/step | GB/s | of read | attended |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for row in &self.tests {
            let Row { test, policy, batch, tokens_per_s, tokens_per_s_sd, ms_per_step, .. } = row;
            let gb = or_dash(row.gb_per_s, |g| format!("{g:.1}"));
            let share = or_dash(row.read_share, |s| format!("{:.0}%", s * 100.0));
            let attended = or_dash(row.attended_tokens, |t| format!("{t:.0}"));
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "| {test} | {policy} | {batch} | {tokens_per_s:.2} ± {tokens_per_s_sd:.2} | {ms_per_step:.2} | {gb} | \
                 {share} | {attended} |"
            );
        }
        out
    }

    /// One line a row; an empty field where a test has no such figure.
    pub(super) fn csv(&self) -> String {
        let mut out = String::from(
            "model,device,dtype,read_gb_per_s,test,policy,batch,n_prompt,n_gen,depth,repeats,tokens_per_s,\
             tokens_per_s_sd,ms_per_step,gb_per_s,read_share,attended_tokens,context_tokens\n",
        );
        for row in &self.tests {
            let fields = [
                quoted(&self.model),
                quoted(&self.device),
                self.dtype.into(),
                self.read_gb_per_s.to_string(),
                quoted(&row.test),
                row.policy.into(),
                row.batch.to_string(),
                row.n_prompt.to_string(),
                row.n_gen.to_string(),
                row.depth.to_string(),
                row.repeats.to_string(),
                row.tokens_per_s.to_string(),
                row.tokens_per_s_sd.to_string(),
                row.ms_per_step.to_string(),
                row.gb_per_s.map_or(String::new(), |v| v.to_string()),
                row.read_share.map_or(String::new(), |v| v.to_string()),
                row.attended_tokens.map_or(String::new(), |v| v.to_string()),
                row.context_tokens.map_or(String::new(), |v| v.to_string()),
            ];
            out.push_str(&fields.join(","));
            out.push('\n');
        }
        out
    }
}

fn or_dash(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// RFC 4180: quotes around, quotes inside doubled.
fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// Mean and sample standard deviation.
pub(super) fn mean_sd(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = Row {
            test: "tg8 @ d16".into(),
            policy: "lim",
            batch: 2,
            n_prompt: 0,
            n_gen: 8,
            depth: 16,
            repeats: 3,
            tokens_per_s: 12.5,
            tokens_per_s_sd: 0.25,
            ms_per_step: 160.0,
            gb_per_s: None,
            read_share: Some(0.5),
            attended_tokens: Some(16.4),
            context_tokens: Some(20.5),
        };
        Report {
            model: "a \"b\"".into(),
            device: "cpu (2 threads, avx2)".into(),
            dtype: "bf16",
            read_gb_per_s: 25.0,
            attention: Vec::new(),
            tests: vec![row],
        }
    }

    #[test]
    fn deviation_is_that_of_a_sample() {
        let (mean, sd) = mean_sd(&[1.0, 2.0, 4.0]);
        assert!((mean - 7.0 / 3.0).abs() < 1e-12);
        assert!((sd - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_sd(&[3.0]), (3.0, 0.0));
    }

    #[test]
    fn markdown_has_as_many_cells_in_every_line() {
        let text = report().markdown();
        let cells: Vec<usize> = text.lines().map(|l| l.matches('|').count()).collect();
        assert_eq!(cells, [9, 9, 9]);
        assert!(text.contains("| tg8 @ d16 | lim | 2 | 12.50 ± 0.25 | 160.00 | - | 50% | 16 |"), "{text}");
    }

    #[test]
    fn csv_quotes_names_and_leaves_missing_figures_empty() {
        let text = report().csv();
        let row = text.lines().nth(1).expect("a row");
        assert!(
            row.starts_with("\"a \"\"b\"\"\",\"cpu (2 threads, avx2)\",bf16,25,\"tg8 @ d16\",lim,2,"),
            "{row}"
        );
        assert!(row.ends_with(",160,,0.5,16.4,20.5"), "{row}");
    }
}
