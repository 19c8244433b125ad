//! Settings: defaults per policy, refusals with their reasons, JSON.

use lim_kernels::{PageSize, Quota};
use lim_select::{Attention, ModelFile, ModelHint, Own, Policy, Result, Role, Settings};
use serde_json::json;

const QWEN3_8B: ModelHint<'static> = ModelHint { model_type: "qwen3", name: "", layers: 36, hidden: 4096 };

fn resolve(settings: &Settings) -> Result<Attention> {
    settings.resolve(&QWEN3_8B, PageSize::default())
}

fn of(policy: Policy) -> Settings {
    Settings { policy: Some(policy), ..Settings::default() }
}

fn refusal(settings: Settings) -> String {
    resolve(&settings).expect_err("refused").to_string()
}

#[test]
fn defaults_of_every_policy() {
    let quota = |policy| resolve(&of(policy)).expect("defaults are valid").quota();
    let parts = |sinks, history, window| Some(Quota { sinks, history, window });
    assert_eq!(quota(Policy::Full), None);
    assert_eq!(quota(Policy::Lim), parts(4, 1536, 508));
    assert_eq!(quota(Policy::Tidal), parts(0, 2048, 0));
    assert_eq!(quota(Policy::Quest), parts(0, 2048, 0));
    assert_eq!(quota(Policy::Seer), parts(0, 2048, 0));
    assert_eq!(quota(Policy::LimLayer), quota(Policy::Lim));
    assert_eq!(quota(Policy::Kascade), parts(0, 2048, 0));
    assert_eq!(quota(Policy::OmniKv), parts(0, 2048, 0));
    assert_eq!(quota(Policy::Delta), parts(0, 1536, 512));
    assert_eq!(quota(Policy::TopP), parts(0, 2047, 1));
    assert_eq!(quota(Policy::Streaming), parts(4, 0, 2044));
    assert_eq!(resolve(&Settings::default()).expect("valid").policy(), Policy::Lim);
}

#[test]
fn schedules_of_every_policy() {
    let roles = |policy| resolve(&of(policy)).expect("valid").plan().roles().to_vec();
    assert_eq!(roles(Policy::Full), [Role::Dense; 36]);
    for policy in [Policy::Tidal, Policy::Kascade, Policy::OmniKv, Policy::Delta, Policy::TopP] {
        assert_eq!(roles(Policy::Lim), roles(policy));
    }
    let later = roles(Policy::LimLayer);
    assert_eq!(later[..2], [Role::Dense; 2]);
    assert_eq!(later[2..], [Role::Select { own: Own::Sparse }; 34]);
    for policy in [Policy::Quest, Policy::Seer, Policy::Streaming] {
        assert_eq!(roles(policy), [Role::Select { own: Own::Sparse }; 36]);
        let some = Settings { layers: Some("dense=0-1,select=2-35s".parse().expect("valid")), ..of(policy) };
        assert_eq!(resolve(&some).expect("valid").plan().dense_layers(), [0, 1]);
    }
}

#[test]
fn every_layer_is_dense_within_the_budget() {
    let attention = resolve(&of(Policy::Lim)).expect("valid");
    assert!(!attention.is_sparse_at(2048) && attention.is_sparse_at(2049));
    assert!((0..36).all(|layer| attention.role(layer, 2048) == Role::Dense));
    assert_eq!(attention.role(3, 2049), Role::Reuse);
}

