//! What a user asks for, and what it comes to for one model.

use lim_kernels::{PageSize, Quota};
use serde::{Deserialize, Serialize};

use crate::{
    Budget, Error, Knob, Layers, Mass, ModelHint, Plan, Policy, Result, Role, Schedule, SelectRule,
    budget::with_current, default_layers, defaults::later_layers,
};

/// Attention settings as given: on a command line, or in a `lim.json` beside a model. What is absent is default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Policy; default [`Policy::Lim`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// K.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_budget: Option<usize>,
    /// r.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent_ratio: Option<f64>,
    /// S.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sinks: Option<usize>,
    /// Share of a head's softmax to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_mass: Option<f64>,
    /// Dense and select layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Layers>,
}

/// A `lim.json`: `{"attention": {"policy": "lim", "token_budget": 2048, "layers": "dense=0-1,select=2,12"}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Settings found good for the model.
    pub attention: Settings,
}

impl Settings {
    /// These settings, completed by a model's own.
    ///
    /// A model's settings belong to one policy, so they count only where these ask for that policy or for none.
    pub fn or_else(self, model: Settings) -> Settings {
        let policy = |s: &Settings| s.policy.unwrap_or_default();
        if self.policy.is_some() && policy(&self) != policy(&model) {
            return self;
        }
        Settings {
            policy: self.policy.or(model.policy),
            token_budget: self.token_budget.or(model.token_budget),
            recent_ratio: self.recent_ratio.or(model.recent_ratio),
            sinks: self.sinks.or(model.sinks),
            top_mass: self.top_mass.or(model.top_mass),
            layers: self.layers.or(model.layers),
        }
    }

    /// Fills in the defaults and checks everything against the model and the page size.
    ///
    /// # Errors
    /// When a setting would be ignored or cannot be met; the message names it and says why.
    pub fn resolve(&self, model: &ModelHint<'_>, page_size: PageSize) -> Result<Attention> {
        let policy = self.policy.unwrap_or_default();
        let Some(rule) = policy.rule().select else {
            return self.resolve_dense(policy, model.layers);
        };
        let tokens = self.token_budget.unwrap_or(rule.tokens);
        let ratio = setting("recent_ratio", policy, rule.recent_ratio, self.recent_ratio)?;
        let sinks = setting("sinks", policy, rule.sinks, self.sinks)?;
        let top_mass = top_mass(policy, rule.top_mass, self.top_mass)?;
        let quota = Budget::new(tokens, ratio, sinks)?.quota();
        // Sets that shrink to nothing still hold the current token.
        let quota = if top_mass.is_some() { with_current(quota) } else { quota };
        check_quota(policy, &rule, quota, sinks, page_size)?;
        let plan = match (&self.layers, rule.schedule) {
            (Some(layers), _) => Plan::new(layers, model.layers)?,
            (None, Schedule::Model) => Plan::new(&default_layers(model)?, model.layers)?,
            (None, Schedule::EveryLayer) => Plan::every_layer(model.layers),
            (None, Schedule::LaterLayers) => Plan::new(&later_layers(model.layers)?, model.layers)?,
        };
        let sparse = Sparse {
            policy,
            rule,
            quota,
            recent_ratio: open(rule.recent_ratio, ratio),
            sinks: open(rule.sinks, sinks),
            top_mass,
        };
        Ok(Attention { policy, sparse: Some(sparse), plan })
    }

    fn resolve_dense(&self, policy: Policy, layers: usize) -> Result<Attention> {
        let given = [
            ("token_budget", self.token_budget.is_some()),
            ("recent_ratio", self.recent_ratio.is_some()),
            ("sinks", self.sinks.is_some()),
            ("top_mass", self.top_mass.is_some()),
            ("layers", self.layers.is_some()),
        ];
        match given.into_iter().find(|&(_, given)| given) {
            Some((setting, _)) => {
                Err(Error::NotApplicable { setting, policy, reason: "it reads every token in every layer" })
            }
            None => Ok(Attention { policy, sparse: None, plan: Plan::dense(layers) }),
        }
    }
}

/// A setting's value: as given, or the policy's.
fn setting<T: Copy>(setting: &'static str, policy: Policy, knob: Knob<T>, given: Option<T>) -> Result<T> {
    match (knob, given) {
        (Knob::Default(default), given) => Ok(given.unwrap_or(default)),
        (Knob::Fixed(value, _), None) => Ok(value),
        (Knob::Fixed(_, reason), Some(_)) => Err(Error::NotApplicable { setting, policy, reason }),
    }
}

