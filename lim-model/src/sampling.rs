//! Sampling settings: what the user asks for, else what the model's authors advise, else greedy.

use lim_kernels::SampleParams;

use crate::{Error, Result};

/// Sampling settings that may be left open: those of a `generation_config.json`, or those given as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingSettings {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// 0 is off.
    pub top_k: Option<usize>,
    /// Above 0, at most 1; 1 is off.
    pub top_p: Option<f32>,
    /// From 0 to 1; 0 is off.
    pub min_p: Option<f32>,
    /// Above 0; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// 0 is off.
    pub presence_penalty: Option<f32>,
    /// 0 is off.
    pub frequency_penalty: Option<f32>,
    /// Seed of the first sample.
    pub seed: Option<u64>,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Asked for.
    Given,
    /// The model's `generation_config.json`.
    Model,
    /// Neither says anything.
    Default,
}

impl Origin {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Given => "given",
            Origin::Model => "generation_config.json",
            Origin::Default => "default",
        }
    }
}

/// Settings in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Values.
    pub params: SampleParams,
    given: SamplingSettings,
    model: SamplingSettings,
}

impl Sampling {
    /// Takes each setting from `given`, else from `model`, else from [`SampleParams::default`], which is greedy.
    ///
    /// # Errors
    /// When a value is out of range; the message says which and where it comes from.
    pub fn resolve(given: SamplingSettings, model: SamplingSettings) -> Result<Self> {
        let default = SampleParams::default();
        let params = SampleParams {
            temperature: given.temperature.or(model.temperature).unwrap_or(default.temperature),
            top_k: given.top_k.or(model.top_k).unwrap_or(default.top_k),
            top_p: given.top_p.or(model.top_p).unwrap_or(default.top_p),
            min_p: given.min_p.or(model.min_p).unwrap_or(default.min_p),
            repetition_penalty: given
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            presence_penalty: given
                .presence_penalty
                .or(model.presence_penalty)
                .unwrap_or(default.presence_penalty),
            frequency_penalty: given
                .frequency_penalty
                .or(model.frequency_penalty)
                .unwrap_or(default.frequency_penalty),
            seed: given.seed.or(model.seed).unwrap_or(default.seed),
        };
        check(&params)?;
        Ok(Sampling { params, given, model })
    }

    /// Where each setting comes from, by name.
    pub fn origins(&self) -> [(&'static str, Origin); 8] {
        let (given, model) = (presence(&self.given), presence(&self.model));
        std::array::from_fn(|i| match (given[i], model[i]) {
            ((name, true), _) => (name, Origin::Given),
            ((name, false), (_, true)) => (name, Origin::Model),
            ((name, false), (_, false)) => (name, Origin::Default),
        })
    }
}

fn presence(s: &SamplingSettings) -> [(&'static str, bool); 8] {
    [
        ("temperature", s.temperature.is_some()),
        ("top_k", s.top_k.is_some()),
        ("top_p", s.top_p.is_some()),
        ("min_p", s.min_p.is_some()),
        ("repetition_penalty", s.repetition_penalty.is_some()),
        ("presence_penalty", s.presence_penalty.is_some()),
        ("frequency_penalty", s.frequency_penalty.is_some()),
        ("seed", s.seed.is_some()),
    ]
}

/// # Errors
/// When a value is out of range or not a number.
pub(crate) fn check(params: &SampleParams) -> Result<()> {
    let SampleParams { temperature, top_p, min_p, repetition_penalty, .. } = *params;
    let SampleParams { presence_penalty, frequency_penalty, .. } = *params;
    let rules = [
        ("temperature", temperature, temperature >= 0.0, "0 or more"),
        ("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0, at most 1"),
        ("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 to 1"),
        ("repetition_penalty", repetition_penalty, repetition_penalty > 0.0, "above 0"),
        ("presence_penalty", presence_penalty, true, "a number"),
        ("frequency_penalty", frequency_penalty, true, "a number"),
    ];
    match rules.into_iter().find(|&(_, value, holds, _)| !(holds && value.is_finite())) {
        Some((what, value, _, must)) => {
            Err(Error::Request { what, reason: format!("is {value}, must be {must}") })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_before_model_before_default() {
        let given = SamplingSettings { temperature: Some(0.0), seed: Some(7), ..Default::default() };
        let model = SamplingSettings { temperature: Some(0.6), top_p: Some(0.95), ..Default::default() };
        let sampling = Sampling::resolve(given, model).unwrap();
        let expected = SampleParams { temperature: 0.0, top_p: 0.95, seed: 7, ..SampleParams::default() };
        assert_eq!(sampling.params, expected);
        let origins = sampling.origins();
        assert_eq!(origins[0], ("temperature", Origin::Given));
        assert_eq!(origins[2], ("top_p", Origin::Model));
        assert_eq!(origins[3], ("min_p", Origin::Default));
        assert_eq!(origins[7], ("seed", Origin::Given));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let model = SamplingSettings::default();
        let bad = [
            (SamplingSettings { temperature: Some(-1.0), ..model }, "temperature is -1"),
            (SamplingSettings { temperature: Some(f32::NAN), ..model }, "temperature is NaN"),
            (SamplingSettings { top_p: Some(0.0), ..model }, "top_p is 0"),
            (SamplingSettings { min_p: Some(1.5), ..model }, "min_p is 1.5"),
            (SamplingSettings { repetition_penalty: Some(0.0), ..model }, "repetition_penalty is 0"),
            (
                SamplingSettings { frequency_penalty: Some(f32::INFINITY), ..model },
                "frequency_penalty is inf",
            ),
        ];
        for (given, message) in bad {
            let error = Sampling::resolve(given, model).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
