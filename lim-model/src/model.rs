//! A model's weights on a device, and the way through them.

use lim_kernels::{Backend, Draw, Embed, Logits, PageExtras, PageSize, Sample, Sampled, Step};
use lim_kvcache::KvCache;
use lim_select::Buffers;

use crate::block::{Block, BlockPass, Rows};
use crate::{Config, Error, Gates, Phase, Result, Rope, Weights, Workspace};

/// A decoder-only transformer on backend `B`.
pub struct Model<B: Backend> {
    config: Config,
    embedding: B::Linear,
    blocks: Vec<Block<B>>,
    norm: B::Vector,
    /// `None` where the head is the embedding.
    head: Option<B::Linear>,
    rope: B::Rope,
    positions: usize,
    /// Whether the blocks have gates, and for which page size; within, `None` is any.
    gates: Option<Option<PageSize>>,
}

/// One step through the model: what goes in, and everything it changes.
pub struct Pass<'a, B: Backend> {
    /// Whether the rows attend to everything or by the layers' roles.
    pub phase: Phase,
    /// The rows; their places in `cache` are reserved.
    pub step: &'a Step,
    /// Pages of all layers.
    pub cache: &'a mut KvCache<B>,
    /// Policy and layer roles.
    pub attention: &'a lim_select::Attention,
    /// Scores and selection, made for `attention`.
    pub buffers: &'a mut Buffers<B>,
    /// Activations.
    pub workspace: &'a mut Workspace<B>,
    /// Rotation to use instead of the model's own, where the prompt's length calls for one
    /// ([`Rope::prefill_table`]).
    pub rope: Option<&'a B::Rope>,
}

/// What there is to see of a step after a layer.
pub struct Watched<'a, B: Backend> {
    /// The device, to read buffers back with.
    pub backend: &'a mut B,
    /// The layer that has just run.
    pub layer: usize,
    /// The step on the device.
    pub batch: &'a B::Batch,
    /// Scores and selection of the last layer that selected.
    pub buffers: &'a Buffers<B>,
}

