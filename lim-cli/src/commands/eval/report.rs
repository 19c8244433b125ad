//! What `eval` writes: tables as markdown, the same as JSON, and two plots.

use std::fmt::Write;

use lim_select::Report as Attention;
use serde::Serialize;

use super::stats::Row;
use crate::chart::{self, GREY, Line, Panel, Point};
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
        let samples = match self.sampling.samples {
            1 => "one sample each".to_owned(),
            n => format!("{n} samples each"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}, {samples}; {}.\n", self.problems, crate::report::sampling(&self.sampling));
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
        // The powers of two that the axis will end at.
        let from = first.log2().floor();
        let ends = [from, last.log2().ceil().max(from + 1.0)].map(f64::exp2);

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
