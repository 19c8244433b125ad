//! What `eval` writes: tables as markdown, the same as JSON, and two plots.

use std::fmt::Write;

use lim_select::Report as Attention;
use serde::Serialize;

use super::stats::Row;
use crate::chart::{self, GREY, Line, Panel, Point, Scale};
use crate::output::Sampling;

/// Everything a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) device: String,
    pub(super) dtype: &'static str,
    /// In words.
    pub(super) problems: String,
    pub(super) sampling: Sampling,
    pub(super) settings: Vec<Described>,
    /// Setting by setting: all problems, then each task.
    pub(super) rows: Vec<Row>,
}

/// A setting of the run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Described {
    pub(super) setting: String,
    pub(super) attention: Attention,
    #[serde(skip)]
    pub(super) series: String,
    /// In words.
    #[serde(skip)]
    pub(super) words: String,
}

impl Report {
    /// The table.
    pub(super) fn table(&self) -> String {
        let tasks = self.rows.iter().any(|row| row.group.is_some());
        let votes = self.rows.iter().any(|row| row.majority.is_some());
        let mut head = vec!["setting"];
        head.extend(tasks.then_some("task"));
        head.extend(["problems", "pass@1"]);
        head.extend(votes.then_some("majority"));
        head.extend(["tokens", "p95", "truncated", "ungraded", "attended of context"]);
        let words = 1 + usize::from(tasks);
        let rule = (0..head.len()).map(|i| if i < words { "---" } else { "---:" }.to_owned());
        let mut out = line(head.iter().map(|cell| (*cell).to_owned())) + &line(rule);
        for row in &self.rows {
            let mut cells = vec![row.setting.clone()];
            cells.extend(tasks.then(|| row.group.clone().unwrap_or_else(|| "all".into())));
            cells.extend([row.problems.to_string(), pass(row)]);
            cells.extend(votes.then(|| row.majority.map_or_else(|| "-".to_owned(), percent)));
            cells.extend([format!("{:.0}", row.mean_tokens), row.p95_tokens.to_string()]);
            cells.extend([percent(row.truncated), percent(row.ungraded)]);
            cells.push(match (row.mean_attended_tokens, row.mean_context_tokens) {
                (Some(attended), Some(context)) => format!("{attended:.0} of {context:.0}"),
                _ => "-".into(),
            });
            out.push_str(&line(cells.into_iter()));
        }
        out
    }

