//! The golden models against what HF transformers computes on them: logits of prefills, greedy tokens of decodes.

use lim_kernels::{Backend, Capacity, DType, KvLayout, PageExtras, PageSize, Step};
use lim_kvcache::{KvCache, PageTable};
use lim_model::{Engine, EngineOptions, Error, Event, Model, ModelDir, Pass, Phase, Request, Workspace};
use lim_select::{Attention, Buffers, ModelHint, Policy, Settings};
use serde_json::Value;

use crate::goldens;

fn full_attention<B: Backend>(model: &Model<B>) -> Attention {
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

fn load<B: Backend>(backend: &mut B, name: &str, convert: Option<DType>, positions: usize) -> Model<B> {
    let dir = ModelDir::open(goldens::path("models").join(name)).unwrap();
    let config = dir.config().unwrap();
    // To f16, whose range is small, no checkpoint is converted; a GPU of that type does it as it takes the weights.
    let convert = convert.filter(|&to| to != DType::F16);
    let weights = dir.checkpoint().unwrap().weights(&config, convert).unwrap();
    Model::load(backend, config, &weights, positions, |_| {}).unwrap()
}

/// A model with room for one sequence.
struct Run<B: Backend> {
    backend: B,
    model: Model<B>,
    cache: KvCache<B>,
    table: PageTable,
    workspace: Workspace<B>,
    buffers: Buffers<B>,
    attention: Attention,
}

impl<B: Backend> Run<B> {
    /// Room for `tokens` tokens, and logits of `rows` rows at a time. The KV cache is of the weights' type.
    fn new(mut backend: B, name: &str, dtype: Option<DType>, tokens: usize, rows: usize) -> Self {
        let model = load(&mut backend, name, dtype, tokens);
        let (config, page_size) = (model.config(), PageSize::default());
        let capacity = Capacity { rows: tokens, seqs: rows, tokens };
        let layout = KvLayout { heads: config.heads, page_size, dtype: dtype.unwrap_or(DType::F32) };
        let pages = page_size.pages_for(tokens);
        let cache = KvCache::new(&mut backend, layout, config.layers, pages, PageExtras::default()).unwrap();
        let workspace = Workspace::new(&mut backend, config, capacity, page_size).unwrap();
        let attention = full_attention(&model);
        let buffers = Buffers::new(&mut backend, &attention, capacity, config.heads).unwrap();
        let table = cache.table();
        Run { backend, model, cache, table, workspace, buffers, attention }
    }

    /// Feeds `ids` at once and returns the logits of `rows`, one row after the other.
    fn feed(&mut self, ids: &[u32], phase: Phase, rows: &[u32]) -> Vec<f32> {
        self.try_feed(ids, phase, rows).unwrap()
    }

    fn try_feed(&mut self, ids: &[u32], phase: Phase, rows: &[u32]) -> Result<Vec<f32>, Error> {
        let len = self.table.len() + ids.len();
        let rope = match phase {
            Phase::Prefill => self.model.prefill_rope(&mut self.backend, len).unwrap(),
            Phase::Decode => None,
        };
        self.cache.reserve(&mut self.backend, &mut self.table, len).unwrap();
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
        self.model.forward(&mut self.backend, pass)?;
        self.model.logits(&mut self.backend, rows, &mut self.workspace)?;
        let mut logits = vec![0.0; rows.len() * self.model.config().vocab];
        self.backend.read_rows(self.workspace.logits(), &mut logits)?;
        Ok(logits)
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
pub(crate) fn prefill_distance<B: Backend>(backend: B, name: &str, dtype: Option<DType>) -> f32 {
    let [ours, hf] = prefill_logits(backend, name, dtype);
    goldens::distance(&ours, &hf)
}

/// A prefill's logits at the golden's positions, and HF's.
pub(crate) fn prefill_logits<B: Backend>(backend: B, name: &str, dtype: Option<DType>) -> [Vec<f32>; 2] {
    let prefill = &expected(name)["prefill"];
    let (prompt, positions) = (ids(&prefill["ids"]), ids(&prefill["positions"]));
    let mut run = Run::new(backend, name, dtype, prompt.len(), positions.len());
    let logits = run.feed(&prompt, Phase::Prefill, &positions);
    [logits, prefill["logits"].as_array().unwrap().iter().flat_map(goldens::floats).collect()]
}

/// What a backend says to a model that it has no kernels for.
#[cfg(feature = "cuda")]
pub(crate) fn prefill_error<B: Backend>(backend: B, name: &str) -> String {
    let mut run = Run::new(backend, name, Some(DType::F32), 20, 1);
    run.try_feed(&[3; 20], Phase::Prefill, &[19]).unwrap_err().to_string()
}

/// What became of HF's prompt and tokens, fed one by one.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Of the last logits from HF's.
    pub(crate) distance: f32,
    /// HF's tokens that were the best ones here too.
    pub(crate) same: usize,
    /// By how much another token was better at most.
    pub(crate) regret: f32,
}

pub(crate) fn decode<B: Backend>(backend: B, name: &str, dtype: Option<DType>) -> Decoded {
    let generate = &expected(name)["generate"];
    let steps = decode_logits(backend, name, dtype);
    let (mut same, mut regret) = (0, 0f32);
    for (logits, token) in steps.iter().zip(ids(&generate["new"])) {
        let best = best(logits);
        same += usize::from(best == token);
        regret = regret.max(logits[best as usize] - logits[token as usize]);
    }
    let last = steps.last().expect("a golden generates tokens");
    let distance = goldens::distance(last, &goldens::floats(&generate["last_logits"]));
    Decoded { distance, same, regret }
}

/// The logits that each of HF's tokens is the best of there, when those before it are fed one by one.
pub(crate) fn decode_logits<B: Backend>(backend: B, name: &str, dtype: Option<DType>) -> Vec<Vec<f32>> {
    let generate = &expected(name)["generate"];
    let (prompt, new) = (ids(&generate["prompt"]), ids(&generate["new"]));
    let mut run = Run::new(backend, name, dtype, prompt.len() + new.len(), 1);
    let mut steps = vec![run.feed(&prompt, Phase::Prefill, &[prompt.len() as u32 - 1])];
    steps.extend(new[..new.len() - 1].iter().map(|token| run.feed(&[*token], Phase::Decode, &[0])));
    steps
}

/// Generates by an engine that prefills in three chunks.
pub(crate) fn engine_answers_like_hf<B: Backend>(mut backend: B, name: &str) {
    let generate = &expected(name)["generate"];
    let (prompt, new) = (ids(&generate["prompt"]), ids(&generate["new"]));
    let tokens = prompt.len() + new.len();
    let model = load(&mut backend, name, Some(DType::F32), tokens);
    let attention = full_attention(&model);
    let mut options = EngineOptions::new(1, tokens);
    options.capacity.rows = prompt.len().div_ceil(3);
    let mut engine = Engine::new(backend, model, attention, options).unwrap();
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

/// Tokens that every golden model generates.
pub(crate) const NEW: usize = 60;

mod cpu {
    use lim_kernels::DType;
    use lim_kernels::cpu::Cpu;

    use super::*;

    /// Largest distance of a logit; the logits go up to 5. Weights in two bytes are no reason for more: the CPU's
    /// activations are float32 whatever the weights, as HF's are here.
    const TOLERANCE: f32 = 5e-5;

    fn cpu() -> Cpu {
        Cpu::new(Some(2)).unwrap()
    }

    #[test]
    fn prefill_logits_equal_hfs_with_weights_as_stored_and_in_f32() {
        for name in goldens::MODELS {
            for convert in [None, Some(DType::F32)] {
                let distance = prefill_distance(cpu(), name, convert);
                assert!(distance < TOLERANCE, "{name} as {convert:?}: off by {distance}");
            }
        }
    }

    #[test]
    fn greedy_tokens_and_their_logits_equal_hfs() {
        for name in goldens::MODELS {
            let Decoded { distance, same, regret } = decode(cpu(), name, Some(DType::F32));
            assert_eq!((same, regret), (NEW, 0.0), "{name}");
            assert!(distance < TOLERANCE, "{name}: off by {distance} after {NEW} tokens");
        }
    }

    #[test]
    fn the_engine_generates_hfs_tokens_from_prompts_in_chunks() {
        for name in goldens::MODELS {
            engine_answers_like_hf(cpu(), name);
        }
    }
}
