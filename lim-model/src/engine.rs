//! Continuous batching: sequences of any length come and go while the others decode.

use std::collections::VecDeque;

use lim_kernels::{
    Backend, Capacity, DType, Draw, KvLayout, MAX_STOP_TOKENS, PageExtras, PageSize, Sampled, Step,
};
use lim_kvcache::KvCache;
use lim_select::Buffers;

use crate::prefix::Prompts;
use crate::schedule::FEW_ROWS;
use crate::sequence::{Group, Running, Sequence};
use crate::{Error, FinishReason, Model, Pass, Phase, Request, Result, SeqId, Workspace};

/// Sizes of an engine; all its memory is taken when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Rows of a prefill chunk, sequences that decode together, and most cached tokens of one sequence.
    pub capacity: Capacity,
    /// Pages shared by all sequences. Where they run out the newest sequence is put back and recomputed later.
    pub pages: usize,
    /// Tokens per page.
    pub page_size: PageSize,
    /// Element type of the KV cache.
    pub kv_dtype: DType,
    /// Prompts whose pages are kept for later ones that begin with the same pages, until the pages are needed; 0 computes
    /// every prompt in full. An engine with fewer than 34 `capacity.rows` keeps none: it cuts prompts into parts so short
    /// that their bits would depend on where they are cut.
    pub prompts: usize,
    /// What to keep beside the pages even if the policy that the engine starts with needs none of it.
    pub extras: PageExtras,
}

impl EngineOptions {
    /// Room for `seqs` sequences of `tokens` tokens each, prefilled 512 rows at a time; pages of 16 tokens, float32, 64
    /// prompts kept.
    pub fn new(seqs: usize, tokens: usize) -> Self {
        let page_size = PageSize::default();
        EngineOptions {
            capacity: Capacity { rows: seqs.max(512), seqs, tokens },
            pages: seqs * page_size.pages_for(tokens),
            page_size,
            kv_dtype: DType::F32,
            prompts: 64,
            extras: PageExtras::default(),
        }
    }
}

