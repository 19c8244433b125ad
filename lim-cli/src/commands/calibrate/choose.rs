//! What the choice of layers is to reach, and the search for it.

use lim_select::{KeptMass, Layers, Own, Plan};
use serde::Serialize;

use crate::args::GoalArgs;
use crate::error::{Error, Result};

/// Select layers from layer `dense` on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Goal {
    /// Dense layers before.
    pub(super) dense: usize,
    pub(super) by: By,
    /// What select layers read.
    pub(super) own: Own,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum By {
    /// So many select layers, with the most kept.
    Count(usize),
    /// The fewest select layers with so much kept in every layer.
    Floor(f64),
}

/// Most select layers that are compared besides.
const COUNTS: usize = 8;

/// The paper's models read everything in their first two layers.
const DENSE: usize = 2;

impl Goal {
    /// `plan`: the model's own; its number of select layers is the default.
    ///
    /// # Errors
    /// When the model has no such layers, or the floor is no share.
    pub(super) fn new(args: &GoalArgs, plan: &Plan) -> Result<Self> {
        let layers = plan.roles().len();
        let dense = args.dense.unwrap_or(DENSE.min(layers.saturating_sub(1)));
        if dense >= layers {
            return Err(Error::Usage(format!(
                "--dense {dense}: of {layers} layers at least one must select"
            )));
        }
        let room = layers - dense;
        let by = match (args.floor, args.select) {
            (Some(floor), _) if !(0.0..=1.0).contains(&floor) => {
                return Err(Error::Usage(format!("--floor is {floor}, must be from 0 to 1")));
            }
            (Some(floor), _) => By::Floor(floor),
            (None, Some(count)) if !(1..=room).contains(&count) => {
                return Err(Error::Usage(format!(
                    "--select {count}: behind {dense} dense layers the model has room for 1 to {room} select layers"
                )));
            }
            (None, Some(count)) => By::Count(count),
            (None, None) => By::Count(plan.select_layers().len().clamp(1, room)),
        };
        let own = if args.own_sparse { Own::Sparse } else { Own::Dense };
        Ok(Goal { dense, by, own })
    }

    /// The select layers that keep the most, or enough.
    ///
    /// # Errors
    /// When the model has no such layers.
    pub(super) fn place(self, mass: &KeptMass) -> Result<Layers> {
        let Goal { dense, by, own } = self;
        let placement = match by {
            By::Count(count) => mass.place(dense, count, own),
            By::Floor(floor) => mass.place_above(floor, Some(dense), own),
        };
        Ok(placement.and_then(|placement| placement.layers()).map_err(lim_model::Error::from)?)
    }

    /// Chooses. Kept attention says what a floor asks for. A number of select layers is searched for one layer after the
    /// other, by what the model would say: `divergence` of each of a list. In the end what keeps the most attention and
    /// the model's `default` are tried too; that counts where it reads no more. `also`: to be tried for comparison.
    ///
    /// # Errors
    /// When the model has no such layers, or `divergence` fails.
    pub(super) fn search(
        self,
        mass: &KeptMass,
        default: &Layers,
        also: &[Layers],
        mut divergence: impl FnMut(&[Layers]) -> Result<Vec<Diverges>>,
    ) -> Result<Found> {
        let by_kept = self.place(mass)?;
        let By::Count(count) = self.by else {
            let candidates = [&by_kept, default].into_iter().chain(also).cloned().collect();
            let tried = tried(candidates, &mut divergence)?;
            return Ok(Found { chosen: by_kept.clone(), by_kept, tried });
        };
        let full = |layers: &Layers| Ok::<_, Error>(full_reads(&plan(layers, mass)?));
        let counts = full(default)? <= full(&by_kept)?;
        let mut select = vec![self.dense];
        loop {
            let last = select.len() + 1 >= count;
            let mut candidates = match select.len() < count {
                true => (self.dense + 1..mass.layers())
                    .filter(|layer| !select.contains(layer))
                    .map(|layer| self.layers(select.iter().copied().chain([layer])))
                    .collect::<Result<Vec<_>>>()?,
                false => vec![self.layers(select.iter().copied())?],
            };
            if last {
                candidates.push(by_kept.clone());
                candidates.extend(counts.then(|| default.clone()));
            }
            let allowed = candidates.clone();
            if last {
                candidates.push(default.clone());
                candidates.extend_from_slice(also);
            }
            let tried = tried(candidates, &mut divergence)?;
            let best = tried
                .iter()
                .filter(|tried| allowed.contains(&tried.layers))
                .min_by(|a, b| a.diverges.mean.total_cmp(&b.diverges.mean));
            let chosen = best.map_or_else(|| by_kept.clone(), |best| best.layers.clone());
            if last {
                return Ok(Found { chosen, by_kept, tried });
            }
            select = plan(&chosen, mass)?.select_layers();
        }
    }

    /// The dense layers, and select layers in any order.
    fn layers(self, select: impl Iterator<Item = usize>) -> Result<Layers> {
        let layers = Layers::new(0..self.dense, select.map(|layer| (layer, self.own)));
        Ok(layers.map_err(lim_model::Error::from)?)
    }

    /// What keeps the most with 1, 2, .. select layers.
    ///
    /// # Errors
    /// When the model has no such layers.
    pub(super) fn by_count(self, mass: &KeptMass) -> Result<Vec<Layers>> {
        let most = COUNTS.min(mass.layers() - self.dense);
        (1..=most).map(|count| Goal { by: By::Count(count), ..self }.place(mass)).collect()
    }

    /// In words.
    pub(super) fn describe(self) -> String {
        match self.by {
            By::Count(1) => "one select layer".into(),
            By::Count(count) => format!("{count} select layers"),
            By::Floor(floor) => {
                let percent = 100.0 * floor;
                format!(
                    "the fewest select layers with at least {percent}% of its attention kept in every layer"
                )
            }
        }
    }
}