    /// report.md.
    pub(super) fn markdown(&self, plots: &[&str]) -> String {
        let mut out = format!("# {}, {}, {}\n\n", self.model, self.dtype, self.device);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}; {}.\n", self.problems, crate::report::sampling(&self.sampling));
        out.push_str(&self.table());
        out.push_str(
            "\npass@1: right answers of a problem's samples, mean over problems ± standard error; what is not graded \
             (`ungraded`) counts as not right. tokens, p95: of an answer. attended of context: tokens read a step, of \
             those cached, means over steps and layers.\n\n",
        );
        for setting in &self.settings {
            let _ = writeln!(out, "- `{}`: {}", setting.setting, setting.words);
        }
        for plot in plots {
            let _ = write!(out, "\n![{plot}]({plot})\n");
        }
        out
    }

    /// Accuracy and length against the budget; `None` where no setting has one.
    pub(super) fn plots(&self) -> Option<[String; 2]> {
        let accuracy = |row: &Row| [row.pass_at_1 * 100.0, row.pass_at_1_se.unwrap_or(0.0) * 100.0];
        let length = |row: &Row| [row.mean_tokens, 0.0];
        let accuracy = self.plot("right answers (%)", 100.0, accuracy)?;
        Some([accuracy, self.plot("tokens of an answer", 0.0, length)?])
    }

    /// A panel for all problems and one for each task. `value`: y and its error.
    fn plot(&self, y_label: &'static str, y_max: f64, value: impl Fn(&Row) -> [f64; 2]) -> Option<String> {
        let budgets: Vec<f64> =
            self.settings.iter().filter_map(|s| s.attention.token_budget).map(|k| k as f64).collect();
        let (first, last) =
            (budgets.iter().copied().reduce(f64::min)?, budgets.iter().copied().reduce(f64::max)?);
        // The axis ends at the next powers of two, so that no point lies on the frame.
        let range = [first / 1.01, last * 1.01];
        let ends = [range[0].log2().floor().exp2(), range[1].log2().ceil().exp2()];

        let mut groups: Vec<Option<&str>> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group.as_deref()) {
                groups.push(row.group.as_deref());
            }
        }
        let panel = |group: Option<&str>| {
            let mut lines: Vec<Line> = Vec::new();
            for setting in &self.settings {
                let is = |row: &&Row| row.setting == setting.setting && row.group.as_deref() == group;
                let Some([y, error]) = self.rows.iter().find(is).map(&value) else { continue };
                let Some(budget) = setting.attention.token_budget else {
                    // Without a budget: the same whatever the budget of the others.
                    let points = ends.map(|x| Point { x, y, error: 0.0 }).to_vec();
                    lines.push(Line {
                        name: Some(setting.series.clone()),
                        colour: GREY,
                        dashed: true,
                        points,
                    });
                    continue;
                };
                let point = Point { x: budget as f64, y, error };
                let name = Some(setting.series.clone());
                match lines.iter_mut().find(|line| line.name == name) {
                    Some(line) => line.points.push(point),
                    None => {
                        let colour = chart::colour(lines.iter().filter(|line| !line.dashed).count());
                        lines.push(Line { name, colour, dashed: false, points: vec![point] });
                    }
                }
            }
            for line in &mut lines {
                line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
            }
            Panel {
                title: format!("{}, {}, {}", self.model, self.dtype, self.device),
                subtitle: group.map_or_else(|| self.problems.clone(), str::to_owned),
                x_label: "token budget (log scale)",
                y_label,
                x_scale: Scale::Log,
                x_range: Some(range),
                y_max,
                lines,
            }
        };
        Some(chart::svg(&groups.into_iter().map(panel).collect::<Vec<_>>()))
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn pass(row: &Row) -> String {
    let error = row.pass_at_1_se.map_or_else(String::new, |se| format!(" ± {:.1}", se * 100.0));
    format!("{:.1}{error}%", row.pass_at_1 * 100.0)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use lim_select::Policy;

    use super::*;

    fn report(budgets: &[Option<usize>], groups: &[Option<&str>]) -> Report {
        let described = |&token_budget: &Option<usize>| {
            let policy = if token_budget.is_some() { Policy::Lim } else { Policy::Full };
            let attention = Attention {
                policy,
                token_budget,
                recent_ratio: None,
                sinks: None,
                top_mass: None,
                dense_layers: Vec::new(),
                select_layers: Vec::new(),
            };
            let setting = format!("{policy}:{token_budget:?}");
            Described { setting, attention, series: policy.to_string(), words: String::new() }
        };
        let settings: Vec<Described> = budgets.iter().map(described).collect();
        let row = |setting: &Described, group: Option<&str>| Row {
            setting: setting.setting.clone(),
            group: group.map(str::to_owned),
            problems: 4,
            samples: 4,
            pass_at_1: 0.75,
            pass_at_1_se: Some(0.25),
            majority: None,
            mean_tokens: 12.4,
            p95_tokens: 20,
            truncated: 0.25,
            ungraded: 0.0,
            mean_context_tokens: Some(100.4),
            mean_attended_tokens: Some(64.0),
        };
        let rows = settings.iter().flat_map(|s| groups.iter().map(move |g| row(s, *g))).collect();
        let sampling = Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            samples: 1,
            max_new_tokens: 8,
            stop: Vec::new(),
            ignore_eos: false,
            from_model: Vec::new(),
        };
        let (model, device, problems) = ("m".to_owned(), "cpu".to_owned(), "4 problems".to_owned());
        Report { model, device, dtype: "bf16", problems, sampling, settings, rows }
    }

    #[test]
    fn tables_have_as_many_cells_in_every_line() {
        let text = report(&[None, Some(64)], &[None, Some("a|b")]).table();
        let cells: Vec<usize> = text.lines().map(|l| l.replace("\\|", "").matches(" | ").count()).collect();
        assert_eq!(cells, [8; 6], "{text}");
        assert!(text.contains("| all | 4 | 75.0 ± 25.0% | 12 | 20 | 25.0% | 0.0% | 64 of 100 |"), "{text}");
        assert!(!report(&[None], &[None]).table().contains("task"));
    }

    #[test]
    fn plots_have_a_panel_a_task_and_a_line_a_series() {
        let report = report(&[None, Some(128), Some(64)], &[None, Some("a")]);
        let [accuracy, length] = report.plots().expect("budgets");
        for plot in [&accuracy, &length] {
            assert_eq!((plot.matches("<g ").count(), plot.matches("<polyline ").count()), (2, 4));
            assert_eq!(plot.matches("<circle ").count(), 2 * 2, "full is a line without marks");
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
        }
        assert!(accuracy.contains("right answers (%)") && length.contains("tokens of an answer"));
        assert!(super::tests::report(&[None], &[None]).plots().is_none());
    }

    #[test]
    fn markdown_shows_the_plots_it_has() {
        let text = report(&[Some(64)], &[None]).markdown(&["accuracy.svg"]);
        assert!(text.starts_with("# m, bf16, cpu\n\n4 problems; greedy, at most 8 new tokens.\n"), "{text}");
        assert!(text.ends_with("![accuracy.svg](accuracy.svg)\n"), "{text}");
    }
}
