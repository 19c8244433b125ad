//! Pictures of a calibration: what every layer keeps on every earlier layer's set, and what it misses under the choice.

use super::report::{Budget, Layer, Report};
use crate::chart::{self, GREY, Line, Point, Scale};
use crate::grid::{self, cell_ticks};

/// A matrix a budget, the pairs of the choice framed.
pub(super) fn heat(report: &Report) -> String {
    let panels: Vec<grid::Panel> = report.budgets.iter().map(|budget| heat_panel(report, budget)).collect();
    grid::svg(&panels)
}

fn heat_panel(report: &Report, budget: &Budget) -> grid::Panel {
    let cells: Vec<Option<f64>> = budget.mean.iter().flatten().copied().collect();
    let least = cells.iter().flatten().copied().fold(1.0, f64::min);
    let chosen = budget.chosen.by_layer.iter().enumerate();
    let layers = budget.mean.len();
    grid::Panel {
        title: format!(
            "{}: attention kept on another layer's set, K = {}",
            report.about.model, budget.token_budget
        ),
        subtitle: format!(
            "{}; mean over heads and {} steps of {:.0} cached tokens",
            report.about.prompts, budget.steps, budget.mean_context_tokens
        ),
        note: format!("framed: {}", budget.chosen.layers),
        x_label: "layer that reads the set",
        y_label: "layer that selects it",
        scale_label: "attention kept",
        columns: layers,
        cells,
        // A whole tenth.
        least: (least * 10.0).floor().min(9.0) / 10.0,
        x_ticks: cell_ticks(layers),
        y_ticks: cell_ticks(layers),
        framed: chosen.filter_map(|(reader, layer)| Some((layer.reads?, reader))).collect(),
    }
}

/// A panel a budget: what each layer misses under the choice, and under what it was compared with.
pub(super) fn layers(report: &Report) -> String {
    let panels: Vec<chart::Panel> =
        report.budgets.iter().map(|budget| layers_panel(report, budget)).collect();
    chart::svg(&panels)
}

fn layers_panel(report: &Report, budget: &Budget) -> chart::Panel {
    let Budget { chosen, default, most_kept, token_budget, steps, mean_context_tokens, .. } = budget;
    let same = chosen.layers == default.layers;
    let mut drawn = vec![(if same { "chosen, default" } else { "chosen" }, chosen, chart::colour(1))];
    drawn.extend((!same).then_some(("default", default, GREY)));
    if most_kept.layers != chosen.layers && most_kept.layers != default.layers {
        drawn.push(("most kept", most_kept, chart::colour(3)));
    }
    let mut lines = Vec::new();
    // The choice last, over the others.
    for &(name, figures, colour) in drawn.iter().rev() {
        let line = |name: Option<&str>, dashed, kept: &dyn Fn(&Layer) -> f64| {
            let missed = |layer| 100.0 * (1.0 - kept(layer)).max(0.0);
            let layers = figures.by_layer.iter().enumerate();
            let points = layers.map(|(x, layer)| Point { x: x as f64, y: missed(layer), error: 0.0 });
            Line { name: name.map(str::to_owned), colour, dashed, points: points.collect() }
        };
        lines.push(line(Some(name), false, &|layer| layer.kept));
        lines.push(line(None, true, &Layer::worst_head));
    }
    lines.push(Line { name: Some("worst head".into()), colour: GREY, dashed: true, points: Vec::new() });
    let settings: Vec<String> =
        drawn.iter().map(|(name, figures, _)| format!("{name}: {}", figures.layers)).collect();
    chart::Panel {
        title: format!("{}: attention missed by layer, K = {token_budget}", report.about.model),
        subtitle: format!("{}; {steps} steps of {mean_context_tokens:.0} tokens", settings.join("; ")),
        x_label: "layer",
        y_label: "attention missed (%)",
        x_scale: Scale::Whole,
        x_range: None,
        y_max: 0.0,
        lines,
    }
}
