//! What the answers of a setting, or of one task under it, come to.

use serde::Serialize;

use super::record::{Count, Outcome};
use crate::grade::Grade;

/// Figures of a setting over a task's problems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) setting: String,
    /// `None` for all together.
    pub(super) group: Option<String>,
    pub(super) problems: usize,
    /// Samples in all.
    pub(super) samples: usize,
    /// Right answers of a problem's samples, mean over problems. What is not graded is not right.
    pub(super) pass_at_1: f64,
    /// Standard error of that mean over problems; `None` for a single one.
    pub(super) pass_at_1_se: Option<f64>,
    /// Problems whose most frequent answer is right; `None` with one sample each.
    pub(super) majority: Option<f64>,
    pub(super) mean_tokens: f64,
    /// Of the samples; 95 in 100 are no longer.
    pub(super) p95_tokens: usize,
    /// Share of samples that were still writing at the end of their room.
    pub(super) truncated: f64,
    pub(super) ungraded: f64,
    /// Means over decode steps (and layers); `None` where nothing was decoded or counted.
    pub(super) mean_context_tokens: Option<f64>,
    pub(super) mean_attended_tokens: Option<f64>,
}

/// Sums up outcomes in which a problem's samples stand together. `same` tells whether two answers to a problem are the same.
pub(super) fn row(
    setting: &str,
    group: Option<&str>,
    outcomes: &[&Outcome],
    same: impl Fn(&str, &str, &str) -> bool,
) -> Row {
    let problems: Vec<&[&Outcome]> = outcomes.chunk_by(|a, b| a.record.problem == b.record.problem).collect();
    let share = |outcomes: &[&Outcome], is: &dyn Fn(&Outcome) -> bool| {
        outcomes.iter().filter(|o| is(o)).count() as f64 / outcomes.len().max(1) as f64
    };
    let right: Vec<f64> =
        problems.iter().map(|samples| share(samples, &|o| o.record.grade == Grade::Correct)).collect();
    let (pass_at_1, pass_at_1_se) = mean_error(&right);
    let voted = || {
        let won = problems.iter().filter(|samples| majority(samples, &same) == Some(Grade::Correct));
        won.count() as f64 / problems.len().max(1) as f64
    };
    let mut tokens: Vec<usize> = outcomes.iter().map(|o| o.record.tokens).collect();
    tokens.sort_unstable();
    let mean_tokens = tokens.iter().sum::<usize>() as f64 / tokens.len().max(1) as f64;
    let counts: Vec<Count> = outcomes.iter().filter_map(|o| o.count).collect();
    let steps: u64 = counts.iter().map(|c| c.steps).sum();
    let per_step = |part: fn(&Count) -> f64| {
        let sum: f64 = counts.iter().map(|c| part(c) * c.steps as f64).sum();
        (steps > 0).then(|| sum / steps as f64)
    };
    Row {
        setting: setting.to_owned(),
        group: group.map(str::to_owned),
        problems: problems.len(),
        samples: outcomes.len(),
        pass_at_1,
        pass_at_1_se,
        majority: (outcomes.len() > problems.len()).then(voted),
        mean_tokens,
        p95_tokens: percentile(&tokens, 95),
        truncated: share(outcomes, &|o| o.record.truncated()),
        ungraded: share(outcomes, &|o| o.record.grade == Grade::Ungraded),
        mean_context_tokens: per_step(|c| c.context_tokens),
        mean_attended_tokens: per_step(|c| c.attended_tokens),
    }
}

/// Mean, and the standard error of it.
fn mean_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return (mean, None);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, Some((squares / (count - 1.0) / count).sqrt()))
}

