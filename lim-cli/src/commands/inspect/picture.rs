//! Which positions every select layer kept over the steps of one sequence: a panel a layer.

use lim_model::Trace;

use crate::grid::{self, Panel};

/// Cells of a panel at most; beyond that several positions or steps share one.
const COLUMNS: usize = 240;
const ROWS: usize = 160;

/// The picture; `title` names the model and its setting.
pub(super) fn svg(trace: &Trace, prompt: usize, title: &str) -> String {
    let panels: Vec<Panel> =
        (0..trace.layers.len()).map(|layer| panel(trace, prompt, title, layer)).collect();
    grid::svg(&panels)
}

fn panel(trace: &Trace, prompt: usize, title: &str, layer: usize) -> Panel {
    let (tokens, steps) = (trace.ids.len(), trace.steps.len());
    let (columns, rows) = (tokens.min(COLUMNS), steps.min(ROWS));
    let cells = (0..rows).flat_map(|row| {
        let of_row = part(row, rows, steps);
        (0..columns).map(move |column| share(trace, layer, of_row.clone(), part(column, columns, tokens)))
    });
    let first = trace.steps.first().map_or(0, |step| step.len);
    let label = |at: usize| at.to_string();
    let x_ticks =
        ticks(0, tokens).into_iter().map(|t| ((t as f64 + 0.5) * columns as f64 / tokens as f64, label(t)));
    let y_ticks = ticks(first, first + steps)
        .into_iter()
        .map(|len| (((len - first) as f64 + 0.5) * rows as f64 / steps as f64, label(len)));
    let words =
        |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    Panel {
        title: format!("{title}: what layer {} kept", trace.layers[layer]),
        subtitle: format!(
            "prompt 0-{}, answer behind it; {} of what it could choose was ever kept, {} of a choice is new to the step",
            prompt.saturating_sub(1),
            words(trace.ever_kept(Some(layer))),
            words(trace.turnover(layer))
        ),
        x_label: "position of the token (white: first, recent or not there yet)",
        y_label: "cached tokens of the step",
        scale_label: "kept",
        columns,
        cells: cells.collect(),
        least: 0.0,
        x_ticks: x_ticks.collect(),
        y_ticks: y_ticks.collect(),
        framed: Vec::new(),
        note: String::new(),
    }
}

/// The `index`-th of `parts` equal parts of `0..all`.
fn part(index: usize, parts: usize, all: usize) -> std::ops::Range<usize> {
    index * all / parts..(index + 1) * all / parts
}

/// How much of some positions some steps kept, of what they could; `None` where they could choose none.
fn share(
    trace: &Trace,
    layer: usize,
    steps: std::ops::Range<usize>,
    positions: std::ops::Range<usize>,
) -> Option<f64> {
    let (sinks, window) = (trace.quota.sinks, trace.quota.window);
    let (mut kept, mut all) = (0usize, 0usize);
    for step in &trace.steps[steps] {
        for position in positions.start.max(sinks)..positions.end.min(step.len.saturating_sub(window)) {
            kept += usize::from(step.keeps(layer, position));
            all += 1;
        }
    }
    (all > 0).then(|| kept as f64 / all as f64)
}

/// At most ten round numbers within `start..end`.
fn ticks(start: usize, end: usize) -> Vec<usize> {
    let least = (end - start).div_ceil(10).max(1);
    let step = (0..).flat_map(|power| [1, 2, 5].map(|m| m * 10usize.pow(power))).find(|&step| step >= least);
    let step = step.unwrap_or(least);
    (start.div_ceil(step) * step..end).step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0, 1000), [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert_eq!(ticks(129, 300), [140, 160, 180, 200, 220, 240, 260, 280]);
        assert_eq!(ticks(5, 7), [5, 6]);
    }

    #[test]
    fn parts_cover_everything_once() {
        for (parts, all) in [(300, 1000), (3, 3), (160, 161)] {
            let covered: Vec<usize> = (0..parts).flat_map(|index| part(index, parts, all)).collect();
            assert_eq!(covered, (0..all).collect::<Vec<_>>());
        }
    }
}
