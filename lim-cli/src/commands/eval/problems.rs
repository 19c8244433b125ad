//! Problems, from a file in one of the usual forms or made for the demo model.

use std::collections::HashMap;
use std::path::Path;

use lim_model::sample_seed;
use serde_json::{Map, Value};

use crate::args::ProblemArgs;
use crate::demo;
use crate::error::{Error, Result};
use crate::grade::{self, Reference};
use crate::random::Random;

/// A question and its right answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// Unique in its set.
    pub(super) id: String,
    /// Task or subject.
    pub(super) group: Option<String>,
    pub(super) prompt: String,
    pub(super) reference: Reference,
}

/// Problems in order.
#[derive(Clone, Debug)]
pub(super) struct ProblemSet {
    /// In words.
    pub(super) source: String,
    pub(super) problems: Vec<Problem>,
}

/// Where nothing else is asked for.
const DEMO_PROBLEMS: usize = 10;

const STEP_BY_STEP: &str = "Please reason step by step, and put your final answer within \\boxed{}.";
const LETTER: &str = "Please reason step by step, and put the letter of your answer within \\boxed{}.";

/// Fields that hold the question, the answer, the task; the first that is there counts, in any case of letters.
const QUESTION: [&str; 3] = ["problem", "question", "prompt"];
const ANSWER: [&str; 3] = ["answer", "correct answer", "solution"];
const GROUP: [&str; 3] = ["subject", "task", "high-level domain"];
const ID: [&str; 3] = ["unique_id", "id", "record id"];
const INCORRECT: [&str; 3] = ["incorrect answer 1", "incorrect answer 2", "incorrect answer 3"];

/// The problems asked for. `embedded`: whether the demo model is to solve them. `seed` makes demo problems and shuffles
/// options.
///
/// # Errors
/// When there are none for a model of the user's own, or the file is not as it should be: the message names the line.
pub(super) fn load(args: &ProblemArgs, embedded: bool, seed: u64) -> Result<ProblemSet> {
    let Some(path) = &args.file else {
        if args.demo.is_none() && !embedded {
            return Err(Error::usage(
                "no problems: give a FILE.jsonl, or --demo N for those of the demo model",
            ));
        }
        let count = args.demo.map_or(DEMO_PROBLEMS, |n| n.get());
        let source = format!("{count} demo problem{} a task, seed {seed}", if count == 1 { "" } else { "s" });
        return Ok(ProblemSet { source, problems: generated(count, seed) });
    };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut problems = parse(&text, path, seed, args.instruction.as_deref())?;
    if let Some(limit) = args.limit {
        let mut seen: HashMap<Option<String>, usize> = HashMap::new();
        problems.retain(|problem| {
            let count = seen.entry(problem.group.clone()).or_default();
            *count += 1;
            *count <= limit.get()
        });
    }
    let name =
        path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    let count = problems.len();
    let source = format!("{name}, {count} problem{}", if count == 1 { "" } else { "s" });
    Ok(ProblemSet { source, problems })
}

/// So many problems of each task, tasks in turn.
fn generated(count: usize, seed: u64) -> Vec<Problem> {
    // A multiple of 3 leaves the tasks in turn, far enough from the problems of other seeds.
    let base = seed.wrapping_mul(3 << 32);
    (0..3 * count)
        .map(|i| {
            let problem = demo::Problem::sample(base.wrapping_add(i as u64));
            Problem {
                id: format!("{}-{}", problem.task(), i / 3),
                group: Some(problem.task().to_owned()),
                prompt: problem.to_string(),
                reference: Reference::Demo(problem.answer()),
            }
        })
        .collect()
}

fn parse(text: &str, path: &Path, seed: u64, instruction: Option<&str>) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let at = |what: String| Error::Usage(format!("{} line {number}: {what}", path.display()));
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|e| at(format!("not a JSON object: {e}")))?;
        let problem = problem(&object, number, sample_seed(seed, index), instruction).map_err(at)?;
        if let Some(first) = lines.insert(problem.id.clone(), number) {
            return Err(at(format!("the id {} is that of line {first}", problem.id)));
        }
        problems.push(problem);
    }
    match problems.is_empty() {
        true => Err(Error::Usage(format!("{}: no problem in it", path.display()))),
        false => Ok(problems),
    }
}

/// A line's problem, or what is wrong with it.
fn problem(
    object: &Map<String, Value>,
    line: usize,
    seed: u64,
    instruction: Option<&str>,
) -> Result<Problem, String> {
    let one_of = |names: &[&str]| names.iter().find_map(|name| field(object, name));
    let missing = |what: &str, names: &[&str]| {
        let there: Vec<&str> = object.keys().map(String::as_str).collect();
        format!("no {what}: looked for the fields {}; there are {}", names.join(", "), there.join(", "))
    };
    let question = one_of(&QUESTION).ok_or_else(|| missing("question", &QUESTION))?;
    let (mut prompt, reference) = if INCORRECT.iter().any(|name| field(object, name).is_some()) {
        let right =
            field(object, "correct answer").ok_or_else(|| missing("right option", &["Correct Answer"]))?;
        options(question, right, INCORRECT.iter().filter_map(|name| field(object, name)).collect(), seed)
    } else {
        let answer = answer(object, &missing)?;
        let is_demo = demo::Problem::parse(&question).is_some();
        (question, if is_demo { Reference::Demo(answer) } else { Reference::Text(answer) })
    };
    let usual = match reference {
        Reference::Text(_) => STEP_BY_STEP,
        Reference::Choice { .. } => LETTER,
        Reference::Demo(_) => "",
    };
    let instruction = instruction.unwrap_or(usual);
    if !instruction.is_empty() {
        prompt = format!("{prompt}\n\n{instruction}");
    }
    let id = one_of(&ID).unwrap_or_else(|| format!("line {line}"));
    Ok(Problem { id, group: one_of(&GROUP), prompt, reference })
}

