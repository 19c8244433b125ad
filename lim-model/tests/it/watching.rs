//! What is looked at is what runs: recall and trace against plain generation and the written semantics.

use std::sync::atomic::{AtomicBool, Ordering};

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, Capacity, DType, KvLayout, PageExtras, Quota, SampleParams, Step};
use lim_kvcache::KvCache;
use lim_model::{
    Checkpoint, Continuation, Divergence, Error, Model, Pass, Phase, Recall, RecallOptions, ScoreOptions,
    TraceOptions, Watched, Workspace,
};
use lim_select::{Attention, Budget, Buffers, ModelHint, Policy, Settings, reference};

use crate::tiny::{
    POSITIONS, VOCAB, alone, attention, config, engine, engine_on, greedy, options, page_size, prompt,
};

const LAYERS: usize = 5;

fn quota(budget: usize) -> Quota {
    Budget::new(budget, 0.25, 4).unwrap().quota()
}

fn generate(max_new_tokens: usize) -> Continuation<'static> {
    Continuation::Generate { max_new_tokens, params: SampleParams::default(), stop_ids: &[] }
}

fn recall(
    prompt: &[u32],
    continuation: Continuation<'_>,
    every: usize,
    budgets: &[usize],
) -> (Recall, Vec<u32>) {
    recall_on(Cpu::new(Some(2)).unwrap(), prompt, continuation, every, budgets)
}

