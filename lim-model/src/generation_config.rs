//! What a model's authors advise for sampling: HF's `generation_config.json`.

use crate::config::{Object, parse_object};
use crate::{Result, SamplingSettings};

/// Settings of `generation_config.json`; empty where a model has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Advised sampling. `do_sample: false` reads as temperature 0; settings that HF applies to sampling only are then
    /// left out.
    pub sampling: SamplingSettings,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// First token of every text.
    pub bos: Option<u32>,
    /// Advised limit of new tokens.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`; `file` is its name in errors.
    ///
    /// # Errors
    /// When the text is not a JSON object, or a value is of the wrong type or out of range.
    pub fn from_json(file: &str, text: &[u8]) -> Result<Self> {
        let map = parse_object(file, text)?;
        let json = Object::new(file, &map);
        Ok(GenerationConfig {
            sampling: sampling(&json)?,
            eos: json.tokens("eos_token_id")?,
            bos: json.token("bos_token_id")?,
            max_new_tokens: json.count("max_new_tokens", 1..=usize::MAX)?,
        })
    }
}

fn sampling(json: &Object<'_>) -> Result<SamplingSettings> {
    let number = |key, must, valid: fn(f64) -> bool| {
        json.number(key, must, valid).map(|x: Option<f64>| x.map(|x| x as f32))
    };
    let positive = "a positive number";
    let penalties = SamplingSettings {
        repetition_penalty: number("repetition_penalty", positive, |x| x > 0.0)?,
        presence_penalty: number("presence_penalty", "a number", |_| true)?,
        frequency_penalty: number("frequency_penalty", "a number", |_| true)?,
        ..SamplingSettings::default()
    };
    let drawn = SamplingSettings {
        temperature: number("temperature", "a number, 0 or more", |x| x >= 0.0)?,
        top_k: json.count("top_k", 0..=usize::MAX)?,
        top_p: number("top_p", "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0)?,
        min_p: number("min_p", "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))?,
        ..penalties
    };
    // HF samples only where do_sample says so; without it every other key describes sampling that does not happen.
    match json.bool("do_sample")? {
        Some(true) => Ok(SamplingSettings { temperature: drawn.temperature.or(Some(1.0)), ..drawn }),
        Some(false) => Ok(SamplingSettings { temperature: Some(0.0), ..penalties }),
        None => Ok(penalties),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<GenerationConfig> {
        GenerationConfig::from_json("generation_config.json", json.as_bytes())
    }

    #[test]
    fn qwen3s_advice_is_read() {
        let text = r#"{"bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
            "pad_token_id": 151643, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#;
        let config = read(text).unwrap();
        assert_eq!((config.eos, config.bos), (vec![151645, 151643], Some(151643)));
        let SamplingSettings { temperature, top_k, top_p, min_p, .. } = config.sampling;
        assert_eq!((temperature, top_k, top_p, min_p), (Some(0.6), Some(20), Some(0.95), None));
    }

    #[test]
    fn settings_without_sampling_do_not_sample() {
        assert_eq!(read(r#"{"temperature": 0.6}"#).unwrap().sampling, SamplingSettings::default());
        let greedy =
            read(r#"{"do_sample": false, "top_p": 0.5, "repetition_penalty": 1.1}"#).unwrap().sampling;
        let expected = SamplingSettings {
            temperature: Some(0.0),
            repetition_penalty: Some(1.1),
            ..SamplingSettings::default()
        };
        assert_eq!(greedy, expected);
        assert_eq!(read(r#"{"do_sample": true}"#).unwrap().sampling.temperature, Some(1.0));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (text, expected) in [
            (r#"{"do_sample": true, "top_p": 1.5}"#, "top_p is 1.5"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty is 0"),
            (r#"{"eos_token_id": "</s>"}"#, "eos_token_id is \"</s>\""),
            ("[]", "not a JSON object"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
