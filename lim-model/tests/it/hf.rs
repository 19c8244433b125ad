//! The golden models against what HF transformers computes on them: logits of prefills, greedy tokens of decodes.

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, Capacity, DType, KvLayout, PageSize, Step};
use lim_kvcache::{KvCache, PageTable};
use lim_model::{Engine, EngineOptions, Event, Model, ModelDir, Pass, Phase, Request, Workspace};
use lim_select::{Attention, Buffers, ModelHint, Policy, Settings};
use serde_json::Value;

use crate::goldens;

/// Largest distance of a logit; the logits go up to 4. Weights in two bytes are no reason for more: the CPU's
/// activations are float32 whatever the weights, as HF's are here.
const TOLERANCE: f32 = 5e-5;

fn full_attention(model: &Model<Cpu>) -> Attention {
    let config = model.config();
    let hint = ModelHint {
        model_type: config.family.name(),
        name: "",
        layers: config.layers,
        hidden: config.hidden,
    };
    let settings = Settings { policy: Some(Policy::Full), ..Settings::default() };
    settings.resolve(&hint, PageSize::default()).unwrap()
}

fn load(cpu: &mut Cpu, name: &str, convert: Option<DType>, positions: usize) -> Model<Cpu> {
    let dir = ModelDir::open(goldens::path("models").join(name)).unwrap();
    let config = dir.config().unwrap();
    let weights = dir.checkpoint().unwrap().weights(&config, convert).unwrap();
    Model::load(cpu, config, &weights, positions, |_| {}).unwrap()
}

/// A model with room for one sequence.
struct Run {
    cpu: Cpu,
    model: Model<Cpu>,
    cache: KvCache<Cpu>,
    table: PageTable,
    workspace: Workspace<Cpu>,
    buffers: Buffers<Cpu>,
    attention: Attention,
}

impl Run {
    /// Room for `tokens` tokens, and logits of `rows` rows at a time.
    fn new(name: &str, convert: Option<DType>, tokens: usize, rows: usize) -> Self {
        let mut cpu = Cpu::new(Some(2)).unwrap();
        let model = load(&mut cpu, name, convert, tokens);
        let (config, page_size) = (model.config(), PageSize::default());
        let capacity = Capacity { rows: tokens, seqs: rows, tokens };
        let layout = KvLayout { heads: config.heads, page_size, dtype: DType::F32 };
        let pages = page_size.pages_for(tokens);
        let cache = KvCache::new(&mut cpu, layout, config.layers, pages, false).unwrap();
        let workspace = Workspace::new(&mut cpu, config, capacity, page_size).unwrap();
        let attention = full_attention(&model);
        let buffers = Buffers::new(&mut cpu, &attention, capacity, config.heads).unwrap();
        let table = cache.table();
        Run { cpu, model, cache, table, workspace, buffers, attention }
    }

    /// Feeds `ids` at once and returns the logits of `rows`, one row after the other.
    fn feed(&mut self, ids: &[u32], phase: Phase, rows: &[u32]) -> Vec<f32> {
        let len = self.table.len() + ids.len();
        let rope = match phase {
            Phase::Prefill => self.model.prefill_rope(&mut self.cpu, len).unwrap(),
            Phase::Decode => None,
        };
        self.cache.reserve(&mut self.cpu, &mut self.table, len).unwrap();
        let mut step = Step::default();
        step.push(ids, len, self.table.pages()).unwrap();
        let pass = Pass {
            phase,
            step: &step,
            cache: &mut self.cache,
            attention: &self.attention,
            buffers: &mut self.buffers,
            workspace: &mut self.workspace,
            rope: rope.as_ref(),
        };
        self.model.forward(&mut self.cpu, pass).unwrap();
        self.model.logits(&mut self.cpu, rows, &mut self.workspace).unwrap();
        let mut logits = vec![0.0; rows.len() * self.model.config().vocab];
        self.cpu.read_rows(self.workspace.logits(), &mut logits).unwrap();
        logits
    }
}

fn expected(name: &str) -> Value {
    goldens::json(&format!("models/{name}/expected.json"))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        assert!(x.is_finite(), "logit {i} is {x}");
        if *x > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// The largest distance of a prefill's logits from HF's.
fn prefill_distance(name: &str, convert: Option<DType>) -> f32 {
    let prefill = &expected(name)["prefill"];
    let (prompt, positions) = (ids(&prefill["ids"]), ids(&prefill["positions"]));
    let mut run = Run::new(name, convert, prompt.len(), positions.len());
    let logits = run.feed(&prompt, Phase::Prefill, &positions);
    let rows = prefill["logits"].as_array().unwrap().iter().flat_map(goldens::floats);
    goldens::distance(&logits, &rows.collect::<Vec<f32>>())
}

#[test]
fn prefill_logits_equal_hfs_with_weights_as_stored_and_in_f32() {
    for name in goldens::MODELS {
        for convert in [None, Some(DType::F32)] {
            let distance = prefill_distance(name, convert);
            assert!(distance < TOLERANCE, "{name} as {convert:?}: off by {distance}");
        }
    }
}

#[test]
fn greedy_tokens_and_their_logits_equal_hfs() {
    for name in goldens::MODELS {
        let generate = &expected(name)["generate"];
        let (prompt, new) = (ids(&generate["prompt"]), ids(&generate["new"]));
        let mut run = Run::new(name, Some(DType::F32), prompt.len() + new.len(), 1);
        let mut logits = run.feed(&prompt, Phase::Prefill, &[prompt.len() as u32 - 1]);
        for (i, token) in new.iter().enumerate() {
            assert_eq!(best(&logits), *token, "{name}: token {i}");
            if i + 1 < new.len() {
                logits = run.feed(&[*token], Phase::Decode, &[0]);
            }
        }
        let distance = goldens::distance(&logits, &goldens::floats(&generate["last_logits"]));
        assert!(distance < TOLERANCE, "{name}: off by {distance} after {} decode steps", new.len());
    }
}

#[test]
fn the_engine_generates_hfs_tokens_from_prompts_in_chunks() {
    for name in goldens::MODELS {
        let generate = &expected(name)["generate"];
        let (prompt, new) = (ids(&generate["prompt"]), ids(&generate["new"]));
        let mut cpu = Cpu::new(Some(2)).unwrap();
        let tokens = prompt.len() + new.len();
        let model = load(&mut cpu, name, Some(DType::F32), tokens);
        let attention = full_attention(&model);
        let mut options = EngineOptions::new(1, tokens);
        options.capacity.rows = prompt.len().div_ceil(3);
        let mut engine = Engine::new(cpu, model, attention, options).unwrap();
        engine.add(Request::new(prompt, new.len())).unwrap();
        let mut tokens = Vec::new();
        while !engine.is_idle() {
            let drawn = engine.step().unwrap().iter().filter_map(|event| match event {
                Event::Token { sampled, .. } => Some(sampled.token),
                _ => None,
            });
            tokens.extend(drawn);
        }
        assert_eq!(tokens, new, "{name}");
    }
}
