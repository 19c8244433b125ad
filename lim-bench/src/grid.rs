//! What `lim-cli eval` found for policies and budgets, as Markdown: a row a policy, a column a budget.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Deserialize;

/// `report.json` of `lim-cli eval`; other fields are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Eval {
    /// Model that answered.
    pub model: String,
    /// Where it ran.
    pub device: String,
    /// Element type.
    pub dtype: String,
    /// Which problems, and how many.
    pub problems: String,
    /// A row for every setting and group of problems.
    pub rows: Vec<EvalRow>,
}

/// Figures of one setting over a group of problems.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct EvalRow {
    /// `POLICY`, `POLICY:K` or `POLICY:K:LAYERS`.
    pub setting: String,
    /// Task, none for all problems.
    pub group: Option<String>,
    /// Share of right answers, 0 to 1.
    pub pass_at_1: f64,
    /// Tokens of an answer.
    pub mean_tokens: f64,
    /// Share of answers that were cut off, 0 to 1.
    pub truncated: f64,
    /// Cached tokens, mean over decode steps and layers.
    pub mean_context_tokens: f64,
    /// Tokens read of these.
    pub mean_attended_tokens: f64,
}

/// A setting's policy and layers, and its budget.
fn parts(setting: &str) -> ((&str, &str), Option<usize>) {
    let mut parts = setting.splitn(3, ':');
    let policy = parts.next().unwrap_or_default();
    let budget = parts.next().and_then(|k| k.parse().ok());
    ((policy, parts.next().unwrap_or("")), budget)
}

/// Two tables with the same rows and columns: right answers by task; and length, truncations and tokens read. Ends in a
/// newline.
pub fn render(eval: &Eval) -> String {
    let mut tasks: Vec<&str> = Vec::new();
    let mut policies: Vec<(&str, &str)> = Vec::new();
    let mut budgets = BTreeSet::new();
    for row in &eval.rows {
        let (policy, budget) = parts(&row.setting);
        budgets.extend(budget);
        if !policies.contains(&policy) {
            policies.push(policy);
        }
        if let Some(task) = row.group.as_deref().filter(|task| !tasks.contains(task)) {
            tasks.push(task);
        }
    }
    let mut out = format!("{}, {}, {}; {}.\n", eval.model, eval.dtype, eval.device, eval.problems);
    let mut grid = |title: String, cell: &dyn Fn(&str) -> Option<String>| {
        let columns: String = budgets.iter().map(|k| format!(" K = {k} |")).collect();
        let _ = writeln!(out, "\n{title}\n\n| policy | layers |{columns}");
        let _ = writeln!(out, "| --- | --- |{}", " --- |".repeat(budgets.len()));
        for &(policy, layers) in &policies {
            let _ = write!(out, "| {policy} | {} |", if layers.is_empty() { "default" } else { layers });
            for k in &budgets {
                let named = if layers.is_empty() {
                    format!("{policy}:{k}")
                } else {
                    format!("{policy}:{k}:{layers}")
                };
                // `full` has no budget: its one cell stands in every column.
                let text = cell(&named).or_else(|| cell(policy)).unwrap_or_else(|| "-".into());
                let _ = write!(out, " {text} |");
            }
            out.push('\n');
        }
    };
    let found = |setting: &str, group: Option<&str>| {
        eval.rows.iter().find(|row| row.setting == setting && row.group.as_deref() == group)
    };
    grid(format!("Right answers, % ({}):", tasks.join(" / ")), &|setting| {
        let share =
            |task: &&str| found(setting, Some(task)).map(|row| format!("{:.0}", 100.0 * row.pass_at_1));
        tasks
            .iter()
            .map(share)
            .collect::<Option<Vec<_>>>()
            .filter(|cells| !cells.is_empty())
            .map(|c| c.join(" / "))
    });
    grid("Tokens of an answer (% cut off), tokens read of those cached:".into(), &|setting| {
        found(setting, None).map(|row| {
            let EvalRow { mean_tokens, truncated, mean_attended_tokens, mean_context_tokens, .. } = row;
            let cut = if *truncated > 0.0 { format!(" ({:.0}%)", 100.0 * truncated) } else { String::new() };
            format!("{mean_tokens:.0}{cut}, {mean_attended_tokens:.0} of {mean_context_tokens:.0}")
        })
    });
    out
}
