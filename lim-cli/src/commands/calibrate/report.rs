//! What `calibrate` finds, and how it is written: JSON and tables as markdown.

use std::fmt::Write;

use lim_model::{Kept, Recall};
use lim_select::{Layers, Plan};
use serde::Serialize;

use super::choose::{By, Diverges, Found, Goal, Tried};
use super::words;
use crate::error::{Error, Result};
use crate::output::Sampling;

/// What was measured on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct About {
    pub(super) model: String,
    pub(super) device: String,
    pub(super) dtype: &'static str,
    /// In words.
    pub(super) prompts: String,
    pub(super) sampling: Sampling,
    pub(super) sequences: usize,
    pub(super) generated_tokens: usize,
}

/// Everything a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) about: About,
    #[serde(skip)]
    pub(super) by: By,
    /// The same in words.
    pub(super) goal: String,
    /// Chosen for the first budget.
    pub(super) layers: Layers,
    pub(super) budgets: Vec<Budget>,
}

/// One budget's figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Budget {
    pub(super) token_budget: usize,
    /// Measured steps: those with more cached tokens.
    pub(super) steps: usize,
    pub(super) mean_context_tokens: f64,
    pub(super) chosen: Figures,
    /// The layers that the model selects at without a choice.
    pub(super) default: Figures,
    /// Those that keep the most attention for the same goal.
    pub(super) most_kept: Figures,
    /// The 1, 2, .. select layers that keep the most attention.
    pub(super) counts: Vec<Figures>,
    /// What was tried last.
    pub(super) tried: Vec<Tried>,
    /// `[select layer][reading layer]`, null where the reading layer comes first: mean over heads and steps, the worst
    /// head's mean over steps, the least of any head and step.
    pub(super) mean: Matrix,
    pub(super) worst_head: Matrix,
    pub(super) least: Matrix,
}

pub(super) type Matrix = Vec<Vec<Option<f64>>>;

/// What some choice of layers keeps and reads.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) layers: Layers,
    /// Where it was tried.
    pub(super) diverges: Option<Diverges>,
    /// Mean over the layers that read a chosen set, their heads and steps.
    pub(super) kept: f64,
    pub(super) worst_layer: Option<Worst>,
    pub(super) worst_head: Option<Worst>,
    /// Of any layer, head and step.
    pub(super) least: f64,
    pub(super) mean_attended_tokens: f64,
    pub(super) by_layer: Vec<Layer>,
}

/// Where least is kept in the mean over steps.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Worst {
    pub(super) layer: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<usize>,
    pub(super) kept: f64,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Layer {
    /// The select layer whose set it reads; null where it reads everything.
    pub(super) reads: Option<usize>,
    pub(super) kept: f64,
    pub(super) least: f64,
    /// By query head.
    pub(super) heads: Vec<f64>,
}

impl Report {
    /// The figures of a run.
    ///
    /// # Errors
    /// When there is no budget.
    pub(super) fn new(about: About, goal: Goal, budgets: Vec<Budget>) -> Result<Self> {
        let layers = budgets.first().map(|budget| budget.chosen.layers.clone());
        let layers = layers.ok_or_else(|| Error::usage("--token-budget names no budget"))?;
        Ok(Report { about, by: goal.by, goal: goal.describe(), layers, budgets })
    }

    /// For stdout.
    pub(super) fn text(&self) -> String {
        let mut out = words::advice(self);
        for budget in &self.budgets {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{}\n{}", words::measured(budget), budget.table());
        }
        out + "\n" + words::LEGEND
    }

    /// report.md.
    pub(super) fn markdown(&self, plots: &[&str]) -> String {
        let About { model, dtype, device, prompts, sampling, sequences, generated_tokens } = &self.about;
        let sampling = crate::report::sampling(sampling);
        let mut out = format!(
            "# {model}, {dtype}, {device}\n\n{prompts}; {sampling}. {sequences} sequences, {generated_tokens} tokens \
             generated under full attention.\n\n"
        );
        out.push_str(&self.text());
        for plot in plots {
            let _ = write!(out, "\n![{plot}]({plot})\n");
        }
        for budget in &self.budgets {
            let (tokens, by_layer, tried) = (budget.token_budget, budget.by_layer(), budget.tried());
            let _ =
                write!(out, "\n## Layers at K = {tokens}\n\n{by_layer}\n## Tried at K = {tokens}\n\n{tried}");
        }
        out
    }
}

