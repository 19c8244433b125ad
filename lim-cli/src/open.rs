//! Opens a model: what its files say and where its weights lie, before a device is chosen.

use std::path::Path;

use lim_kernels::{DType, PageSize};
use lim_model::{
    ChatTemplate, Checkpoint, Config, Demand, Download, Gates, GenerationConfig, Hub, Message, Model,
    ModelDir, RopeKind, Tokenizer, Weights,
};
use lim_select::{Attention, ModelFile, ModelHint, Settings};
use serde_json::{Map, Value};

use crate::args::{DTypeArg, ModelArgs, OnOff};
use crate::console::Console;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::{embedded, policy, report};

/// A tokenizer.json without any token.
const NO_WORDS: &[u8] =
    br#"{"added_tokens": [], "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""}}"#;

/// Seed of `--random-weights`.
const RANDOM_SEED: u64 = 1;

/// A model whose weights are checked but not on a device yet.
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) weights: Weights,
    /// Of weights and KV cache.
    pub(crate) dtype: DType,
    /// `None` for random weights.
    dir: Option<ModelDir>,
    /// The model's lim.json.
    settings: Option<Settings>,
}

/// What turns text into tokens and back.
pub(crate) struct Text {
    /// Of a model without tokenizer.json, one without words: it reads and writes ids only.
    pub(crate) tokenizer: Tokenizer,
    pub(crate) has_words: bool,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) generation: GenerationConfig,
    /// Tokens that end an answer.
    pub(crate) end_ids: Vec<u32>,
}

/// The model of `--model`, or the embedded one.
pub(crate) fn open(args: &ModelArgs, console: Console) -> Result<Opened> {
    let Some(model) = &args.model else { return embedded(args.dtype) };
    let path = Path::new(model);
    if !path.exists() && is_hub_name(model) {
        return from_dir(model.clone(), from_hub(model, console)?, args.dtype);
    }
    let last = path.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    from_dir(last.unwrap_or_else(|| model.clone()), ModelDir::open(path)?, args.dtype)
}

/// Whether `model` reads as ORG/NAME rather than as a path.
fn is_hub_name(model: &str) -> bool {
    let parts: Vec<&str> = model.split('/').collect();
    matches!(parts[..], [org, name] if !org.is_empty() && !name.is_empty() && !org.starts_with(['.', '~']))
}

fn from_hub(name: &str, console: Console) -> Result<ModelDir> {
    let hub = Hub::from_env()?;
    console.item("hub", format_args!("{name} from {} or {}", hub.cache.display(), hub.endpoint));
    let bar = console.bytes_bar();
    let dir = hub.model(name, &mut |Download { file, done, total }| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(file.to_owned());
    })?;
    bar.finish_and_clear();
    Ok(dir)
}

/// The model in the executable.
pub(crate) fn embedded(dtype: DTypeArg) -> Result<Opened> {
    from_dir(embedded::NAME.into(), ModelDir::embedded(embedded::NAME, embedded::FILES), dtype)
}

/// Random weights in a well-known shape.
///
/// # Errors
/// A usage error when there is no such shape.
pub(crate) fn random(shape: &str, dtype: DTypeArg) -> Result<Opened> {
    let config = Config::preset(shape).map_err(|e| Error::Usage(format!("--random-weights: {e}")))?;
    let dtype = convert(dtype).or(config.dtype).unwrap_or(DType::BF16);
    let weights = Checkpoint::random(dtype, RANDOM_SEED).weights(&config, None)?;
    Ok(Opened {
        name: format!("{shape} (random weights)"),
        config,
        weights,
        dtype,
        dir: None,
        settings: None,
    })
}

fn from_dir(name: String, dir: ModelDir, dtype: DTypeArg) -> Result<Opened> {
    let (config, checkpoint) = (dir.config()?, dir.checkpoint()?);
    let settings = match dir.read("lim.json")? {
        Some(text) => {
            let file: ModelFile = serde_json::from_slice(&text)
                .map_err(|e| Error::Failed(format!("{}/lim.json: {e}", dir.name())))?;
            Some(file.attention)
        }
        None => None,
    };
    let converted = convert(dtype);
    let dtype = converted.unwrap_or_else(|| checkpoint.dtype());
    let weights = checkpoint.weights(&config, converted)?;
    Ok(Opened { name, config, weights, dtype, dir: Some(dir), settings })
}