/// The smallest of `sorted` that `percent` in a hundred do not exceed; 0 of none.
fn percentile(sorted: &[usize], percent: usize) -> usize {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The verdict on the answer that most samples give, the earlier one on a tie; `None` where no sample gives any.
fn majority(samples: &[&Outcome], same: &impl Fn(&str, &str, &str) -> bool) -> Option<Grade> {
    let mut votes: Vec<(&Outcome, usize)> = Vec::new();
    for &sample in samples {
        let Some(answer) = &sample.record.answer else { continue };
        let known = votes.iter_mut().find(|(other, _)| {
            other.record.answer.as_ref().is_some_and(|other| same(&sample.record.problem, other, answer))
        });
        match known {
            Some((_, count)) => *count += 1,
            None => votes.push((sample, 1)),
        }
    }
    // Of equals, max_by_key takes the last: so from behind.
    votes.iter().rev().max_by_key(|(_, count)| *count).map(|(sample, _)| sample.record.grade)
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    /// Samples of problems: answer, grade, tokens.
    fn outcomes(problems: &[&[(&str, Grade, usize)]]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (number, samples) in problems.iter().enumerate() {
            for (sample, &(answer, grade, tokens)) in samples.iter().enumerate() {
                let record = Record {
                    setting: "full".into(),
                    problem: number.to_string(),
                    group: None,
                    sample,
                    seed: 0,
                    answer: Some(answer.to_owned()).filter(|a| !a.is_empty()),
                    reference: String::new(),
                    grade,
                    tokens,
                    finish_reason: if answer.is_empty() { "length" } else { "stop" }.into(),
                    text: None,
                };
                let count = Count {
                    steps: tokens as u64,
                    context_tokens: 100.0,
                    attended_tokens: if number == 0 { 10.0 } else { 40.0 },
                };
                outcomes.push(Outcome { record, count: Some(count) });
            }
        }
        outcomes
    }

    fn summed(problems: &[&[(&str, Grade, usize)]]) -> Row {
        let outcomes = outcomes(problems);
        row("full", None, &outcomes.iter().collect::<Vec<_>>(), |_, a, b| a == b)
    }

    use Grade::{Correct, Ungraded, Wrong};

    #[test]
    fn figures() {
        let row = summed(&[
            &[("1", Correct, 100), ("1", Correct, 100), ("2", Wrong, 100), ("", Wrong, 100)],
            &[("3", Wrong, 200), ("4", Correct, 200), ("3", Wrong, 200), ("x", Ungraded, 400)],
            &[("5", Correct, 100), ("5", Correct, 100), ("5", Correct, 100), ("5", Correct, 100)],
        ]);
        assert_eq!((row.problems, row.samples), (3, 12));
        // 0.5, 0.25 and 1: mean 7/12, sample variance 7/48.
        assert!((row.pass_at_1 - 7.0 / 12.0).abs() < 1e-12);
        assert!(row.pass_at_1_se.is_some_and(|se| (se - (7.0f64 / 48.0 / 3.0).sqrt()).abs() < 1e-12));
        assert_eq!(row.majority, Some(2.0 / 3.0));
        assert_eq!((row.mean_tokens, row.p95_tokens), (150.0, 400));
        assert_eq!((row.truncated, row.ungraded), (1.0 / 12.0, 1.0 / 12.0));
        // 400 steps of 10, 1400 of 40.
        assert_eq!(row.mean_attended_tokens, Some(60000.0 / 1800.0));
        assert_eq!(row.mean_context_tokens, Some(100.0));
    }

    #[test]
    fn one_problem_has_no_error_and_one_sample_no_vote() {
        let row = summed(&[&[("1", Correct, 7)]]);
        assert_eq!((row.pass_at_1, row.pass_at_1_se, row.majority, row.p95_tokens), (1.0, None, None, 7));
        let none = summed(&[]);
        assert_eq!((none.pass_at_1, none.mean_attended_tokens, none.p95_tokens), (0.0, None, 0));
    }

    #[test]
    fn ties_go_to_the_first_and_silence_has_no_vote() {
        let vote = |samples: &[(&str, Grade, usize)]| {
            let outcomes = outcomes(&[samples]);
            majority(&outcomes.iter().collect::<Vec<_>>(), &|_: &str, a: &str, b: &str| a == b)
        };
        assert_eq!(vote(&[("1", Correct, 1), ("2", Wrong, 1)]), Some(Correct));
        assert_eq!(vote(&[("2", Wrong, 1), ("1", Correct, 1)]), Some(Wrong));
        assert_eq!(vote(&[("", Wrong, 1), ("", Wrong, 1), ("1", Correct, 1)]), Some(Correct));
        assert_eq!(vote(&[("", Wrong, 1)]), None);
    }

    #[test]
    fn percentiles_are_values_that_occur() {
        let values: Vec<usize> = (1..=100).collect();
        assert_eq!(
            (percentile(&values, 95), percentile(&values[..20], 95), percentile(&[3, 9], 95)),
            (95, 19, 9)
        );
    }
}