impl<B: Backend> Model<B> {
    /// Brings the `weights` that were checked against `config` to the backend, block by block, for `positions`
    /// positions. `loaded` is told the number of blocks done.
    ///
    /// # Errors
    /// When a tensor cannot be had or the backend has not the memory.
    pub fn load(
        backend: &mut B,
        config: Config,
        weights: &Weights,
        positions: usize,
        mut loaded: impl FnMut(usize),
    ) -> Result<Self> {
        let embedding = backend.linear(&[(weights.embedding()?, None)])?;
        let head = match weights.head()? {
            Some(head) => Some(backend.linear(&[(head, None)])?),
            None => None,
        };
        let norm = backend.vector(&weights.norm()?)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            blocks.push(Block::new(backend, weights.layer(layer)?)?);
            loaded(layer + 1);
        }
        let table = Rope::new(&config).table(positions);
        let rope = backend.rope(&table.cos, &table.sin, table.half)?;
        Ok(Model { config, embedding, blocks, norm, head, rope, positions, gates: None })
    }

    /// Brings gates for policy `seer` to the backend, in the place of any that were there.
    ///
    /// # Errors
    /// When they are of another model, a tensor cannot be had, or the backend has not the memory.
    pub fn load_gates(&mut self, backend: &mut B, gates: &Gates) -> Result<()> {
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            let [q, k] = gates.layer(layer)?;
            block.gates = Some([backend.linear(&[(q, None)])?, backend.linear(&[(k, None)])?]);
        }
        self.gates = Some(gates.page_size());
        Ok(())
    }

    /// Whether the model can fill pages of `page_size` with what `extras` wants beside them.
    ///
    /// # Errors
    /// When gates are wanted and the model has none, or gates for pages of another size.
    pub fn check_extras(&self, page_size: PageSize, extras: PageExtras) -> Result<()> {
        let refuse = |reason: String| Err(Error::Request { what: "page gates", reason });
        match self.gates {
            _ if !extras.gates => Ok(()),
            None => refuse("are to be kept, the model was loaded without".into()),
            Some(Some(made_for)) if made_for != page_size => {
                let (made_for, size) = (made_for.tokens(), page_size.tokens());
                refuse(format!("were made for pages of {made_for} tokens, the cache has pages of {size}"))
            }
            Some(_) => Ok(()),
        }
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Positions that the rotary tables cover.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The rotation for a prompt of `len` tokens where it is not the model's own (dynamic NTK scaling).
    ///
    /// # Errors
    /// When the backend has not the memory.
    pub fn prefill_rope(&self, backend: &mut B, len: usize) -> Result<Option<B::Rope>> {
        match Rope::new(&self.config).prefill_table(len) {
            Some(table) => Ok(Some(backend.rope(&table.cos, &table.sin, table.half)?)),
            None => Ok(None),
        }
    }

    /// Runs a step through all blocks: its keys and values are in the cache then, its rows in the workspace's residual
    /// stream, ready for [`Model::sample`].
    ///
    /// # Errors
    /// When the step exceeds what the buffers were made for, or the backend fails.
    pub fn forward(&self, backend: &mut B, pass: Pass<'_, B>) -> Result<()> {
        self.forward_watched(backend, pass, |_| Ok(()))
    }

    /// As [`Model::forward`], and lets `watch` look at every layer once it has attended, before the next one does. What it
    /// reads back waits for the device, so this is for looking, not for speed.
    ///
    /// # Errors
    /// As [`Model::forward`], or when `watch` fails.
    pub fn forward_watched(
        &self,
        backend: &mut B,
        mut pass: Pass<'_, B>,
        watch: impl FnMut(Watched<'_, B>) -> Result<()>,
    ) -> Result<()> {
        pass.workspace.continues = false;
        backend.upload(pass.step, &mut pass.workspace.batch)?;
        self.run_watched(backend, &mut pass, watch)
    }

    /// The blocks of a step that is uploaded.
    fn run_watched(
        &self,
        backend: &mut B,
        pass: &mut Pass<'_, B>,
        mut watch: impl FnMut(Watched<'_, B>) -> Result<()>,
    ) -> Result<()> {
        let Pass { phase, step, cache, attention, buffers, workspace, rope } = pass;
        self.check_extras(cache.layout().page_size, cache.extras())?;
        let Workspace { batch, x, .. } = &mut **workspace;
        backend.embed(Embed { table: &self.embedding, batch, x })?;
        let (config, rope, max_len) = (&self.config, rope.unwrap_or(&self.rope), step.max_len());
        let keep_gates = cache.extras().gates;
        for (layer, block) in self.blocks.iter().enumerate() {
            let kv = cache.layer_mut(layer);
            block.forward(
                backend,
                BlockPass {
                    config,
                    rope,
                    phase: *phase,
                    layer,
                    max_len,
                    kv,
                    keep_gates,
                    attention,
                    buffers,
                    workspace,
                },
            )?;
            watch(Watched { backend, layer, batch: &workspace.batch, buffers })?;
        }
        Ok(())
    }

    /// Computes the logits of `rows` of the last step, draws a token for each and waits for them.
    ///
    /// # Errors
    /// When there are more rows than the workspace has logits for, a forced token is not in the vocabulary, or the
    /// backend fails.
    pub fn sample(
        &self,
        backend: &mut B,
        rows: &[u32],
        draws: &[Draw<'_>],
        out: &mut [Sampled],
        workspace: &mut Workspace<B>,
    ) -> Result<()> {
        self.draw(backend, rows, draws, workspace)?;
        Ok(backend.read_draws(&mut workspace.draws, out)?)
    }

    /// Computes the logits of `rows` of the last step and draws a token for each, to be read by [`Backend::read_draws`].
    ///
    /// # Errors
    /// As [`Model::sample`].
    pub(crate) fn draw(
        &self,
        backend: &mut B,
        rows: &[u32],
        draws: &[Draw<'_>],
        workspace: &mut Workspace<B>,
    ) -> Result<()> {
        self.logits(backend, rows, workspace)?;
        let Workspace { logits, draws: places, continues, .. } = workspace;
        *continues = false;
        backend.start_draws(draws, places)?;
        backend.sample(Sample { logits, draws: places, next: None })?;
        Ok(backend.post_draws(places)?)
    }

    /// Runs a decode step that is uploaded, to the draw of what its rows continue with: nothing but kernels, which a
    /// device can record. `rows` counts up from 0 to the step's rows; [`Backend::start_draws`] has said how to draw.
    ///
    /// # Errors
    /// As [`Model::forward`] and [`Model::sample`].
    pub fn decode(&self, backend: &mut B, mut pass: Pass<'_, B>, rows: &[u32]) -> Result<()> {
        self.run_watched(backend, &mut pass, |_| Ok(()))?;
        self.logits(backend, rows, pass.workspace)?;
        let Workspace { logits, draws, batch, .. } = pass.workspace;
        Ok(backend.sample(Sample { logits, draws, next: Some(batch) })?)
    }

    /// Computes the logits of `rows` of the last step into the workspace.
    ///
    /// # Errors
    /// As [`Model::sample`].
    pub fn logits(&self, backend: &mut B, rows: &[u32], workspace: &mut Workspace<B>) -> Result<()> {
        let Workspace { x, logits, .. } = workspace;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let (norm, eps) = (&self.norm, self.config.rms_norm_eps);
        Ok(backend.logits(Logits { x, norm, eps, head, rows, out: logits })?)
    }

    /// Draws random keys and values for [`Model::fill_random`] into the workspace, for steps of up to `rows` rows. They
    /// stay until the next step of another kind.
    ///
    /// # Errors
    /// When the workspace has fewer rows.
    pub fn draw_random(
        &self,
        backend: &mut B,
        rows: usize,
        workspace: &mut Workspace<B>,
        seed: u64,
    ) -> Result<()> {
        let mut state = seed;
        let len = rows * self.config.heads.qkv_width();
        let noise: Vec<f32> = (0..len).map(|_| uniform(&mut state)).collect();
        Ok(backend.write_rows(&noise, &mut workspace.qkv)?)
    }

    /// Fills the step's places in the cache with what [`Model::draw_random`] drew, the same in every layer, instead of
    /// computing them: for measurements at a depth. Keys are normed and rotated like real ones.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn fill_random(
        &self,
        backend: &mut B,
        step: &Step,
        cache: &mut KvCache<B>,
        workspace: &mut Workspace<B>,
    ) -> Result<()> {
        self.check_extras(cache.layout().page_size, cache.extras())?;
        workspace.continues = false;
        backend.upload(step, &mut workspace.batch)?;
        let Workspace { batch, qkv, .. } = workspace;
        let (config, rope, keep_gates) = (&self.config, &self.rope, cache.extras().gates);
        for (layer, block) in self.blocks.iter().enumerate() {
            block
                .append(backend, Rows { config, rope, batch, qkv, kv: cache.layer_mut(layer), keep_gates })?;
        }
        Ok(())
    }

    /// # Errors
    /// When a token is not in the vocabulary; `what` names the list in the message.
    pub(crate) fn check_tokens(&self, what: &'static str, tokens: &[u32]) -> Result<()> {
        let vocab = self.config.vocab;
        match tokens.iter().position(|&token| token as usize >= vocab) {
            Some(at) => {
                let reason = format!("token {at} is {}, the vocabulary has {vocab}", tokens[at]);
                Err(Error::Request { what, reason })
            }
            None => Ok(()),
        }
    }
}

/// The next value of a uniform stream over [-1, 1): the upper bits of a 64-bit linear congruential generator with
/// Knuth's constants.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}
