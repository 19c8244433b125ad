//! Typed access to a JSON object, with errors that name file, key and value.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// A JSON object and where it comes from. A key whose value is `null` counts as absent, as in HF configs.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    file: &'a str,
    /// Key under which the object lies, empty at the top.
    under: &'a str,
    map: &'a Map<String, Value>,
}

/// Parses `text` as a JSON object.
pub(crate) fn parse_object(file: &str, text: &[u8]) -> Result<Map<String, Value>> {
    let malformed = |reason: String| Error::Malformed { file: file.into(), reason };
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed("not a JSON object".into())),
        Err(e) => Err(malformed(format!("not valid JSON: {e}"))),
    }
}

impl<'a> Object<'a> {
    pub(crate) fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        Object { file, under: "", map }
    }

    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there, be it with `null`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// The key with its path.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.under.is_empty() { key.into() } else { format!("{}.{key}", self.under) }
    }

    /// The error for `key`'s value, or its absence.
    pub(crate) fn value_error(&self, key: &str, must: impl Into<String>) -> Error {
        let found = self.map.get(key).map_or("missing".into(), shorten);
        Error::Value { file: self.file.into(), key: self.key(key), found, must: must.into() }
    }

    fn typed<T>(
        &self,
        key: &str,
        must: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => read(v).map(Some).ok_or_else(|| self.value_error(key, must)),
        }
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn object(&self, key: &'a str) -> Result<Option<Object<'a>>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Object { file: self.file, under: key, map }))
    }

    /// The first key whose value is itself an object.
    pub(crate) fn nested(&self) -> Option<&'a str> {
        self.map.iter().find(|(_, v)| v.is_object()).map(|(key, _)| key.as_str())
    }

    /// A whole number in `range`.
    pub(crate) fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let must = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(key, &must, |v| {
            v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n))
        })
    }

    /// A whole number in `range` that has to be there.
    pub(crate) fn need_count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let must = format!("a whole number from {} to {}", range.start(), range.end());
        self.count(key, range)?.ok_or_else(|| self.value_error(key, must))
    }

    /// A finite number that `valid` accepts; `must` says what it accepts.
    pub(crate) fn number(&self, key: &str, must: &str, valid: impl Fn(f64) -> bool) -> Result<Option<f64>> {
        self.typed(key, must, |v| v.as_f64().filter(|x| x.is_finite() && valid(*x)))
    }

    /// A finite number that has to be there.
    pub(crate) fn need_number(&self, key: &str, must: &str, valid: impl Fn(f64) -> bool) -> Result<f64> {
        self.number(key, must, valid)?.ok_or_else(|| self.value_error(key, must))
    }

    /// A token id, or none.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", as_token)
    }

    /// A token id, a list of them, or none.
    pub(crate) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let ids = self.typed(key, "a token id or a list of token ids", |v| match v {
            Value::Array(list) => list.iter().map(as_token).collect(),
            one => as_token(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

fn as_token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// The value as JSON, cut where it gets long.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
