//! The layer grammar: what is printed is read back, and nothing makes the parser panic.

use lim_select::{Layers, ModelHint, Own, Plan, Role, default_layers};
use proptest::prelude::*;

fn layers() -> impl Strategy<Value = Layers> {
    let own = prop_oneof![Just(Own::Dense), Just(Own::Sparse)];
    let role = prop_oneof![
        3 => Just(None),
        2 => Just(Some(Role::Dense)),
        2 => own.prop_map(|own| Some(Role::Select { own })),
    ];
    prop::collection::vec(role, 1..40).prop_filter_map("no select layer", |roles| {
        let named = || roles.iter().enumerate().filter_map(|(layer, role)| Some((layer, (*role)?)));
        let dense = named().filter(|&(_, role)| role == Role::Dense).map(|(layer, _)| layer);
        let select = named().filter_map(|(layer, role)| match role {
            Role::Select { own } => Some((layer, own)),
            _ => None,
        });
        Layers::new(dense, select).ok()
    })
}

proptest! {
    #[test]
    fn display_is_read_back(layers in layers()) {
        let text = layers.to_string();
        prop_assert_eq!(text.parse::<Layers>().expect("own text"), layers.clone());
        prop_assert_eq!(serde_json::to_value(&layers).expect("a string"), serde_json::Value::from(text));
    }

    #[test]
    fn plans_never_reuse_before_a_selection(layers in layers(), count in 1..60usize) {
        let last = layers.iter().map(|(layer, _)| layer).max().expect("not empty");
        let plan = Plan::new(&layers, count);
        prop_assert_eq!(plan.is_ok(), last < count);
        let Ok(plan) = plan else { return Ok(()) };
        prop_assert_eq!(plan.roles().len(), count);
        let first = plan.select_layers()[0];
        prop_assert!(plan.roles()[..first].iter().all(|&role| role == Role::Dense));
        prop_assert!(layers.iter().all(|(layer, role)| plan.roles()[layer] == role));
    }

    #[test]
    fn any_text_is_a_plan_or_an_error(text in "([dse=,0-9a-]|dense=|select=|é){0,12}") {
        if let Ok(layers) = text.parse::<Layers>() {
            prop_assert_eq!(layers.to_string().parse::<Layers>().expect("own text"), layers);
        }
    }

    #[test]
    fn every_model_has_default_layers_that_fit(layers in 1..200usize, hidden in 1..9000usize) {
        for model_type in ["qwen3", "qwen2", "llama", "mistral"] {
            let hint = ModelHint { model_type, name: "", layers, hidden };
            Plan::new(&default_layers(&hint).expect("some"), layers).expect("fits");
        }
    }
}
