//! A model's hyperparameters: HF's `config.json` in the spellings of transformers 4 and 5.

mod json;
mod presets;
mod rope;

use lim_kernels::{DType, Heads};

use crate::{Error, Result};
pub(crate) use json::{Object, parse_object};
pub use rope::{RopeConfig, RopeKind};

/// Largest extent a config may ask for; keeps every product of two of them, in bytes, inside 64 bits.
const MAX_EXTENT: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;
const MAX_POSITIONS: usize = 1 << 31;

/// Model family, by HF architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `LlamaForCausalLM`.
    Llama,
    /// `MistralForCausalLM`.
    Mistral,
    /// `Qwen2ForCausalLM`: biases on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: RMSNorm on every query and key head.
    Qwen3,
}

impl Family {
    const ALL: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

    /// Name as in `architectures` of config.json.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Name as in `model_type` of config.json.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }
}

/// Everything that sets one model apart from another. The families share one block and differ by these fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Family, for reports; the block looks at the fields below only.
    pub family: Family,
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Head counts and head_dim.
    pub heads: Heads,
    /// RMSNorm over head_dim on queries and keys before the rotation.
    pub qk_norm: bool,
    /// Biases on the q, k and v projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub o_bias: bool,
    /// The head is the embedding.
    pub tied_head: bool,
    /// RMSNorm epsilon.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Positions the model was made for.
    pub max_positions: usize,
    /// First token of every text, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end an answer, by config.json alone.
    pub eos: Vec<u32>,
    /// Element type the config announces; the checkpoint's own types are what counts.
    pub dtype: Option<DType>,
}

