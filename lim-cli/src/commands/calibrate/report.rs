//! What `calibrate` finds, and how it is written: JSON and tables as markdown.

use std::fmt::Write;

use lim_model::{Kept, Recall};
use lim_select::{Attention, Layers, Plan};
use serde::Serialize;

use super::choose::{By, Goal};
use super::words;
use crate::error::{Error, Result};
use crate::output::Sampling;

/// Rows of the table of counts.
const COUNTS: usize = 8;

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
    /// Steps from one that is measured to the next.
    pub(super) every: usize,
}

/// Everything a run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) about: About,
    /// What layers were chosen by, in words.
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
    /// The best 1, 2, .. select layers.
    pub(super) counts: Vec<Figures>,
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
    /// Chooses layers at every budget.
    ///
    /// # Errors
    /// When the model has not the layers that `goal` asks for.
    pub(super) fn new(about: About, goal: Goal, settings: &[Attention], recall: &Recall) -> Result<Self> {
        let budgets: Vec<Budget> = settings
            .iter()
            .enumerate()
            .map(|(index, attention)| Budget::new(index, goal, attention.plan(), recall))
            .collect::<Result<_>>()?;
        let layers = budgets.first().map(|budget| budget.chosen.layers.clone());
        let layers = layers.ok_or_else(|| Error::usage("--token-budget names no budget"))?;
        Ok(Report { about, goal: goal.describe(), layers, budgets })
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
        let About { model, dtype, device, prompts, sampling, sequences, generated_tokens, every } =
            &self.about;
        let sampling = crate::report::sampling(sampling);
        let mut out = format!(
            "# {model}, {dtype}, {device}\n\n{prompts}; {sampling}. {sequences} sequences, {generated_tokens} tokens \
             generated under full attention, measured every {every} tokens.\n\n"
        );
        out.push_str(&self.text());
        for plot in plots {
            let _ = write!(out, "\n![{plot}]({plot})\n");
        }
        for budget in &self.budgets {
            let _ = write!(out, "\n## Layers at K = {}\n\n{}", budget.token_budget, budget.by_layer());
        }
        out
    }
}

impl Budget {
    fn new(index: usize, goal: Goal, default: &Plan, recall: &Recall) -> Result<Self> {
        let (mass, layers) = (recall.kept_mass(index), recall.layers());
        let placed = |goal: Goal| {
            let placement = goal.place(&mass)?;
            let layers = placement.layers().map_err(lim_model::Error::from)?;
            let plan = Plan::new(&layers, recall.layers()).map_err(lim_model::Error::from)?;
            Ok::<_, Error>(Figures::new(layers, recall.kept(index, &plan)))
        };
        let own = default.layers().ok_or_else(|| Error::usage("the model's own setting selects nowhere"))?;
        let counts = 1..=COUNTS.min(layers - goal.dense);
        let matrix = |of: &dyn Fn(usize, usize) -> f64| {
            let row =
                |select| (0..layers).map(|reader| (select <= reader).then(|| of(select, reader))).collect();
            (0..layers).map(row).collect()
        };
        Ok(Budget {
            token_budget: recall.quota(index).budget(),
            steps: recall.steps(index),
            mean_context_tokens: recall.context(index),
            chosen: placed(goal)?,
            default: Figures::new(own, recall.kept(index, default)),
            counts: counts
                .map(|count| placed(Goal { by: By::Count(count), ..goal }))
                .collect::<Result<_>>()?,
            mean: matrix(&|select, reader| recall.mean(index, select, reader)),
            worst_head: matrix(&|select, reader| recall.worst_head(index, select, reader).1),
            least: matrix(&|select, reader| recall.least(index, select, reader)),
        })
    }

    fn table(&self) -> String {
        let head = ["", "layers", "kept", "worst layer", "worst head", "least", "read of context"];
        let mut out = line(head.iter().map(|cell| (*cell).to_owned()));
        out += "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
        let counts = self.counts.iter().enumerate().map(|(i, figures)| (format!("best {}", i + 1), figures));
        let rows = [("chosen".to_owned(), &self.chosen), ("default".to_owned(), &self.default)];
        for (name, figures) in rows.into_iter().chain(counts) {
            let Figures { layers, kept, worst_layer, worst_head, least, mean_attended_tokens, .. } = figures;
            let worst = |worst: &Option<Worst>| worst.map_or_else(|| "-".to_owned(), words::worst);
            out += &line(
                [
                    name,
                    format!("`{layers}`"),
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
    fn new(layers: Layers, kept: Kept) -> Self {
        Figures {
            layers,
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