impl Budget {
    /// The figures of the `index`-th budget of `recall`.
    ///
    /// # Errors
    /// When the model has not the layers that `goal` asks for.
    pub(super) fn new(
        index: usize,
        goal: Goal,
        default: Layers,
        recall: &Recall,
        found: Found,
    ) -> Result<Self> {
        let (mass, layers) = (recall.kept_mass(index), recall.layers());
        let Found { chosen, by_kept, tried } = found;
        let figures = |of: Layers| {
            let plan = Plan::new(&of, layers).map_err(lim_model::Error::from)?;
            let diverges = tried.iter().find(|tried| tried.layers == of).map(|tried| tried.diverges);
            Ok::<_, Error>(Figures::new(of, diverges, recall.kept(index, &plan)))
        };
        let matrix = |of: &dyn Fn(usize, usize) -> f64| {
            let row =
                |select| (0..layers).map(|reader| (select <= reader).then(|| of(select, reader))).collect();
            (0..layers).map(row).collect()
        };
        Ok(Budget {
            token_budget: recall.quota(index).budget(),
            steps: recall.steps(index),
            mean_context_tokens: recall.context(index),
            chosen: figures(chosen)?,
            default: figures(default)?,
            most_kept: figures(by_kept)?,
            counts: goal.by_count(&mass)?.into_iter().map(figures).collect::<Result<_>>()?,
            mean: matrix(&|select, reader| recall.mean(index, select, reader)),
            worst_head: matrix(&|select, reader| recall.worst_head(index, select, reader).1),
            least: matrix(&|select, reader| recall.least(index, select, reader)),
            tried,
        })
    }

    fn table(&self) -> String {
        let head = [
            "",
            "layers",
            "divergence",
            "other token",
            "kept",
            "worst layer",
            "worst head",
            "least",
            "read of context",
        ];
        let mut out = line(head.iter().map(|cell| (*cell).to_owned()));
        out += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
        let counts =
            self.counts.iter().enumerate().map(|(i, figures)| (format!("most kept, {}", i + 1), figures));
        let rows = [("chosen".to_owned(), &self.chosen), ("default".to_owned(), &self.default)];
        for (name, figures) in rows.into_iter().chain(counts) {
            let Figures {
                layers, diverges, kept, worst_layer, worst_head, least, mean_attended_tokens, ..
            } = figures;
            let worst = |worst: &Option<Worst>| worst.map_or_else(|| "-".to_owned(), words::worst);
            out += &line(
                [
                    name,
                    format!("`{layers}`"),
                    diverges.map_or_else(|| "-".to_owned(), |d| words::nats(d.mean)),
                    diverges.map_or_else(|| "-".to_owned(), |d| words::percent(d.changed)),
                    words::percent(*kept),
                    worst(worst_layer),
                    worst(worst_head),
                    words::percent(*least),
                    format!("{mean_attended_tokens:.0} of {:.0}", self.mean_context_tokens),
                ]
                .into_iter(),
            );
        }
        out
    }

    /// What was tried last, the nearest to full attention first.
    fn tried(&self) -> String {
        let mut tried: Vec<&Tried> = self.tried.iter().collect();
        tried.sort_by(|a, b| a.diverges.mean.total_cmp(&b.diverges.mean));
        let mut out = "| layers | divergence | other token |\n| --- | ---: | ---: |\n".to_owned();
        for Tried { layers, diverges } in tried {
            let cells = [format!("`{layers}`"), words::nats(diverges.mean), words::percent(diverges.changed)];
            out += &line(cells.into_iter());
        }
        out
    }

    /// Chosen and default side by side.
    fn by_layer(&self) -> String {
        let mut out = line(
            [
                "layer",
                "chosen reads",
                "kept",
                "worst head",
                "least",
                "default reads",
                "kept",
                "worst head",
                "least",
            ]
            .iter()
            .map(|cell| (*cell).to_owned()),
        );
        out += "| ---: | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: |\n";
        for (layer, (chosen, default)) in self.chosen.by_layer.iter().zip(&self.default.by_layer).enumerate()
        {
            let cells = [chosen, default].into_iter().flat_map(Layer::cells);
            out += &line(std::iter::once(layer.to_string()).chain(cells));
        }
        out
    }
}

impl Figures {
    fn new(layers: Layers, diverges: Option<Diverges>, kept: Kept) -> Self {
        Figures {
            layers,
            diverges,
            kept: kept.mean(),
            worst_layer: kept.worst_layer().map(|(layer, kept)| Worst { layer, head: None, kept }),
            worst_head: kept.worst_head().map(|(layer, head, kept)| Worst { layer, head: Some(head), kept }),
            least: kept.least(),
            mean_attended_tokens: kept.attended,
            by_layer: kept
                .layers
                .into_iter()
                .map(|layer| Layer {
                    reads: layer.source,
                    kept: layer.mean(),
                    least: layer.least,
                    heads: layer.heads,
                })
                .collect(),
        }
    }
}

impl Layer {
    /// The head that keeps least.
    pub(super) fn worst_head(&self) -> f64 {
        self.heads.iter().copied().fold(1.0, f64::min)
    }

    fn cells(&self) -> [String; 4] {
        let Some(source) = self.reads else {
            return ["all".into(), String::new(), String::new(), String::new()];
        };
        let [kept, worst, least] = [self.kept, self.worst_head(), self.least].map(words::percent);
        [format!("set of {source}"), kept, worst, least]
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}
