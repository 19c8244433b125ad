//! A calibration in words.

use super::choose::By;
use super::report::{Budget, Figures, Report, Worst};

/// What the table's columns mean.
pub(super) const LEGEND: &str = "\
divergence: of what the model would say next from what full attention says, in nats (Kullback-Leibler), mean over steps. other \
token: steps in which the likeliest token is another. kept: attention of the layers that read a chosen set which falls on \
that set, mean over those layers, their heads and steps. worst layer, worst head: the same of the layer and of the head that \
keep least. least: of any layer, head and step. read of context: tokens that a layer reads a step, of those cached, mean over \
layers; a layer marked s reads the keys of all to choose. most kept, N: the N select layers that keep the most attention.
";

/// What to use, why, and how it compares.
pub(super) fn advice(report: &Report) -> String {
    let Some(budget) = report.budgets.first() else { return String::new() };
    let Budget { token_budget, chosen, default, most_kept, .. } = budget;
    let mut out =
        format!("Use --layers {} with --token-budget {token_budget}: {}", report.layers, report.goal);
    out += match report.by {
        By::Count(_) => ", those with which the model's next words are nearest to full attention's.\n",
        By::Floor(_) => ".\n",
    };
    out += &format!("{}\n", says("With them", chosen, budget));
    if chosen.layers == default.layers {
        out += "They are what the model selects at by default.\n";
    } else {
        out += &format!("{}\n", says(&format!("With the default, {},", default.layers), default, budget));
    }
    if most_kept.layers != chosen.layers && most_kept.layers != default.layers {
        let subject = format!("With {}, which keeps the most attention,", most_kept.layers);
        out += &format!("{}\n", says(&subject, most_kept, budget));
    }
    if chosen.layers != default.layers {
        let setting = |figures: &Figures| format!("lim:{token_budget}:{}", figures.layers);
        out += &format!(
            "Compare answers: lim-cli eval FILE.jsonl --attention full,{},{}\n",
            setting(default),
            setting(chosen)
        );
    }
    out
}

fn says(subject: &str, figures: &Figures, budget: &Budget) -> String {
    let mut parts = Vec::new();
    if let Some(diverges) = figures.diverges {
        parts.push(format!(
            "what the model would say is {} nats from full attention, and in {} of the steps the likeliest token is another",
            nats(diverges.mean),
            percent(diverges.changed)
        ));
    }
    parts.push(match (figures.worst_layer, figures.worst_head) {
        (Some(layer), Some(head)) => format!(
            "layers that read a chosen set keep {} of their attention (layer {}, the worst, {}; head {} of layer {}, the worst, {})",
            percent(figures.kept),
            layer.layer,
            percent(layer.kept),
            head.head.unwrap_or_default(),
            head.layer,
            percent(head.kept)
        ),
        _ => "every layer reads everything".into(),
    });
    let (read, of) = (figures.mean_attended_tokens, budget.mean_context_tokens);
    parts.push(format!("a layer reads {read:.0} of {of:.0} tokens in the mean"));
    format!("{subject} {}.", parts.join("; "))
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

pub(super) fn nats(divergence: f64) -> String {
    match divergence {
        // Less is rounding.
        zero if zero.abs() < 1e-12 => "0".into(),
        small if small < 1e-3 => format!("{small:.1e}"),
        other => format!("{other:.4}"),
    }
}

/// `93.1% (7, head 3)`.
pub(super) fn worst(worst: Worst) -> String {
    let Worst { layer, head, kept } = worst;
    match head {
        None => format!("{} ({layer})", percent(kept)),
        Some(head) => format!("{} ({layer}, head {head})", percent(kept)),
    }
}
