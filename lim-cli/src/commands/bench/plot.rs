//! Step time against context: a panel for every batch, a line for every policy, dashed its byte limit.

use super::table::{Report, Row};
use crate::chart::{self, GREY, Line, Panel, Point, Scale};

/// The plot; `None` where the report has no decode test.
pub(super) fn svg(report: &Report) -> Option<String> {
    let decodes = || report.tests.iter().filter(|row| row.n_gen > 0);
    let mut panels: Vec<(usize, usize)> = Vec::new();
    for row in decodes() {
        if !panels.contains(&(row.batch, row.n_gen)) {
            panels.push((row.batch, row.n_gen));
        }
    }
    let panel = |&(batch, n_gen): &(usize, usize)| {
        let rows: Vec<&Row> = decodes().filter(|row| (row.batch, row.n_gen) == (batch, n_gen)).collect();
        let sequences = if batch == 1 { "one sequence".to_owned() } else { format!("{batch} sequences") };
        Panel {
            title: format!("{}, {}, {}", report.model, report.dtype, report.device),
            subtitle: format!(
                "{sequences}, means over {n_gen} steps; byte limit: weights and KV that were read, at {:.1} GB/s",
                report.read_gb_per_s
            ),
            x_label: "cached tokens a sequence (1k = 1024, log scale)",
            y_label: "time of a decode step (ms)",
            x_scale: Scale::Log,
            x_range: None,
            y_max: 0.0,
            lines: lines(&rows),
        }
    };
    (!panels.is_empty()).then(|| chart::svg(&panels.iter().map(panel).collect::<Vec<_>>()))
}

/// Two lines a policy: what was measured, and what reading the same bytes takes.
fn lines(rows: &[&Row]) -> Vec<Line> {
    let mut policies: Vec<&str> = Vec::new();
    for row in rows {
        if !policies.contains(&row.policy) {
            policies.push(row.policy);
        }
    }
    let mut lines = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let mut rows: Vec<_> = rows
            .iter()
            .filter(|row| row.policy == policy)
            .filter_map(|row| Some((row.context_tokens?.max(1.0), row.ms_per_step, row.read_share?)))
            .collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let point = |x, y| Point { x, y, error: 0.0 };
        let measured = rows.iter().map(|&(x, ms, _)| point(x, ms)).collect();
        let limit = rows.iter().map(|&(x, ms, share)| point(x, ms * share)).collect();
        let (name, colour) = (Some(policy.to_owned()), chart::colour(index));
        lines.push(Line { name, colour, dashed: false, points: measured });
        lines.push(Line { name: None, colour, dashed: true, points: limit });
    }
    lines.push(Line { name: Some("byte limit".into()), colour: GREY, dashed: true, points: Vec::new() });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: &'static str, batch: usize, tokens: f64, ms: f64) -> Row {
        Row {
            test: String::new(),
            policy,
            batch,
            n_prompt: 0,
            n_gen: 8,
            depth: 0,
            repeats: 1,
            tokens_per_s: 1.0,
            tokens_per_s_sd: 0.0,
            ms_per_step: ms,
            gb_per_s: Some(1.0),
            read_share: Some(0.5),
            attended_tokens: Some(1.0),
            context_tokens: Some(tokens),
        }
    }

    fn report(tests: Vec<Row>) -> Report {
        let (model, device) = ("a<b>&c".to_owned(), "cpu".to_owned());
        Report { model, device, dtype: "bf16", read_gb_per_s: 10.0, attention: Vec::new(), tests }
    }

    #[test]
    fn a_panel_a_batch_and_two_lines_a_policy() {
        let rows = [1, 4].into_iter().flat_map(|batch| {
            ["full", "lim"].into_iter().flat_map(move |policy| {
                [4096.0, 100.0].map(|tokens| row(policy, batch, tokens, tokens / 1000.0))
            })
        });
        let text = svg(&report(rows.collect())).expect("decode tests");
        assert_eq!(text.matches("<g ").count(), 2);
        assert_eq!(text.matches("<polyline ").count(), 2 * 2 * 2);
        assert_eq!(text.matches("<circle ").count(), 2 * 2 * 2);
        assert_eq!(text.matches("byte limit</text>").count(), 2);
        assert!(
            text.contains("a&lt;b&gt;&amp;c") && text.contains("(ms)") && text.contains(">4k<"),
            "{text}"
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(text.matches('<').count(), text.matches('>').count());
    }

    #[test]
    fn a_single_point_has_axes() {
        let text = svg(&report(vec![row("full", 1, 1.0, 0.02)])).expect("a decode test");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(svg(&report(Vec::new())).is_none());
    }
}
