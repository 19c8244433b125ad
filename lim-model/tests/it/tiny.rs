//! A tiny random model and engines on it.

use lim_kernels::cpu::Cpu;
use lim_kernels::{Backend, DType, PageSize, SampleParams, Sampled};
use lim_model::{
    Checkpoint, Config, Engine, EngineOptions, Event, FinishReason, Gates, Model, Request, SeqId,
};
use lim_select::{Attention, Layers, ModelHint, Policy, Schedule, Settings};

/// Positions of the tiny model.
pub(crate) const POSITIONS: usize = 256;
pub(crate) const VOCAB: u32 = 128;

pub(crate) fn config() -> Config {
    let json = r#"{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 32, "vocab_size": 128, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu"}"#;
    Config::from_json("config.json", json.as_bytes()).unwrap()
}

/// Every policy; those with a budget read `budget` tokens.
pub(crate) fn attention(policy: Policy, budget: usize) -> Attention {
    let layers: Layers = "dense=0,select=1,3s".parse().unwrap();
    let reuses = policy.rule().select.is_some_and(|rule| rule.schedule == Schedule::Model);
    let settings = Settings {
        policy: Some(policy),
        token_budget: (policy != Policy::Full).then_some(budget),
        layers: reuses.then_some(layers),
        ..Settings::default()
    };
    let hint = ModelHint { model_type: "qwen3", name: "", layers: 5, hidden: 64 };
    settings.resolve(&hint, page_size()).unwrap()
}

pub(crate) fn page_size() -> PageSize {
    PageSize::new(4).unwrap()
}

/// Room for four sequences of [`POSITIONS`] tokens; prompts are prefilled 16 rows at a time.
pub(crate) fn options() -> EngineOptions {
    let mut options = EngineOptions::new(4, POSITIONS);
    options.page_size = page_size();
    options.pages = 4 * page_size().pages_for(POSITIONS);
    options.capacity.rows = 16;
    options
}

pub(crate) fn engine(attention: Attention, options: EngineOptions) -> Engine<Cpu> {
    engine_of(DType::F32, attention, options)
}

/// An engine whose weights are stored as `dtype`.
pub(crate) fn engine_of(dtype: DType, attention: Attention, options: EngineOptions) -> Engine<Cpu> {
    engine_on(Cpu::new(Some(2)).unwrap(), dtype, attention, options)
}

pub(crate) fn engine_on<B: Backend>(
    mut backend: B,
    dtype: DType,
    attention: Attention,
    options: EngineOptions,
) -> Engine<B> {
    let model = model(&mut backend, dtype);
    Engine::new(backend, model, attention, options).unwrap()
}

/// The model and its gates, stored as `dtype`.
pub(crate) fn model<B: Backend>(backend: &mut B, dtype: DType) -> Model<B> {
    let config = config();
    let weights = Checkpoint::random(dtype, 1).weights(&config, None).unwrap();
    let gates = Gates::random(&config, dtype, 2);
    let mut model = Model::load(backend, config, &weights, POSITIONS, |_| ()).unwrap();
    model.load_gates(backend, &gates).unwrap();
    model
}

/// `len` tokens that differ by `seed`.
pub(crate) fn prompt(len: usize, seed: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % VOCAB
    };
    (0..len).map(next).collect()
}

pub(crate) fn greedy(len: usize, seed: u32, max_new_tokens: usize) -> Request {
    Request::new(prompt(len, seed), max_new_tokens)
}

pub(crate) fn random(len: usize, seed: u32, max_new_tokens: usize) -> Request {
    let params = SampleParams { temperature: 1.0, seed: u64::from(seed), ..SampleParams::default() };
    Request { params, ..greedy(len, seed, max_new_tokens) }
}

/// What became of a sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) tokens: Vec<u32>,
    /// Bits of the logprobs, so that equal means bit-equal.
    pub(crate) logprobs: Vec<u32>,
    pub(crate) reason: Option<FinishReason>,
}

impl Outcome {
    pub(crate) fn push(&mut self, sampled: Sampled) {
        self.tokens.push(sampled.token);
        self.logprobs.push(sampled.logprob.to_bits());
    }
}

/// Steps the engine until it is idle. Outcomes of `ids` in order, and how often a sequence was preempted.
pub(crate) fn run<B: Backend>(engine: &mut Engine<B>, ids: &[SeqId]) -> (Vec<Outcome>, usize) {
    let mut outcomes = vec![Outcome::default(); ids.len()];
    let mut preempted = 0;
    let number = |id: SeqId| ids.iter().position(|&other| other == id).unwrap();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match *event {
                Event::Prefill { .. } => {}
                Event::Token { id, sampled } => outcomes[number(id)].push(sampled),
                Event::Finished { id, reason } => outcomes[number(id)].reason = Some(reason),
                Event::Preempted { .. } => preempted += 1,
            }
        }
    }
    engine.forget_prompts().unwrap();
    assert_eq!((engine.cache().used_pages(), engine.cache().live_tables()), (0, 0), "pages leak");
    (outcomes, preempted)
}

/// One request on an engine of its own.
pub(crate) fn alone(attention: Attention, request: Request) -> Vec<Outcome> {
    let mut engine = engine(attention, options());
    let ids = engine.add(request).unwrap();
    run(&mut engine, &ids).0
}