impl Config {
    /// Reads the text of a `config.json`; `file` is its name in errors.
    ///
    /// # Errors
    /// When the text is not a JSON object, a value is missing, of the wrong type or out of range, or the model asks
    /// for what this crate does not do: another architecture, rope type or activation, a sliding window in use,
    /// quantized weights, MLP biases.
    pub fn from_json(file: &str, text: &[u8]) -> Result<Self> {
        let map = parse_object(file, text)?;
        let json = Object::new(file, &map);
        let family = family(&json)?;
        refuse_unsupported(&json)?;

        let hidden = json.need_count("hidden_size", 1..=MAX_EXTENT)?;
        let layers = json.need_count("num_hidden_layers", 1..=MAX_LAYERS)?;
        let heads = heads(&json, family, hidden)?;
        let max_positions = json.need_count("max_position_embeddings", 1..=MAX_POSITIONS)?;
        refuse_sliding_window(&json, family, layers, max_positions)?;
        let attention_bias = match family {
            Family::Llama | Family::Qwen3 => json.bool("attention_bias")?.unwrap_or(false),
            Family::Qwen2 | Family::Mistral => false,
        };
        let eps = json.number("rms_norm_eps", "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
        Ok(Config {
            family,
            vocab: json.need_count("vocab_size", 1..=MAX_EXTENT)?,
            hidden,
            intermediate: json.need_count("intermediate_size", 1..=MAX_EXTENT)?,
            layers,
            heads,
            qk_norm: family == Family::Qwen3,
            qkv_bias: attention_bias || family == Family::Qwen2,
            o_bias: attention_bias,
            tied_head: json.bool("tie_word_embeddings")?.unwrap_or(false),
            rms_norm_eps: eps.unwrap_or(1e-6) as f32,
            rope: RopeConfig::read(&json, heads.dim(), max_positions)?,
            max_positions,
            bos: json.token("bos_token_id")?,
            eos: json.tokens("eos_token_id")?,
            dtype: dtype(&json)?,
        })
    }

    /// Shape of one of the well-known models, for measurements without a checkpoint: `qwen3-0.6b`, `qwen3-4b`,
    /// `qwen3-8b`, `llama-3.1-8b`, `r1-distill-qwen-7b`.
    ///
    /// # Errors
    /// When there is no such preset; the message lists them.
    pub fn preset(name: &str) -> Result<Self> {
        presets::preset(name)
    }

    /// Number of parameters, the head not counted where it is tied.
    pub fn parameters(&self) -> u64 {
        let [hidden, inter] = [self.hidden as u64, self.intermediate as u64];
        let (q, kv) = self.projection_widths();
        let attention = hidden * (2 * q + 2 * kv)
            + if self.qkv_bias { q + 2 * kv } else { 0 }
            + if self.o_bias { hidden } else { 0 }
            + if self.qk_norm { 2 * self.heads.dim() as u64 } else { 0 };
        let block = attention + 3 * hidden * inter + 2 * hidden;
        let tables = if self.tied_head { 1 } else { 2 } * self.vocab as u64 * hidden;
        tables + self.layers as u64 * block + hidden
    }

    /// Widths of the q and of the k (or v) projection.
    fn projection_widths(&self) -> (u64, u64) {
        ((self.heads.query() * self.heads.dim()) as u64, (self.heads.kv() * self.heads.dim()) as u64)
    }
}

fn family(json: &Object<'_>) -> Result<Family> {
    let supported = Family::ALL.map(Family::architecture).join(", ");
    let unsupported = |found: String| Error::Unsupported {
        file: json.file().into(),
        what: "architecture".into(),
        found,
        supported,
    };
    let names = match json.get("architectures") {
        None => return Err(json.value_error("architectures", "a list with the model's architecture")),
        Some(v) => v
            .as_array()
            .and_then(|list| list.iter().map(|v| v.as_str()).collect::<Option<Vec<_>>>())
            .ok_or_else(|| json.value_error("architectures", "a list of strings"))?,
    };
    match names[..] {
        [name] => Family::ALL
            .into_iter()
            .find(|f| f.architecture() == name)
            .ok_or_else(|| unsupported(name.to_owned())),
        _ => Err(json.value_error("architectures", "a list with one architecture")),
    }
}

fn refuse_unsupported(json: &Object<'_>) -> Result<()> {
    let refuse = |key: &str, supported: &str| {
        Err(Error::Unsupported {
            file: json.file().into(),
            what: json.key(key),
            found: json.get(key).map_or_else(String::new, |v| v.to_string().chars().take(80).collect()),
            supported: supported.into(),
        })
    };
    if json.string("hidden_act")?.is_some_and(|act| act != "silu") {
        return refuse("hidden_act", "only silu");
    }
    if json.bool("mlp_bias")?.unwrap_or(false) {
        return refuse("mlp_bias", "only false");
    }
    if json.get("quantization_config").is_some() {
        return refuse("quantization_config", "only f32, f16 and bf16 weights");
    }
    let whole_head = |x: f64| x > 0.0 && x <= 1.0;
    let partial = json.number("partial_rotary_factor", "a number above 0, at most 1", whole_head)?;
    if partial.is_some_and(|x| x != 1.0) {
        return refuse("partial_rotary_factor", "only 1, a rotation of the whole head");
    }
    Ok(())
}

fn heads(json: &Object<'_>, family: Family, hidden: usize) -> Result<Heads> {
    let query = json.need_count("num_attention_heads", 1..=MAX_EXTENT)?;
    // HF gives Llama and an explicit null as many KV heads as query heads; the other classes default to a fixed
    // number that fits no real checkpoint, so there the key has to be present.
    let kv = match json.count("num_key_value_heads", 1..=MAX_EXTENT)? {
        Some(kv) => kv,
        None if family == Family::Llama || json.has("num_key_value_heads") => query,
        None => return Err(json.value_error("num_key_value_heads", "present")),
    };
    let dim = match json.count("head_dim", 1..=MAX_EXTENT)? {
        Some(dim) => dim,
        None if family == Family::Qwen3 => 128,
        None if hidden.is_multiple_of(query) => hidden / query,
        None => {
            let must = format!("a multiple of the {query} attention heads where head_dim is not given");
            return Err(json.value_error("hidden_size", must));
        }
    };
    if query.saturating_mul(dim) > MAX_EXTENT {
        let must = format!("at most {MAX_EXTENT} when multiplied with head_dim {dim}");
        return Err(json.value_error("num_attention_heads", must));
    }
    Heads::new(query, kv, dim)
        .map_err(|e| Error::Malformed { file: json.file().into(), reason: e.to_string() })
}

/// A window of at least `max_position_embeddings` tokens never cuts anything and is not in use.
fn refuse_sliding_window(
    json: &Object<'_>,
    family: Family,
    layers: usize,
    max_positions: usize,
) -> Result<()> {
    let window = json.count("sliding_window", 0..=usize::MAX)?;
    let (window, why) = match family {
        Family::Llama => return Ok(()),
        // HF's MistralConfig has a window of 4096 unless the key says null.
        Family::Mistral if !json.has("sliding_window") => {
            (Some(4096), " (HF's default where the key is absent)")
        }
        Family::Mistral => (window, ""),
        Family::Qwen2 | Family::Qwen3 => {
            let used = json.bool("use_sliding_window")?.unwrap_or(false) && windowed_layers(json, layers)?;
            (window.or((!json.has("sliding_window")).then_some(4096)).filter(|_| used), "")
        }
    };
    match window {
        Some(window) if window < max_positions => Err(Error::Unsupported {
            file: json.file().into(),
            what: "sliding_window".into(),
            found: format!("{window}{why}"),
            supported: "only null, or a window no shorter than max_position_embeddings".into(),
        }),
        _ => Ok(()),
    }
}

/// Whether a Qwen config gives any layer a window.
fn windowed_layers(json: &Object<'_>, layers: usize) -> Result<bool> {
    match json.get("layer_types") {
        Some(types) => {
            let types =
                types.as_array().ok_or_else(|| json.value_error("layer_types", "a list of strings"))?;
            Ok(types.iter().any(|t| t.as_str() != Some("full_attention")))
        }
        None => Ok(json.count("max_window_layers", 0..=usize::MAX)?.unwrap_or(28) < layers),
    }
}

/// `dtype` (transformers 5) or `torch_dtype` (4).
fn dtype(json: &Object<'_>) -> Result<Option<DType>> {
    let key = if json.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match json.string(key)? {
        None | Some("auto") => Ok(None),
        Some("float32") => Ok(Some(DType::F32)),
        Some("float16") => Ok(Some(DType::F16)),
        Some("bfloat16") => Ok(Some(DType::BF16)),
        Some(other) => Err(Error::Unsupported {
            file: json.file().into(),
            what: json.key(key),
            found: other.into(),
            supported: "float32, float16, bfloat16".into(),
        }),
    }
}