fn convert(dtype: DTypeArg) -> Option<DType> {
    match dtype {
        DTypeArg::Auto => None,
        DTypeArg::F32 => Some(DType::F32),
        DTypeArg::Bf16 => Some(DType::BF16),
    }
}

impl Opened {
    /// Whether this is the demo model, which can be asked without a prompt.
    pub(crate) fn is_embedded(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.path().is_none())
    }

    /// Tokenizer, template and generation settings.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub(crate) fn text(&self) -> Result<Text> {
        let Some(dir) = &self.dir else {
            return Err(Error::usage(format!("{} have no tokenizer", self.name)));
        };
        let has_words = dir.read("tokenizer.json")?.is_some();
        let tokenizer =
            if has_words { dir.tokenizer()? } else { Tokenizer::from_json(("no words", NO_WORDS), None)? };
        let generation = dir.generation_config()?;
        let end_ids = tokenizer.end_tokens(&self.config, &generation);
        Ok(Text { tokenizer, has_words, template: dir.chat_template()?, generation, end_ids })
    }

    /// What `flags` over the model's lim.json come to.
    ///
    /// # Errors
    /// As [`policy::resolve`]; or when the policy needs gates and there are none for pages of this size.
    pub(crate) fn attention(&self, flags: &Settings, page_size: PageSize) -> Result<Attention> {
        let Config { family, layers, hidden, .. } = self.config;
        let hint = ModelHint { model_type: family.name(), name: &self.name, layers, hidden };
        let attention = policy::resolve(flags, self.settings.as_ref(), &hint, page_size)?;
        let gates = self.gates(std::slice::from_ref(&attention))?;
        if let Some(made_for) = gates.and_then(|gates| gates.page_size())
            && made_for != page_size
        {
            let (name, policy, size) = (&self.name, attention.policy(), made_for.tokens());
            return Err(Error::Usage(format!(
                "--page-size does not go with --attention {policy}: the gates of {name} were made for pages of {size} \
                 tokens"
            )));
        }
        Ok(attention)
    }

    /// The model's gates, where one of `attentions` needs them.
    fn gates(&self, attentions: &[Attention]) -> Result<Option<Gates>> {
        let Some(by) = attentions.iter().find(|a| a.policy().extras().gates) else { return Ok(None) };
        let Some(dir) = &self.dir else {
            return Ok(Some(Gates::random(&self.config, self.dtype, RANDOM_SEED)));
        };
        match dir.gates(&self.config) {
            Err(missing @ lim_model::Error::MissingFile { .. }) => Err(Error::Failed(format!(
                "--attention {} needs gates that were distilled from the model: {missing}",
                by.policy()
            ))),
            gates => Ok(Some(gates?)),
        }
    }

    /// The model's directory; `None` where it has none.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.dir.as_ref().and_then(|dir| dir.path())
    }

    /// The text of the model's lim.json.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn model_file(&self) -> Result<Option<String>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        Ok(dir.read("lim.json")?.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// What the model and its caches take on a device, decoding by `attentions`.
    pub(crate) fn demand<'a>(&'a self, attentions: &'a [Attention]) -> Demand<'a> {
        Demand { config: &self.config, dtype: self.dtype, attentions }
    }

    /// Where memory runs out: what `fewer` asks for, and what else helps.
    pub(crate) fn advice(&self, fewer: &str) -> String {
        let bf16 = if self.dtype == DType::F32 { ", take --dtype bf16" } else { "" };
        format!("{fewer}{bf16}, or run on another --device")
    }

    /// Brings the weights to `backend`, for positions up to `positions`, and the gates where one of `attentions` needs them.
    pub(crate) fn load<B: Machine>(
        &self,
        backend: &mut B,
        positions: usize,
        attentions: &[Attention],
        console: Console,
    ) -> Result<Model<B>> {
        let bar = console.bar("loading", self.config.layers as u64);
        let stored = B::CONVERTS.then(|| self.weights.as_stored());
        let weights = stored.as_ref().unwrap_or(&self.weights);
        let mut model = Model::load(backend, self.config.clone(), weights, positions, |layers| {
            bar.set_position(layers as u64)
        })?;
        bar.finish_and_clear();
        if let Some(gates) = self.gates(attentions)? {
            model.load_gates(backend, &gates)?;
        }
        Ok(model)
    }

    /// One line for the report.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {} parameters, {}", self.name, report::millions(self.config.parameters()), self.dtype)
    }

    /// Bytes of weights that a decode step reads: all but an embedding that is not the head, of which it reads a row.
    pub(crate) fn step_bytes(&self) -> u64 {
        let Config { vocab, hidden, tied_head, .. } = self.config;
        let embedding = if tied_head { 0 } else { vocab as u64 * hidden as u64 };
        (self.config.parameters() - embedding) * self.dtype.bytes() as u64
    }

    /// Bytes of one token's keys and values in all layers.
    pub(crate) fn kv_token_bytes(&self) -> u64 {
        let heads = self.config.heads;
        (self.config.layers * 2 * heads.kv() * heads.dim() * self.dtype.bytes()) as u64
    }

    /// The rotary embedding in words.
    pub(crate) fn rope(&self) -> String {
        let rope = &self.config.rope;
        let kind = match rope.kind {
            RopeKind::Default => "default",
            RopeKind::Linear { .. } => "linear",
            RopeKind::Dynamic { .. } => "dynamic",
            RopeKind::Llama3 { .. } => "llama3",
            RopeKind::Yarn { .. } => "yarn",
        };
        format!("{kind}, theta {}", rope.theta)
    }
}