fn plan(layers: &Layers, mass: &KeptMass) -> Result<Plan> {
    Ok(Plan::new(layers, mass.layers()).map_err(lim_model::Error::from)?)
}

/// Layers that attend to everything.
fn full_reads(plan: &Plan) -> usize {
    plan.sources().iter().filter(|source| source.is_none()).count()
}

/// How far a choice of layers is from full attention in what it would say next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Diverges {
    /// Kullback-Leibler divergence in nats, mean over steps.
    pub(super) mean: f64,
    /// Share of steps with another likeliest token.
    pub(super) changed: f64,
}

/// A choice of layers that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Tried {
    pub(super) layers: Layers,
    #[serde(flatten)]
    pub(super) diverges: Diverges,
}

/// What a search has found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) chosen: Layers,
    /// What keeps the most attention.
    pub(super) by_kept: Layers,
    /// What was tried last, the others here among it.
    pub(super) tried: Vec<Tried>,
}

/// Tries each once.
fn tried(
    candidates: Vec<Layers>,
    divergence: &mut impl FnMut(&[Layers]) -> Result<Vec<Diverges>>,
) -> Result<Vec<Tried>> {
    let mut list: Vec<Layers> = Vec::new();
    for candidate in candidates {
        if !list.contains(&candidate) {
            list.push(candidate);
        }
    }
    let diverges = divergence(&list)?;
    Ok(list.into_iter().zip(diverges).map(|(layers, diverges)| Tried { layers, diverges }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: GoalArgs = GoalArgs { select: None, floor: None, dense: None, own_sparse: false };

    fn goal(args: GoalArgs, layers: &str, count: usize) -> Result<Goal> {
        let layers: Layers = layers.parse().expect("valid");
        Goal::new(&args, &Plan::new(&layers, count).expect("fits"))
    }

    #[test]
    fn defaults_are_the_models_own_number_behind_two_dense_layers() {
        let of = |layers, count| goal(ARGS, layers, count).map(|goal| (goal.dense, goal.by)).expect("valid");
        assert_eq!(of("dense=0-1,select=2,5", 8), (2, By::Count(2)));
        assert_eq!(of("select=0-7s", 8), (2, By::Count(6)));
        assert_eq!(of("select=1", 2), (1, By::Count(1)));
        assert_eq!(of("select=0", 1), (0, By::Count(1)));
    }

    #[test]
    fn what_the_model_has_not_is_refused() {
        let refused = |args| goal(args, "select=2", 4).expect_err("to be refused").to_string();
        assert!(refused(GoalArgs { dense: Some(4), ..ARGS }).contains("--dense 4: of 4 layers"));
        assert!(refused(GoalArgs { select: Some(3), ..ARGS }).contains("--select 3: behind 2 dense layers"));
        assert!(refused(GoalArgs { select: Some(0), ..ARGS }).contains("1 to 2"));
        for floor in [-0.1, 1.1, f64::NAN] {
            assert!(refused(GoalArgs { floor: Some(floor), ..ARGS }).contains("--floor is"));
        }
    }

    fn parse(text: &str) -> Layers {
        text.parse().expect("valid")
    }

    /// Divergence falls with every one of `good` layers that selects.
    fn by_count(good: &'static [usize]) -> impl FnMut(&[Layers]) -> Result<Vec<Diverges>> {
        move |list| {
            let select = |layers: &Layers| Plan::new(layers, 8).expect("fits").select_layers();
            let missing =
                |layers: &Layers| good.iter().filter(|l| !select(layers).contains(l)).count() as f64;
            Ok(list.iter().map(|layers| Diverges { mean: missing(layers), changed: 0.0 }).collect())
        }
    }

    /// Only sets of layer 3 are worth something, and layer 6 keeps least of them.
    fn mass() -> KeptMass {
        KeptMass::new(8, |select, reader| if select == 3 && reader < 6 { 0.9 } else { 0.1 })
    }

    #[test]
    fn layers_are_found_by_what_the_model_says() {
        let goal = |count| Goal { dense: 2, by: By::Count(count), own: Own::Dense };
        let default = parse("dense=0-1,select=2,5");
        let found =
            goal(3).search(&mass(), &default, &[parse("select=0-7")], by_count(&[4, 7])).expect("finds");
        assert_eq!(found.chosen, parse("dense=0-1,select=2,4,7"));
        assert_eq!(found.by_kept, goal(3).place(&mass()).expect("fits"));
        // Four layers for the third place, what keeps the most, the default, and what is asked for besides.
        assert_eq!(found.tried.len(), 7);
        for layers in [&found.chosen, &found.by_kept, &default] {
            assert!(found.tried.iter().any(|tried| tried.layers == *layers), "{layers}");
        }
        let one = goal(1).search(&mass(), &default, &[], by_count(&[5])).expect("finds");
        assert_eq!(one.chosen, parse("dense=0-1,select=2"), "the default is better, and reads more");
        let two =
            goal(2).search(&mass(), &parse("dense=0,select=1,5,7"), &[], by_count(&[5, 7])).expect("finds");
        assert_eq!(two.chosen, parse("dense=0,select=1,5,7"), "the default is better, and reads no more");
    }

    #[test]
    fn a_floor_is_one_of_kept_attention() {
        let goal = Goal { dense: 2, by: By::Floor(0.8), own: Own::Dense };
        let found = goal.search(&mass(), &parse("select=2"), &[], by_count(&[7])).expect("finds");
        assert_eq!((found.chosen.clone(), found.tried.len()), (parse("dense=0-1,select=2-3,6-7"), 2));
        assert_eq!(found.chosen, found.by_kept);
    }
}