fn recall_on<B: Backend>(
    backend: B,
    prompt: &[u32],
    continuation: Continuation<'_>,
    every: usize,
    budgets: &[usize],
) -> (Recall, Vec<u32>) {
    let mut engine = engine_on(backend, DType::F32, attention(Policy::Full, 0), options());
    let quotas: Vec<Quota> = budgets.iter().map(|&b| quota(b)).collect();
    let mut recall = Recall::new(LAYERS, config().heads, &quotas);
    let options = RecallOptions { prompt, continuation, every };
    let ids = engine.recall(options, &mut recall, &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!(engine.cache().used_pages(), 0, "pages leak");
    (recall, ids)
}

#[test]
fn measuring_does_not_change_what_full_attention_says() {
    let request = greedy(20, 3, 60);
    let plain = alone(attention(Policy::Full, 0), request.clone()).remove(0).tokens;
    for every in [1, 7] {
        let (_, ids) = recall(&request.prompt, generate(60), every, &[24, 40]);
        assert_eq!(ids, [request.prompt.clone(), plain.clone()].concat(), "every {every}");
    }
}

#[test]
fn steps_beyond_each_budget_are_counted() {
    // Cached tokens run from 21 to 79: the last token is not fed.
    let (recall, _) = recall(&prompt(20, 3), generate(60), 1, &[24, 40, 200]);
    assert_eq!([0, 1, 2].map(|b| recall.steps(b)), [79 - 24, 79 - 40, 0]);
    assert_eq!(recall.context(0), (25 + 79) as f64 / 2.0);
    // Given tokens are all fed, and what lies between measured steps is skipped.
    let ids = prompt(80, 3);
    let (given, all) = self::recall(&ids[..20], Continuation::Given(&ids[20..]), 10, &[24]);
    assert_eq!((given.steps(0), given.context(0), all), (6, 50.0, ids));
}

#[test]
fn kept_mass_is_a_share_that_grows_with_the_budget() {
    let ids = prompt(120, 5);
    let (recall, _) = recall(&ids[..4], Continuation::Given(&ids[4..]), 5, &[24, 48]);
    let heads = config().heads.query();
    for (select, reader) in (0..LAYERS).flat_map(|r| (0..=r).map(move |s| (s, r))) {
        for budget in 0..2 {
            let [mean, least] = [recall.mean(budget, select, reader), recall.least(budget, select, reader)];
            let (head, worst) = recall.worst_head(budget, select, reader);
            assert!(0.0 < least && least <= worst && worst <= mean && mean < 1.0, "{select} {reader}");
            assert!(head < heads);
        }
        assert!(recall.mean(0, select, reader) < recall.mean(1, select, reader), "{select} {reader}");
    }
    // A layer's own set suits it better than another's: it holds the highest scores of its heads.
    for reader in 1..LAYERS {
        assert!(recall.mean(0, reader, reader) > recall.mean(0, 0, reader), "{reader}");
    }
}

#[test]
fn a_plan_keeps_what_its_pairs_keep_and_reads_what_the_engine_counts() {
    let (ids, budget) = (prompt(120, 5), 24);
    // The last token is scored, not fed.
    let (recall, _) = recall(&ids[..budget], Continuation::Given(&ids[budget..119]), 1, &[budget]);
    for text in ["dense=0-1,select=2,4", "select=1,3s,4", "select=0-4s", "dense=2,4,select=1"] {
        let attention = placed(text, budget);
        let kept = recall.kept(0, attention.plan());
        for (reader, layer) in kept.layers.iter().enumerate() {
            let (mean, least) = layer.source.map_or((1.0, 1.0), |select| {
                (recall.mean(0, select, reader), recall.least(0, select, reader))
            });
            assert!((layer.mean() - mean).abs() < 1e-12 && layer.least == least, "{text} {reader}");
        }
        let (worst, of_worst) = kept.worst_layer().unwrap();
        let (layer, head, of_head) = kept.worst_head().unwrap();
        assert!(kept.layers.iter().all(|layer| layer.mean() >= of_worst), "{text}");
        assert_eq!((kept.layers[worst].mean(), kept.layers[layer].heads[head]), (of_worst, of_head));
        assert!(kept.least() <= of_head && of_head <= of_worst && of_worst <= kept.mean(), "{text}");

        let mut engine = engine(attention, options());
        let score = ScoreOptions { ids: &ids, prefill: budget };
        engine.score(score, &AtomicBool::new(false), |_| ()).unwrap();
        let sparsity = engine.usage().unwrap().sparsity();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{text}: {a} {b}");
        close(kept.attended, sparsity.mean_attended_tokens);
        close(recall.context(0), sparsity.mean_context_tokens);
    }
}

fn placed(layers: &str, budget: usize) -> Attention {
    let hint = ModelHint { model_type: "qwen3", name: "", layers: LAYERS, hidden: config().hidden };
    let layers = Some(layers.parse().unwrap());
    let settings = Settings { token_budget: Some(budget), layers, ..Settings::default() };
    settings.resolve(&hint, page_size()).unwrap()
}

#[test]
fn trying_other_layers_does_not_change_what_full_attention_says() {
    let request = greedy(20, 3, 60);
    let plain = alone(attention(Policy::Full, 0), request.clone()).remove(0).tokens;
    let settings = ["select=0", "select=0-4", "dense=0-1,select=2,4s"].map(|layers| placed(layers, 24));
    let mut divergence = Divergence::new(3);
    let mut engine = engine(attention(Policy::Full, 0), options());
    let measure = RecallOptions { prompt: &request.prompt, continuation: generate(60), every: 3 };
    let ids =
        engine.divergence(measure, &settings, &mut divergence, &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!(ids, [request.prompt.clone(), plain].concat());
    assert_eq!(divergence.steps(), (79 - 24usize).div_ceil(3));
    assert!(divergence.mean(0) > 0.0 && divergence.mean(2) > 0.0);
    assert_eq!((divergence.mean(1), divergence.changed(1)), (0.0, 0.0), "every layer reads everything");
    assert_eq!(engine.cache().used_pages(), 0, "pages leak");
}

/// What `attention` says after `ids`, the last of them through a decode step: probabilities of all tokens.
fn next(attention: Attention, ids: &[u32]) -> Vec<f64> {
    let mut engine = engine(attention, options());
    let probability = |token| {
        let ids = [ids, &[token]].concat();
        let score = ScoreOptions { ids: &ids, prefill: ids.len() - 2 };
        let nll = engine.score(score, &AtomicBool::new(false), |_| ()).unwrap();
        (-f64::from(nll[ids.len() - 2])).exp()
    };
    (0..VOCAB).map(probability).collect()
}

#[test]
fn divergence_is_that_of_the_probabilities() {
    let ids = prompt(60, 7);
    let sparse = placed("dense=0,select=1,3s", 24);
    let mut divergence = Divergence::new(1);
    let mut engine = engine(attention(Policy::Full, 0), options());
    let (prompt, continuation) = (&ids[..59], Continuation::Given(&ids[59..]));
    let measure = RecallOptions { prompt, continuation, every: 1 };
    let settings = [sparse.clone()];
    engine.divergence(measure, &settings, &mut divergence, &AtomicBool::new(false), |_| ()).unwrap();
    let (p, q) = (next(attention(Policy::Full, 0), &ids), next(sparse, &ids));
    let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    assert!(
        expected > 1e-6 && (divergence.mean(0) / expected - 1.0).abs() < 1e-2,
        "{expected} {divergence:?}"
    );
}

/// Scores of every layer in the last token's decode step of full attention, `[layer][H][n]`.
fn scores_of_the_last_step(ids: &[u32]) -> Vec<Vec<f32>> {
    let (config, n) = (config(), ids.len());
    let capacity = Capacity { rows: n, seqs: 1, tokens: n };
    let mut cpu = Cpu::new(Some(1)).unwrap();
    let weights = Checkpoint::random(DType::F32, 1).weights(&config, None).unwrap();
    let layout = KvLayout { heads: config.heads, page_size: page_size(), dtype: DType::F32 };
    let mut cache =
        KvCache::new(&mut cpu, layout, LAYERS, page_size().pages_for(n), PageExtras::default()).unwrap();
    let mut workspace = Workspace::new(&mut cpu, &config, capacity, page_size()).unwrap();
    let hint = ModelHint { model_type: "qwen3", name: "", layers: LAYERS, hidden: config.hidden };
    let settings = Settings {
        token_budget: Some(24),
        layers: Some("select=0-4".parse().unwrap()),
        ..Settings::default()
    };
    let attention = settings.resolve(&hint, page_size()).unwrap();
    let mut buffers = Buffers::new(&mut cpu, &attention, capacity, config.heads).unwrap();
    let model = Model::load(&mut cpu, config, &weights, POSITIONS, |_| ()).unwrap();
    let mut table = cache.table();
    cache.reserve(&mut cpu, &mut table, n).unwrap();
    let mut scores = Vec::new();
    for (phase, rows) in [(Phase::Prefill, 0..n - 1), (Phase::Decode, n - 1..n)] {
        let mut step = Step::default();
        step.push(&ids[rows.clone()], rows.end, table.pages()).unwrap();
        let pass = Pass {
            phase,
            step: &step,
            cache: &mut cache,
            attention: &attention,
            buffers: &mut buffers,
            workspace: &mut workspace,
            rope: None,
        };
        let watch = |seen: Watched<'_, Cpu>| {
            if phase == Phase::Decode {
                scores.push(seen.backend.read_scores(0, n, seen.buffers.scores().unwrap())?);
            }
            Ok(())
        };
        model.forward_watched(&mut cpu, pass, watch).unwrap();
    }
    scores
}

#[test]
fn recall_is_the_softmax_mass_on_the_reference_selection() {
    let (n, ids) = (60, prompt(60, 7));
    let mut options = options();
    options.capacity.rows = n;
    let mut engine = engine(attention(Policy::Full, 0), options);
    let mut recall = Recall::new(LAYERS, config().heads, &[quota(24)]);
    let (prompt, continuation) = (&ids[..n - 1], Continuation::Given(&ids[n - 1..]));
    let measure = RecallOptions { prompt, continuation, every: 1 };
    engine.recall(measure, &mut recall, &AtomicBool::new(false), |_| ()).unwrap();
    assert_eq!((recall.steps(0), recall.context(0)), (1, 60.0));

    let (scores, heads) = (scores_of_the_last_step(&ids), config().heads);
    for (select, reader) in (0..LAYERS).flat_map(|r| (0..=r).map(move |s| (s, r))) {
        let set = reference::lim(&scores[select], heads.query(), quota(24)).unwrap();
        for (head, of_head) in scores[reader].chunks_exact(n).enumerate() {
            let weight = |t: usize| (f64::from(of_head[t]) / (heads.dim() as f64).sqrt()).exp();
            let kept = set.iter().map(|&t| weight(t as usize)).sum::<f64>() / (0..n).map(weight).sum::<f64>();
            let got = recall.head(0, select, reader, head);
            assert!((got - kept).abs() < 1e-9, "{select} {reader} {head}: {got} {kept}");
        }
    }
}

#[test]
fn a_trace_generates_what_the_policy_generates() {
    for policy in [Policy::Lim, Policy::Tidal, Policy::Quest, Policy::Streaming] {
        let request = greedy(20, 3, 40);
        let plain = alone(attention(policy, 24), request.clone()).remove(0).tokens;
        let mut engine = engine(attention(policy, 24), options());
        let options = TraceOptions { prompt: &request.prompt, continuation: generate(40) };
        let trace = engine.trace(options, &AtomicBool::new(false), |_| ()).unwrap();
        assert_eq!(trace.ids, [request.prompt.clone(), plain].concat(), "{policy}");
        assert_eq!(trace.steps.len(), 59 - 24, "{policy}");
        assert_eq!(trace.layers, attention(policy, 24).plan().select_layers());
        if policy == Policy::Lim {
            for step in &trace.steps {
                assert_eq!((step.count(0), step.count(1)), (trace.quota.history, trace.quota.history));
            }
            let [ever, any] = [trace.ever_kept(Some(0)), trace.ever_kept(None)].map(Option::unwrap);
            assert!(0.0 < ever && ever <= any && any <= 1.0);
        }
        assert_eq!(engine.cache().used_pages(), 0, "pages leak");
    }
}

#[test]
fn what_cannot_be_watched_is_refused_and_cancelling_frees_the_pages() {
    let mut engine = engine(attention(Policy::Full, 0), options());
    let (ids, cancel) = (prompt(60, 1), AtomicBool::new(false));
    let options = TraceOptions { prompt: &ids, continuation: generate(4) };
    let error = engine.trace(options, &cancel, |_| ()).unwrap_err().to_string();
    assert_eq!(error, "policy `full` selects nothing");
    let mut recall = Recall::new(LAYERS, config().heads, &[quota(24)]);
    let options =
        |every| RecallOptions { prompt: &ids[..4], continuation: Continuation::Given(&ids[4..]), every };
    engine.recall(options(0), &mut recall, &cancel, |_| ()).unwrap_err();
    let measure = options(1);
    engine.divergence(measure, &[], &mut Divergence::new(0), &cancel, |_| ()).unwrap_err();
    let settings = [placed("select=0", 24), placed("select=0", 25)];
    engine.divergence(measure, &settings[..1], &mut Divergence::new(2), &cancel, |_| ()).unwrap_err();
    engine.divergence(measure, &settings, &mut Divergence::new(2), &cancel, |_| ()).unwrap_err();
    let progress = |cached| cancel.store(cached >= 40, Ordering::Relaxed);
    let error = engine.recall(options(1), &mut recall, &cancel, progress).unwrap_err();
    assert!(matches!(error, Error::Interrupted));
    assert_eq!(engine.cache().used_pages(), 0);
}

/// What another backend finds is what the CPU finds, but for roundings: a near tie may fall differently.
#[cfg(feature = "cuda")]
pub(crate) fn all_is_seen_as_on_the_cpu<B: Backend>(backend: impl Fn() -> B) {
    let ids = prompt(120, 5);
    let measure = RecallOptions { prompt: &ids[..4], continuation: Continuation::Given(&ids[4..]), every: 5 };
    kept_is_near(backend(), measure);
    divergence_is_near(backend(), measure);
    for policy in [Policy::Lim, Policy::Tidal, Policy::Quest, Policy::Kascade] {
        chosen_is_near(backend(), policy, measure);
    }
}

#[cfg(feature = "cuda")]
fn kept_is_near<B: Backend>(backend: B, measure: RecallOptions<'_>) {
    let RecallOptions { prompt, continuation, every } = measure;
    let (here, ids) = recall(prompt, continuation, every, &[24, 48]);
    let (there, all) = recall_on(backend, prompt, continuation, every, &[24, 48]);
    assert_eq!((all, [0, 1].map(|b| there.steps(b))), (ids, [0, 1].map(|b| here.steps(b))));
    let heads = config().heads.query();
    for (select, reader) in (0..LAYERS).flat_map(|r| (0..=r).map(move |s| (s, r))) {
        for (budget, head) in (0..2).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            let [a, b] = [&here, &there].map(|recall| recall.head(budget, select, reader, head));
            assert!((a - b).abs() < 2e-3, "{budget} {select} {reader} {head}: {a} {b}");
        }
    }
}