/// The right answer: what stands behind `####` of GSM8K, or in the last `\boxed` of a solution.
fn answer(object: &Map<String, Value>, missing: &dyn Fn(&str, &[&str]) -> String) -> Result<String, String> {
    if let Some(answer) = field(object, "answer").or_else(|| field(object, "correct answer")) {
        return Ok(grade::hashes(&answer).unwrap_or(answer));
    }
    let solution = field(object, "solution").ok_or_else(|| missing("answer", &ANSWER))?;
    grade::boxed(&solution)
        .or_else(|| grade::hashes(&solution))
        .ok_or_else(|| "no answer: the solution has no \\boxed and no ####".to_owned())
}

/// A question with its options in an order that `seed` gives.
fn options(question: String, right: String, wrong: Vec<String>, seed: u64) -> (String, Reference) {
    let mut order: Vec<usize> = (0..=wrong.len()).collect();
    Random(seed).shuffle(&mut order);
    let all: Vec<String> =
        std::iter::once(right).chain(wrong).map(|option| option.trim().to_owned()).collect();
    let options: Vec<String> = order.iter().map(|&i| all[i].clone()).collect();
    let mut prompt = format!("{}\n", question.trim());
    for (index, option) in options.iter().enumerate() {
        prompt.push_str(&format!("\n{}) {option}", grade::letter(index)));
    }
    let right = order.iter().position(|&i| i == 0).unwrap_or(0);
    (prompt, Reference::Choice { options, right })
}

/// A text, or a number as text; an empty text is none.
fn field(object: &Map<String, Value>, name: &str) -> Option<String> {
    let (_, value) = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Problem>, String> {
        parse(text, Path::new("p.jsonl"), 0, None).map_err(|e| e.to_string())
    }

    fn reference(line: &str) -> Reference {
        read(line).expect(line).remove(0).reference
    }

    #[test]
    fn the_usual_files_are_understood() {
        let text = |answer: &str| Reference::Text(answer.into());
        assert_eq!(reference(r#"{"problem": "p", "answer": 204}"#), text("204"));
        assert_eq!(reference(r#"{"question": "p", "answer": "So 6 * 7.\n#### 42"}"#), text("42"));
        assert_eq!(
            reference(r#"{"problem": "p", "solution": "so $\\boxed{\\frac{1}{2}}$."}"#),
            text("\\frac{1}{2}")
        );
        let math500 =
            r#"{"problem": "p", "solution": "s", "answer": "3", "subject": "Algebra", "unique_id": "a/1"}"#;
        let problem = read(math500).expect("valid").remove(0);
        assert_eq!((problem.id.as_str(), problem.group.as_deref()), ("a/1", Some("Algebra")));
        assert_eq!(problem.prompt, format!("p\n\n{STEP_BY_STEP}"));
    }

    #[test]
    fn options_are_shuffled_as_the_seed_says() {
        let line = r#"{"Question": "q", "Correct Answer": "yes", "Incorrect Answer 1": "no", "Incorrect Answer 2": "maybe",
                       "Incorrect Answer 3": "never", "High-level domain": "Physics"}"#
            .replace('\n', " ");
        let rights: Vec<usize> = (0..8)
            .map(|seed| {
                let make = || parse(&line, Path::new("p"), seed, Some("")).expect("valid").remove(0);
                let Problem { prompt, reference, group, .. } = make();
                let Reference::Choice { options, right } = reference else { panic!("options") };
                assert_eq!(
                    (options[right].as_str(), options.len(), group.as_deref()),
                    ("yes", 4, Some("Physics"))
                );
                assert!(
                    prompt.starts_with("q\n\nA) ")
                        && prompt.contains(&format!("{}) yes", grade::letter(right)))
                );
                assert_eq!(prompt, make().prompt);
                right
            })
            .collect();
        assert!(rights.iter().any(|r| *r != rights[0]), "{rights:?}");
    }

    #[test]
    fn a_bad_line_is_named_with_what_was_looked_for() {
        let bad = |text: &str, words: &[&str]| {
            let error = read(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        bad("{\"problem\": \"p\", \"answer\": \"1\"}\n{oops", &["p.jsonl line 2", "JSON"]);
        bad("[1]", &["line 1", "JSON object"]);
        bad(
            r#"{"text": "p", "answer": "1"}"#,
            &["line 1", "problem, question, prompt", "there are text, answer"],
        );
        bad(r#"{"problem": "p"}"#, &["no answer", "answer, correct answer, solution"]);
        bad(r#"{"problem": "p", "solution": "none"}"#, &["\\boxed"]);
        bad("\n\n", &["no problem in it"]);
        let twice = r#"{"problem": "p", "answer": "1", "id": 7}"#;
        bad(&format!("{twice}\n{twice}"), &["line 2", "id 7", "line 1"]);
    }

    #[test]
    fn demo_problems_take_turns_and_differ_by_seed() {
        let [a, b] = [0, 1].map(|seed| generated(4, seed));
        let tasks: Vec<&str> = a.iter().filter_map(|p| p.group.as_deref()).collect();
        assert_eq!(tasks[..6], ["edit", "walk", "prog", "edit", "walk", "prog"]);
        assert_eq!((a.len(), a[4].id.as_str()), (12, "walk-1"));
        assert!(a.iter().zip(&b).all(|(a, b)| a.prompt != b.prompt));
        assert_eq!(a[0].prompt, demo::Problem::sample(0).to_string());
    }
}