impl Text {
    /// Ids of a text, with the special tokens that the tokenizer puts around it.
    ///
    /// # Errors
    /// A usage error when the model has no tokenizer.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        self.need_words()?;
        Ok(self.tokenizer.encode(prompt)?)
    }

    /// Ids of a one-turn conversation.
    ///
    /// # Errors
    /// A usage error when the model has no chat template, or one that would ignore `system` or `thinking`.
    pub(crate) fn chat(
        &self,
        prompt: &str,
        system: Option<&str>,
        thinking: Option<OnOff>,
    ) -> Result<Vec<u32>> {
        self.need_words()?;
        let rendered = self.render(prompt, system, thinking)?;
        if system.is_some_and(|s| !s.is_empty()) && rendered == self.render(prompt, None, thinking)? {
            return Err(Error::usage(
                "--system: the model's chat template has no place for a system message",
            ));
        }
        if thinking.is_some()
            && self.render(prompt, system, Some(OnOff::On))?
                == self.render(prompt, system, Some(OnOff::Off))?
        {
            return Err(Error::usage(
                "--thinking: the model's chat template does not look at enable_thinking",
            ));
        }
        Ok(self.tokenizer.encode_rendered(&rendered)?)
    }

    fn render(&self, prompt: &str, system: Option<&str>, thinking: Option<OnOff>) -> Result<String> {
        let Some(template) = &self.template else {
            return Err(Error::usage(
                "the model has no chat template: leave out --chat, --system and --thinking",
            ));
        };
        let mut messages: Vec<Message> =
            system.map(|text| Message::new("system", text)).into_iter().collect();
        messages.push(Message::new("user", prompt));
        let mut variables = Map::new();
        if let Some(thinking) = thinking {
            variables.insert("enable_thinking".into(), Value::Bool(thinking == OnOff::On));
        }
        Ok(template.render(&messages, true, &variables)?)
    }

    fn need_words(&self) -> Result<()> {
        match self.has_words {
            true => Ok(()),
            false => Err(Error::usage("the model has no tokenizer.json: give it --prompt-ids")),
        }
    }
}