fn top_mass(policy: Policy, default: Option<f64>, given: Option<f64>) -> Result<Option<f64>> {
    const SETTING: &str = "top_mass";
    match (default, given) {
        (None, Some(_)) => {
            let reason = "its sets have a fixed size, whatever share of the attention they hold";
            Err(Error::NotApplicable { setting: SETTING, policy, reason })
        }
        (_, Some(share)) if !(share > 0.0 && share <= 1.0) => {
            let must = "above 0 and at most 1".into();
            Err(Error::Value { setting: SETTING, got: share.to_string(), must })
        }
        (default, given) => Ok(given.or(default)),
    }
}

/// A value that was open to choice; what a policy fixes is not reported as a setting.
fn open<T>(knob: Knob<T>, value: T) -> Option<T> {
    matches!(knob, Knob::Default(_)).then_some(value)
}

fn check_quota(
    policy: Policy,
    rule: &SelectRule,
    quota: Quota,
    sinks: usize,
    page_size: PageSize,
) -> Result<()> {
    let budget = quota.budget();
    if rule.choice.is_of_pages() && budget < page_size.tokens() {
        let must = format!("at least one page, {} tokens, under policy `{policy}`", page_size.tokens());
        return Err(Error::Value { setting: "token_budget", got: budget.to_string(), must });
    }
    // A rule without history has nothing but sinks and window: the current token must be in the window, and sinks
    // that do not fit may not vanish in silence.
    if rule.choice == crate::Choice::Nothing && sinks >= budget {
        let must = format!("less than token_budget, {budget}, under policy `{policy}`");
        return Err(Error::Value { setting: "sinks", got: sinks.to_string(), must });
    }
    Ok(())
}

/// Checked settings of one model.
#[derive(Clone, Debug)]
pub struct Attention {
    policy: Policy,
    sparse: Option<Sparse>,
    plan: Plan,
}

/// What only sparse policies have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sparse {
    pub(crate) policy: Policy,
    pub(crate) rule: SelectRule,
    pub(crate) quota: Quota,
    recent_ratio: Option<f64>,
    sinks: Option<usize>,
    top_mass: Option<f64>,
}

impl Sparse {
    /// What choices by softmax weights need in a model of this softmax scale.
    pub(crate) fn mass(&self, scale: f32) -> Mass {
        Mass { scale, share: self.top_mass.unwrap_or(1.0) }
    }
}

impl Attention {
    /// Policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Roles of the layers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How the budget is cut; `None` for `full`.
    pub fn quota(&self) -> Option<Quota> {
        self.sparse.map(|s| s.quota)
    }

    /// Role of `layer` in a step whose longest sequence has `max_len` cached tokens.
    ///
    /// Every layer is dense while no sequence exceeds the budget, so that such a step does exactly what `full` does
    /// and costs no more.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn role(&self, layer: usize, max_len: usize) -> Role {
        if self.is_sparse_at(max_len) { self.plan.roles()[layer] } else { Role::Dense }
    }

    /// Whether a step whose longest sequence has `max_len` cached tokens selects at all. A captured step graph is
    /// good for one answer.
    pub fn is_sparse_at(&self, max_len: usize) -> bool {
        self.quota().is_some_and(|quota| max_len > quota.budget())
    }

    /// The settings as JSON output reports them.
    pub fn report(&self) -> Report {
        Report {
            policy: self.policy,
            token_budget: self.quota().map(Quota::budget),
            recent_ratio: self.sparse.and_then(|s| s.recent_ratio),
            sinks: self.sparse.and_then(|s| s.sinks),
            top_mass: self.sparse.and_then(|s| s.top_mass),
            dense_layers: self.plan.dense_layers(),
            select_layers: self.plan.select_layers(),
        }
    }

    pub(crate) fn sparse(&self) -> Option<&Sparse> {
        self.sparse.as_ref()
    }
}

/// The `attention` object of JSON output; `null` where the policy has no such setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Policy.
    pub policy: Policy,
    /// K.
    pub token_budget: Option<usize>,
    /// r.
    pub recent_ratio: Option<f64>,
    /// S as asked for; the budget may leave no room for it.
    pub sinks: Option<usize>,
    /// Share of a head's softmax that sets reach.
    pub top_mass: Option<f64>,
    /// Layers that read everything and select nothing.
    pub dense_layers: Vec<usize>,
    /// Layers that select.
    pub select_layers: Vec<usize>,
}