impl EngineOptions {
    fn check(&self, positions: usize) -> Result<()> {
        let Capacity { rows, seqs, tokens } = self.capacity;
        let refuse = |what, reason| Err(Error::Request { what, reason });
        if seqs == 0 || rows < seqs {
            return refuse("engine rows", format!("are {rows} for {seqs} sequences, at least 1 for each"));
        }
        if tokens == 0 || tokens > positions {
            return refuse("engine context", format!("is {tokens}, from 1 to the model's {positions}"));
        }
        if self.pages == 0 {
            return refuse("engine pages", "are 0, at least 1".into());
        }
        Ok(())
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Prompt tokens of a request are cached; `id` is its first sample's.
    Prefill {
        /// First sample of the request.
        id: SeqId,
        /// Prompt tokens cached so far.
        done: usize,
        /// All prompt tokens.
        total: usize,
    },
    /// A sequence got a token.
    Token {
        /// Sequence.
        id: SeqId,
        /// Token and its logprob.
        sampled: Sampled,
    },
    /// A sequence ended; its pages are free, but for those of a prompt that is kept.
    Finished {
        /// Sequence.
        id: SeqId,
        /// Why.
        reason: FinishReason,
    },
    /// Pages ran out: a sequence was put back and will be recomputed. Its tokens stay.
    Preempted {
        /// Sequence.
        id: SeqId,
    },
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens whose pages were taken over from an earlier prompt.
    pub reused_tokens: u64,
    /// Seconds in prefill steps, the first draw included.
    pub prefill_s: f64,
    /// Rows of decode steps: tokens drawn, tokens recomputed after preemption, and on a device of its own one more of a
    /// sequence that [`Engine::finish`] ended, where a step was under way.
    pub decode_tokens: u64,
    /// Decode steps issued.
    pub decode_steps: u64,
    /// Seconds in decode steps.
    pub decode_s: f64,
}

impl Totals {
    /// Of prompts or of decode steps.
    pub(crate) fn seconds(&mut self, prompts: bool) -> &mut f64 {
        if prompts { &mut self.prefill_s } else { &mut self.decode_s }
    }
}

/// A model with its cache, and the sequences that run on it.
///
/// [`Engine::step`] either prefills a chunk of one waiting prompt or decodes one token of every running sequence. A
/// sequence's tokens do not depend on what else runs, provided the backend's rows do not depend on each other, as on
/// the CPU.
pub struct Engine<B: Backend> {
    pub(crate) backend: B,
    pub(crate) model: Model<B>,
    pub(crate) cache: KvCache<B>,
    pub(crate) prompts: Prompts,
    pub(crate) workspace: Workspace<B>,
    pub(crate) options: EngineOptions,
    pub(crate) step: Step,
    pub(crate) totals: Totals,
    /// In order of arrival but for recomputed sequences; at most `capacity.seqs`.
    pub(crate) running: Vec<Running>,
    /// Prompts in order of arrival; only the first may hold pages.
    pub(crate) waiting: VecDeque<Group>,
    /// Rotation of the first waiting prompt, where its length calls for its own.
    pub(crate) prefill_rope: Option<B::Rope>,
    /// `0..capacity.seqs`.
    pub(crate) rows: Vec<u32>,
    /// Memory for a step's draws; empty between steps.
    pub(crate) draws: Vec<Draw<'static>>,
    /// Forced tokens of a step, by place.
    pub(crate) forced: Vec<Option<u32>>,
    pub(crate) sampled: Vec<Sampled>,
    /// The sequences of the last decode step or first draw, by place.
    pub(crate) placed: Vec<SeqId>,
    /// Decode steps whose tokens have not been read; 1 where a first draw has not been.
    pub(crate) unread: usize,
    pub(crate) events: Vec<Event>,
    /// The events have been returned.
    pub(crate) delivered: bool,
    pub(crate) attention: lim_select::Attention,
    pub(crate) buffers: Buffers<B>,
    pub(crate) recordings: Vec<Recorded<B>>,
    next_id: u64,
}

/// The kernels of a decode step, good for every step of as many places that selects, or that does not.
pub(crate) struct Recorded<B: Backend> {
    pub(crate) seqs: usize,
    pub(crate) sparse: bool,
    /// `None` after the first such step, and on devices that do not record.
    pub(crate) recording: Option<B::Recording>,
}

impl<B: Backend> Engine<B> {
    /// Takes the memory for `options`; decodes by `attention`.
    ///
    /// # Errors
    /// When a size is zero or exceeds what the model was made for, the policy needs gates and the model has none for pages
    /// of this size, or the backend has not the memory.
    pub fn new(
        mut backend: B,
        model: Model<B>,
        attention: lim_select::Attention,
        options: EngineOptions,
    ) -> Result<Self> {
        let EngineOptions { capacity, pages, page_size, kv_dtype, prompts, extras } = options;
        options.check(model.positions())?;
        let config = model.config();
        let layout = KvLayout { heads: config.heads, page_size, dtype: kv_dtype };
        let prompts = if capacity.rows < 2 * FEW_ROWS { 0 } else { prompts };
        let extras = extras.and(attention.policy().extras());
        model.check_extras(page_size, extras)?;
        Ok(Engine {
            workspace: Workspace::new(&mut backend, config, capacity, page_size)?,
            cache: KvCache::new(&mut backend, layout, config.layers, pages, extras)?,
            prompts: Prompts::new(prompts, pages),
            buffers: Buffers::new(&mut backend, &attention, capacity, config.heads)?,
            options: EngineOptions { extras, prompts, ..options },
            step: Step::with_capacity(capacity, page_size),
            totals: Totals::default(),
            running: Vec::with_capacity(capacity.seqs),
            waiting: VecDeque::new(),
            prefill_rope: None,
            rows: (0..capacity.seqs as u32).collect(),
            draws: Vec::with_capacity(capacity.seqs),
            forced: Vec::with_capacity(capacity.seqs),
            sampled: vec![Sampled { token: 0, logprob: 0.0 }; capacity.seqs],
            placed: Vec::with_capacity(capacity.seqs),
            unread: 0,
            events: Vec::with_capacity(4 * capacity.seqs + 1),
            delivered: false,
            recordings: Vec::with_capacity(2 * capacity.seqs),
            next_id: 0,
            backend,
            model,
            attention,
        })
    }

    /// Decodes by `attention` from the next step on. Sequences and their cached tokens stay.
    ///
    /// # Errors
    /// When it needs page bounds or gates and the engine was made without, or the backend has not the memory.
    pub fn set_attention(&mut self, attention: lim_select::Attention) -> Result<()> {
        let (wanted, kept) = (attention.policy().extras(), self.options.extras);
        if !kept.cover(wanted) {
            let what = if wanted.gates && !kept.gates { "page gates" } else { "page bounds" };
            let reason = format!("`{}` needs {what}, the engine has none", attention.policy());
            return Err(Error::Request { what: "attention", reason });
        }
        let EngineOptions { capacity, .. } = self.options;
        self.settle()?;
        self.recordings.clear();
        self.buffers = Buffers::new(&mut self.backend, &attention, capacity, self.model.config().heads)?;
        self.attention = attention;
        Ok(())
    }

