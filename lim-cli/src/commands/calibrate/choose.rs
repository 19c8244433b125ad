//! What the choice of layers is to reach.

use lim_select::{KeptMass, Own, Placement, Plan};

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

    /// The best layers for what was measured.
    ///
    /// # Errors
    /// When the model has no such layers.
    pub(super) fn place(self, mass: &KeptMass) -> Result<Placement> {
        let Goal { dense, by, own } = self;
        Ok(match by {
            By::Count(count) => mass.place(dense, count, own),
            By::Floor(floor) => mass.place_above(floor, Some(dense), own),
        }
        .map_err(lim_model::Error::from)?)
    }

    /// In words.
    pub(super) fn describe(self) -> String {
        match self.by {
            By::Count(1) => "the select layer that keeps the most attention".into(),
            By::Count(count) => format!("the {count} select layers that keep the most attention"),
            By::Floor(floor) => {
                format!(
                    "the fewest select layers with at least {}% of its attention kept in every layer",
                    100.0 * floor
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lim_select::Layers;

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
}
