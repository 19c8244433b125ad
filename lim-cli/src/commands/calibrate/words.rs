//! A calibration in words.

use super::report::{Budget, Figures, Report, Worst};

/// What the table's columns mean.
pub(super) const LEGEND: &str = "\
kept: attention of the layers that read a chosen set which falls on that set, mean over those layers, their heads and the \
measured steps. worst layer, worst head: the same of the layer and of the head that keep least. least: of any layer, head and \
step. read of context: tokens that a layer reads a step, of those cached, mean over layers; a layer marked s reads the keys of \
all to choose. best N: the N select layers that keep the most attention.
";

/// What to use, why, and how it compares.
pub(super) fn advice(report: &Report) -> String {
    let Some(budget) = report.budgets.first() else { return String::new() };
    let Budget { token_budget, chosen, default, .. } = budget;
    let mut out =
        format!("Use --layers {} with --token-budget {token_budget}: {}.\n", report.layers, report.goal);
    out += &format!("{}\n", keeps("Its layers", chosen));
    if chosen.layers == default.layers {
        out += "That is what the model selects at by default.\n";
    } else {
        out += &format!("{}\n", keeps(&format!("The default layers, {},", default.layers), default));
        out += &match (chosen.kept - default.kept) * 100.0 {
            more if more >= 0.05 => format!("The choice keeps {more:.1} points more than the default"),
            less if less <= -0.05 => format!("The choice keeps {:.1} points less than the default", -less),
            _ => "The choice keeps as much as the default".into(),
        };
        let read = |figures: &Figures| figures.mean_attended_tokens.round();
        out += &match (read(chosen), read(default)) {
            (a, b) if a == b => ", and reads as much.\n".into(),
            (a, b) if a < b => format!(", and reads {:.0} tokens fewer a layer and step.\n", b - a),
            (a, b) => format!(", and reads {:.0} tokens more a layer and step.\n", a - b),
        };
        let setting = |figures: &Figures| format!("lim:{token_budget}:{}", figures.layers);
        out += &format!(
            "What is kept is no answer yet. Compare answers: lim-cli eval FILE.jsonl --attention full,{},{}\n",
            setting(default),
            setting(chosen)
        );
    }
    out
}

fn keeps(subject: &str, figures: &Figures) -> String {
    let (Some(layer), Some(head)) = (figures.worst_layer, figures.worst_head) else {
        return format!("{subject} read everything.");
    };
    format!(
        "{subject} that read a chosen set keep {} of their attention in the mean: layer {} least, {}; of all heads head {} of \
         layer {} least, {}.",
        percent(figures.kept),
        layer.layer,
        percent(layer.kept),
        head.head.unwrap_or_default(),
        head.layer,
        percent(head.kept)
    )
}

/// What a budget's table is about.
pub(super) fn measured(budget: &Budget) -> String {
    let Budget { token_budget, steps, mean_context_tokens, .. } = budget;
    format!(
        "K = {token_budget}, {steps} steps measured, of {mean_context_tokens:.0} cached tokens in the mean:\n"
    )
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// `93.1% (7, head 3)`.
pub(super) fn worst(worst: Worst) -> String {
    let Worst { layer, head, kept } = worst;
    match head {
        None => format!("{} ({layer})", percent(kept)),
        Some(head) => format!("{} ({layer}, head {head})", percent(kept)),
    }
}