    /// Queues a request; returns the ids of its samples in order.
    ///
    /// # Errors
    /// When the prompt is empty, holds an unknown token or does not fit, or a setting is out of range.
    pub fn add(&mut self, request: Request) -> Result<Vec<SeqId>> {
        let max_len = self.max_len();
        self.check(&request, max_len)?;
        let members = Sequence::from_request(request, self.next_id, max_len);
        self.next_id += members.len() as u64;
        let ids = members.iter().map(|seq| seq.id).collect();
        self.waiting.push_back(Group { members, table: None });
        Ok(ids)
    }

    /// Most cached tokens of one sequence: the capacity's, or what all pages hold.
    pub fn max_len(&self) -> usize {
        self.options.capacity.tokens.min(self.options.pages * self.options.page_size.tokens())
    }

    /// Ends a sequence early and frees its pages. False when it has ended already.
    ///
    /// # Errors
    /// When the cache refuses, which takes a table of another engine.
    pub fn finish(&mut self, id: SeqId) -> Result<bool> {
        if let Some(at) = self.running.iter().position(|r| r.seq.id == id) {
            let Running { table, .. } = self.running.remove(at);
            self.forget_surplus();
            self.cache.release(table)?;
            return Ok(true);
        }
        let Some(at) = self.waiting.iter().position(|g| g.members.iter().any(|m| m.id == id)) else {
            return Ok(false);
        };
        self.waiting[at].members.retain(|m| m.id != id);
        if self.waiting[at].members.is_empty()
            && let Some(table) = self.waiting.remove(at).and_then(|group| group.table)
        {
            self.cache.release(table)?;
        }
        Ok(true)
    }

    /// Gives up the pages of all kept prompts.
    ///
    /// # Errors
    /// When the cache refuses, which takes a table of another engine.
    pub fn forget_prompts(&mut self) -> Result<()> {
        self.prompts.clear(&mut self.cache)
    }

    /// The model.
    pub fn model(&self) -> &Model<B> {
        &self.model
    }

    /// Policy and layer roles in force.
    pub fn attention(&self) -> &lim_select::Attention {
        &self.attention
    }

    /// Pages, and who holds them.
    pub fn cache(&self) -> &KvCache<B> {
        &self.cache
    }

    /// Sizes.
    pub fn options(&self) -> EngineOptions {
        self.options
    }

    /// The device as reports name it.
    pub fn device(&self) -> String {
        self.backend.device()
    }

    /// The device, for measurements between steps.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Gives the backend and the model back, for another engine. What the engine held is freed.
    pub fn into_parts(self) -> (B, Model<B>) {
        (self.backend, self.model)
    }

    /// Runs the prefill step that `self.step` holds.
    pub(crate) fn forward_prefill(&mut self) -> Result<()> {
        let Engine { backend, model, step, cache, attention, buffers, workspace, prefill_rope, .. } = self;
        let (phase, rope) = (Phase::Prefill, prefill_rope.as_ref());
        model.forward(backend, Pass { phase, step, cache, attention, buffers, workspace, rope })
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn check(&self, request: &Request, max_len: usize) -> Result<()> {
        let refuse = |what, reason: String| Err(Error::Request { what, reason });
        let Request { prompt, random_prefix, samples, max_new_tokens, stop_ids, .. } = request;
        if prompt.is_empty() {
            return refuse("prompt", "has no tokens".into());
        }
        if prompt.len() > max_len {
            return refuse("prompt", format!("has {} tokens, the engine takes {max_len}", prompt.len()));
        }
        self.model.check_tokens("prompt", prompt)?;
        if stop_ids.len() > MAX_STOP_TOKENS {
            return refuse("stop tokens", format!("are {}, at most {MAX_STOP_TOKENS}", stop_ids.len()));
        }
        crate::sampling::check(&request.params)?;
        if *random_prefix >= prompt.len() {
            return refuse("random prefix", format!("is {random_prefix} of a prompt of {}", prompt.len()));
        }
        let seqs = self.options.capacity.seqs;
        if *samples == 0 || *samples > seqs {
            return refuse("samples", format!("are {samples}, from 1 to the engine's {seqs}"));
        }
        if *max_new_tokens == 0 {
            return refuse("max new tokens", "is 0, at least 1".into());
        }
        if let Some(thinking) = &request.thinking {
            self.model.check_tokens("end of thinking", &thinking.closing)?;
        }
        Ok(())
    }
}