#[test]
fn refusals_say_why() {
    let layers = "select=2".parse().ok();
    for (settings, message) in [
        (
            Settings { token_budget: Some(64), ..of(Policy::Full) },
            "token_budget does not apply to policy `full`: it reads every token in every layer",
        ),
        (
            Settings { layers, ..of(Policy::Full) },
            "layers does not apply to policy `full`: it reads every token in every layer",
        ),
        (
            Settings { recent_ratio: Some(0.5), ..of(Policy::Streaming) },
            "recent_ratio does not apply to policy `streaming`: the window is always the budget less the sinks",
        ),
        (
            Settings { sinks: Some(4), ..of(Policy::Quest) },
            "sinks does not apply to policy `quest`: it keeps whole pages by score, the first page like any other",
        ),
        (
            Settings { sinks: Some(4), ..of(Policy::Seer) },
            "sinks does not apply to policy `seer`: it keeps whole pages by gate, the first page like any other",
        ),
        (
            Settings { recent_ratio: Some(0.5), ..of(Policy::Seer) },
            "recent_ratio does not apply to policy `seer`: it keeps no window, only the current token's page",
        ),
        (
            Settings { sinks: Some(4), ..of(Policy::Delta) },
            "sinks does not apply to policy `delta`: it keeps whole pages by weight, the first page like any other",
        ),
        (
            Settings { top_mass: Some(0.9), ..of(Policy::Kascade) },
            "top_mass does not apply to policy `kascade`: its sets have a fixed size, whatever share of the attention \
             they hold",
        ),
        (
            Settings { top_mass: Some(0.9), ..of(Policy::Full) },
            "top_mass does not apply to policy `full`: it reads every token in every layer",
        ),
        (
            Settings { top_mass: Some(0.0), ..of(Policy::TopP) },
            "top_mass is 0, must be above 0 and at most 1",
        ),
        (
            Settings { top_mass: Some(f64::NAN), ..of(Policy::TopP) },
            "top_mass is NaN, must be above 0 and at most 1",
        ),
        (
            Settings { token_budget: Some(15), ..of(Policy::Delta) },
            "token_budget is 15, must be at least one page, 16 tokens, under policy `delta`",
        ),
        (
            Settings { token_budget: Some(15), ..of(Policy::Quest) },
            "token_budget is 15, must be at least one page, 16 tokens, under policy `quest`",
        ),
        (
            Settings { token_budget: Some(4), ..of(Policy::Streaming) },
            "sinks is 4, must be less than token_budget, 4, under policy `streaming`",
        ),
        (
            Settings { token_budget: Some(0), ..Settings::default() },
            "token_budget is 0, must be from 1 to 4294967295",
        ),
        (
            Settings { recent_ratio: Some(f64::NAN), ..Settings::default() },
            "recent_ratio is NaN, must be from 0 to 1",
        ),
        (
            Settings { layers: "select=36".parse().ok(), ..Settings::default() },
            "layers: no layer 36 in a model of 36 layers",
        ),
    ] {
        assert_eq!(refusal(settings), message);
    }
    assert_eq!(
        "dense".parse::<Policy>().expect_err("no such").to_string(),
        "unknown policy `dense`: full, lim, lim-layer, tidal, kascade, omnikv, delta, topp, quest, seer or streaming"
    );
}

#[test]
fn model_file_is_read_and_written() {
    let value = json!({"attention": {
        "policy": "lim", "token_budget": 1024, "recent_ratio": 0.5, "sinks": 2, "layers": "dense=0-1,select=2,5"
    }});
    let file: ModelFile = serde_json::from_value(value.clone()).expect("valid");
    assert_eq!(file.attention.token_budget, Some(1024));
    assert_eq!(serde_json::to_value(&file).expect("plain"), value);
    assert_eq!(serde_json::to_value(Settings::default()).expect("plain"), json!({}));
    for (bad, word) in [
        (json!({"attention": {"polcy": "lim"}}), "polcy"),
        (json!({"attention": {}, "sampling": {}}), "sampling"),
        (json!({"attention": {"policy": "dense"}}), "unknown policy `dense`"),
        (json!({"attention": {"layers": "select=2,x"}}), "`x` at column 10"),
    ] {
        let error = serde_json::from_value::<ModelFile>(bad).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn model_settings_count_for_their_own_policy() {
    let model = Settings { token_budget: Some(512), recent_ratio: Some(0.5), ..of(Policy::Lim) };
    let asked = Settings { token_budget: Some(64), ..Settings::default() };
    let both = asked.or_else(model.clone());
    assert_eq!((both.policy, both.token_budget, both.recent_ratio), (Some(Policy::Lim), Some(64), Some(0.5)));
    assert_eq!(of(Policy::Lim).or_else(model.clone()).token_budget, Some(512));
    assert_eq!(of(Policy::Streaming).or_else(model), of(Policy::Streaming));
}

#[test]
fn report_has_the_fixed_keys() {
    let report = |policy| serde_json::to_value(resolve(&of(policy)).expect("valid").report()).expect("plain");
    assert_eq!(
        report(Policy::Lim),
        json!({"policy": "lim", "token_budget": 2048, "recent_ratio": 0.25, "sinks": 4,
            "top_mass": null, "dense_layers": [0, 1], "select_layers": [2, 12]})
    );
    let streaming = report(Policy::Streaming);
    assert_eq!((&streaming["recent_ratio"], &streaming["sinks"]), (&json!(null), &json!(4)));
    assert_eq!(report(Policy::TopP)["top_mass"], json!(0.95));
    let full = report(Policy::Full);
    assert_eq!((&full["token_budget"], &full["select_layers"]), (&json!(null), &json!([])));
    assert_eq!(full["dense_layers"].as_array().map(Vec::len), Some(36));
}
