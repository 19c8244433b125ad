//! Text to token ids and back, the latter also one token at a time.

use std::collections::BTreeSet;

use crate::config::{Object, parse_object};
use crate::{Config, Error, GenerationConfig, Result};

/// HF's fast tokenizer with its special tokens.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where the model has one, `tokenizer_config.json`: pairs of name in errors and text.
    ///
    /// # Errors
    /// When a file is malformed or names a special token that is not in the vocabulary.
    pub fn from_json(tokenizer: (&str, &[u8]), config: Option<(&str, &[u8])>) -> Result<Self> {
        let (file, text) = tokenizer;
        let mut inner = tokenizers::Tokenizer::from_bytes(text)
            .map_err(|e| Error::Malformed { file: file.into(), reason: format!("not a tokenizer: {e}") })?;
        // Files may carry the batch settings of a training run; a prompt is never padded or cut.
        let without_batching = inner.with_padding(None).with_truncation(None).map(|_| ());
        without_batching.map_err(|e| Error::Malformed { file: file.into(), reason: e.to_string() })?;
        let (mut bos, mut eos, mut add_bos) = (None, None, false);
        if let Some((file, text)) = config {
            let map = parse_object(file, text)?;
            let json = Object::new(file, &map);
            let id = |key: &'static str| -> Result<Option<u32>> {
                let Some(token) = special_token(&json, key)? else { return Ok(None) };
                let must = "a token of the vocabulary";
                inner.token_to_id(token).map(Some).ok_or_else(|| json.value_error(key, must))
            };
            (bos, eos) = (id("bos_token")?, id("eos_token")?);
            add_bos = json.bool("add_bos_token")?.unwrap_or(false);
        }
        Ok(Tokenizer { inner, bos, eos, add_bos })
    }

    /// Token ids of a plain text, with the special tokens that the tokenizer puts around it (BOS, where it has one).
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.ids(text, true)?;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Token ids of a rendered chat template, which holds its special tokens already: nothing is added.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>> {
        self.ids(text, false)
    }

    fn ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|e| Error::Tokenize {
            reason: format!("a text of {} bytes cannot be encoded: {e}", text.len()),
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; bytes that are not UTF-8 read as U+FFFD, ids outside the vocabulary as nothing.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let failed = |e| Error::Tokenize { reason: format!("{} ids cannot be decoded: {e}", ids.len()) };
        self.inner.decode(ids, skip_special).map_err(failed)
    }

    /// A decoder for ids that come one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream { tokenizer: self, skip_special, ids: Vec::new(), shown: 0 }
    }

    /// Id of a token, special or not.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, added ones included.
    pub fn vocab(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// First token of every text, where `tokenizer_config.json` names one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, where `tokenizer_config.json` names one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Every token that ends an answer: what the config, the generation config and the tokenizer say, ascending.
    pub fn end_tokens(&self, config: &Config, generation: &GenerationConfig) -> Vec<u32> {
        let all = config.eos.iter().chain(&generation.eos).chain(&self.eos);
        all.copied().collect::<BTreeSet<u32>>().into_iter().collect()
    }
}

/// The text of a special token: a string, or an object with `content`.
pub(crate) fn special_token<'a>(json: &Object<'a>, key: &'a str) -> Result<Option<&'a str>> {
    match json.get(key).is_some_and(serde_json::Value::is_object) {
        true => json.object(key)?.map_or(Ok(None), |token| token.string("content")),
        false => json.string(key),
    }
}

/// Decodes token by token. A character that is spread over tokens comes out whole, with the token that completes it.
///
/// The pieces, with that of [`TextStream::finish`], add up to the text that decoding all ids at once gives.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last ids whose text has come out, for context, and those whose text has not.
    ids: Vec<u32>,
    /// How many of `ids` are shown.
    shown: usize,
}

impl TextStream<'_> {
    /// Takes the next id; returns the text that is now certain, possibly none.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.text(&self.ids)?;
        // A cut character decodes to U+FFFD at the end: wait for its other bytes.
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let piece = self.piece(&text)?;
        if !piece.is_empty() {
            self.ids.drain(..self.shown);
            self.shown = self.ids.len();
        }
        Ok(piece)
    }

    /// Returns the text still held back.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String> {
        let ids = std::mem::take(&mut self.ids);
        let text = self.text(&ids)?;
        self.ids = ids;
        self.piece(&text)
    }

    /// What `text`, that of all ids held, adds to what is shown. Context makes decoders that treat a text's beginning
    /// apart (a space dropped there) treat these ids as the continuation they are.
    fn piece(&self, text: &str) -> Result<String> {
        let before = self.text(&self.ids[..self.shown])?;
        match text.strip_prefix(before.as_str()) {
            Some(piece) => Ok(piece.to_owned()),
            None => self.text(&self.ids[self.shown..]),
        }
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, self.skip_special)
    }
}
