//! Grades what a model wrote: finds its answer, and compares it with the reference.
//!
//! An answer is `wrong` only where it is so for sure. Two expressions that differ in writing and may yet be equal are
//! `ungraded`.

mod equal;
mod expression;
mod extract;
mod latex;
mod rational;
#[cfg(test)]
mod table;
mod value;

use serde::{Deserialize, Serialize};

pub(crate) use equal::compare;
pub(crate) use extract::{boxed, hashes};

/// The verdict on one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    Correct,
    Wrong,
    /// Neither can be told for sure.
    Ungraded,
}

/// What the right answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A number, an expression, words.
    Text(String),
    /// One of several options, by its index.
    Choice { options: Vec<String>, right: usize },
    /// Of the demo model's problems: what stands behind the last `=`.
    Demo(String),
}

/// An answer, and the verdict on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graded {
    /// As the model wrote it, or the letter of an option; `None` where there is none.
    pub(crate) answer: Option<String>,
    pub(crate) grade: Grade,
}

impl Reference {
    /// The right answer as reports show it.
    pub(crate) fn show(&self) -> String {
        match self {
            Reference::Text(text) | Reference::Demo(text) => text.clone(),
            Reference::Choice { right, .. } => letter(*right).to_string(),
        }
    }

    /// Grades `text`. One that was cut off (`ended` is false) has an answer only if that is marked.
    pub(crate) fn grade(&self, text: &str, ended: bool) -> Graded {
        let answer = match self {
            Reference::Demo(_) => text.rsplit_once('=').filter(|_| ended).map(|(_, a)| a.trim().to_owned()),
            Reference::Choice { options, .. } => choice(text, options, ended),
            Reference::Text(reference) => free(text, reference, ended),
        };
        let grade = match &answer {
            Some(answer) => self.compare(answer),
            // Nothing was said that could be right; or it was said in words that are not understood.
            None => match self {
                Reference::Text(reference) if ended && !equal::is_number(reference) => Grade::Ungraded,
                _ => Grade::Wrong,
            },
        };
        Graded { answer, grade }
    }

    /// Whether two answers to the problem are the same.
    pub(crate) fn same(&self, a: &str, b: &str) -> bool {
        match self {
            Reference::Text(_) => compare(a, b) == Grade::Correct,
            _ => a == b,
        }
    }

    fn compare(&self, answer: &str) -> Grade {
        match self {
            Reference::Text(reference) => compare(answer, reference),
            _ if answer == self.show() => Grade::Correct,
            _ => Grade::Wrong,
        }
    }
}

/// `A` for the first option.
pub(crate) fn letter(index: usize) -> char {
    ('A'..='Z').nth(index).unwrap_or('?')
}

fn free(text: &str, reference: &str, ended: bool) -> Option<String> {
    if !equal::is_number(reference) {
        return extract::marked(text);
    }
    let last = || ended.then(|| extract::last_number(extract::after_thinking(text))).flatten();
    let answer = extract::marked(text).or_else(last)?;
    // "The answer is then 5 apples": a sentence that is no number is read from its only number on.
    match extract::from_number(&answer) {
        Some(tail) if !answer.contains('\\') && !equal::is_number(&answer) && equal::is_number(tail) => {
            Some(tail.to_owned())
        }
        _ => Some(answer),
    }
}

fn choice(text: &str, options: &[String], ended: bool) -> Option<String> {
    let count = options.len();
    let marked = extract::marked(text).and_then(|answer| {
        let spelled = || options.iter().position(|o| compare(&answer, o) == Grade::Correct).map(letter);
        extract::letter(&answer, count).or_else(spelled).or_else(|| extract::last_letter(&answer, count))
    });
    let last = || ended.then(|| extract::last_letter(extract::after_thinking(text), count)).flatten();
    marked.or_else(last).map(String::from)
}