#[cfg(feature = "cuda")]
fn divergence_is_near<B: Backend>(backend: B, measure: RecallOptions<'_>) {
    fn of<B: Backend>(mut engine: lim_model::Engine<B>, measure: RecallOptions<'_>) -> Divergence {
        let settings = ["select=0", "dense=0-1,select=2,4s", "select=0-4"].map(|layers| placed(layers, 24));
        let mut divergence = Divergence::new(settings.len());
        engine.divergence(measure, &settings, &mut divergence, &AtomicBool::new(false), |_| ()).unwrap();
        divergence
    }
    let full = attention(Policy::Full, 0);
    let here = of(engine(full.clone(), options()), measure);
    let there = of(engine_on(backend, DType::F32, full, options()), measure);
    assert_eq!(here.steps(), there.steps());
    for setting in 0..2 {
        let [a, b] = [&here, &there].map(|divergence| divergence.mean(setting));
        assert!((a - b).abs() <= 0.02 * a, "{setting}: {a} {b}");
    }
    assert!(there.mean(2).abs() < 1e-9, "every layer reads everything: {}", there.mean(2));
}

#[cfg(feature = "cuda")]
fn chosen_is_near<B: Backend>(backend: B, policy: Policy, measure: RecallOptions<'_>) {
    let RecallOptions { prompt, continuation, .. } = measure;
    let trace = TraceOptions { prompt, continuation };
    let cancel = AtomicBool::new(false);
    let here = engine(attention(policy, 24), options()).trace(trace, &cancel, |_| ()).unwrap();
    let mut there = engine_on(backend, DType::F32, attention(policy, 24), options());
    let there = there.trace(trace, &cancel, |_| ()).unwrap();
    assert_eq!((&here.layers, here.steps.len()), (&there.layers, there.steps.len()), "{policy}");
    for (a, b) in here.steps.iter().zip(&there.steps) {
        for layer in 0..here.layers.len() {
            let differ = (0..a.len).filter(|&t| a.keeps(layer, t) != b.keeps(layer, t)).count();
            assert!(differ <= 4, "{policy} {layer} {}: {differ} positions differ", a.len);
        }
    }
}
