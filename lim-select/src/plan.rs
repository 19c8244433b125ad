//! What each layer of a model does in decode.

use crate::{Error, Layers, Result};

/// What a layer's attention reads, and whether it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Dense,
    /// Makes the selection that this layer (if own-sparse) and the layers after it read.
    Select {
        /// What it reads itself.
        own: Own,
    },
    /// What the last select layer before it has selected.
    Reuse,
}

/// What a select layer reads itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Everything; its scores come out of that attention.
    Dense,
    /// Only what it has just selected.
    Sparse,
}

/// One role per layer. No layer reuses before one has selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    roles: Vec<Role>,
}

impl Plan {
    /// Every layer dense.
    pub fn dense(layers: usize) -> Self {
        Plan { roles: vec![Role::Dense; layers] }
    }

    /// Every layer selects and reads its own selection.
    pub fn every_layer(layers: usize) -> Self {
        Plan { roles: vec![Role::Select { own: Own::Sparse }; layers] }
    }

    /// Roles of a model of `count` layers: those `layers` names, dense before the first select layer, reuse after.
    ///
    /// # Errors
    /// When `layers` names a layer that the model has not.
    pub fn new(layers: &Layers, count: usize) -> Result<Self> {
        let mut roles: Vec<Option<Role>> = vec![None; count];
        for (layer, role) in layers.iter() {
            let Some(slot) = roles.get_mut(layer) else {
                return Err(Error::Plan(format!("no layer {layer} in a model of {count} layers")));
            };
            *slot = Some(role);
        }
        let mut unnamed = Role::Dense;
        let mut fill = |role: Option<Role>| {
            if let Some(Role::Select { .. }) = role {
                unnamed = Role::Reuse;
            }
            role.unwrap_or(unnamed)
        };
        Ok(Plan { roles: roles.into_iter().map(&mut fill).collect() })
    }

    /// Roles, first layer first.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Dense layers, ascending.
    pub fn dense_layers(&self) -> Vec<usize> {
        self.layers_where(|role| role == Role::Dense)
    }

    /// Select layers, ascending.
    pub fn select_layers(&self) -> Vec<usize> {
        self.layers_where(|role| matches!(role, Role::Select { .. }))
    }

    /// The layers that do not reuse, as `--layers` takes them; `None` where none selects.
    pub fn layers(&self) -> Option<Layers> {
        let select = self.roles.iter().enumerate().filter_map(|(layer, role)| match role {
            Role::Select { own } => Some((layer, *own)),
            _ => None,
        });
        Layers::new(self.dense_layers(), select).ok()
    }

    /// For every layer the select layer whose set it reads; `None` where it reads everything.
    pub fn sources(&self) -> Vec<Option<usize>> {
        let mut last = None;
        let source = |(layer, role): (usize, &Role)| match role {
            Role::Dense => None,
            Role::Select { own } => {
                last = Some(layer);
                last.filter(|_| *own == Own::Sparse)
            }
            Role::Reuse => last,
        };
        self.roles.iter().enumerate().map(source).collect()
    }

    fn layers_where(&self, is: impl Fn(Role) -> bool) -> Vec<usize> {
        self.roles.iter().enumerate().filter(|&(_, &role)| is(role)).map(|(layer, _)| layer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_before_the_first_select_layer_reuse_after() {
        let layers: Layers = "dense=4,select=2,5s".parse().expect("valid");
        let plan = Plan::new(&layers, 7).expect("fits");
        let select = |own| Role::Select { own };
        assert_eq!(
            plan.roles(),
            [
                Role::Dense,
                Role::Dense,
                select(Own::Dense),
                Role::Reuse,
                Role::Dense,
                select(Own::Sparse),
                Role::Reuse
            ]
        );
        assert_eq!(plan.dense_layers(), [0, 1, 4]);
        assert_eq!(plan.select_layers(), [2, 5]);
        let named = plan.layers().expect("some select");
        assert_eq!(named.to_string(), "dense=0-1,4,select=2,5s");
        assert_eq!(Plan::new(&named, 7).expect("fits"), plan);
        assert_eq!(Plan::dense(3).layers(), None);
        assert_eq!(plan.sources(), [None, None, None, Some(2), None, Some(5), Some(5)]);
    }

    #[test]
    fn names_the_layer_that_is_not_there() {
        let layers: Layers = "select=2,12".parse().expect("valid");
        let error = Plan::new(&layers, 12).expect_err("12 layers are 0 to 11");
        assert_eq!(error.to_string(), "layers: no layer 12 in a model of 12 layers");
    }
}
