//! Problems, from a file in one of the usual forms or made for the demo model.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;

use lim_model::sample_seed;
use serde_json::{Map, Value};

use crate::args::{ProblemArgs, SourceArgs};
use crate::demo;
use crate::error::{Error, Result};
use crate::grade::{self, Reference};
use crate::prompt;
use crate::random::Random;

/// A question and its right answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    /// Unique in its set.
    pub(crate) id: String,
    /// Task or subject.
    pub(crate) group: Option<String>,
    pub(crate) prompt: String,
    pub(crate) reference: Reference,
}

/// Problems in order.
#[derive(Clone, Debug)]
pub(crate) struct ProblemSet {
    /// In words.
    pub(crate) source: String,
    pub(crate) problems: Vec<Problem>,
}

/// Texts to put to a model, in order.
#[derive(Clone, Debug)]
pub(crate) struct PromptSet {
    /// In words.
    pub(crate) source: String,
    pub(crate) prompts: Vec<String>,
}

/// Where nothing else is asked for: problems of a task to answer, and to calibrate on.
const DEMO_PROBLEMS: usize = 10;
const DEMO_PROMPTS: usize = 4;

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
pub(crate) fn load(args: &ProblemArgs, embedded: bool, seed: u64) -> Result<ProblemSet> {
    let Some(path) = &args.file else {
        let count = demo_count(args.demo, embedded, DEMO_PROBLEMS, "no problems: give a FILE.jsonl")?;
        return Ok(ProblemSet { source: demo_source(count, seed), problems: generated(count, seed) });
    };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut lines = parse(&text, path, seed, args.instruction.as_deref())?;
    limit(&mut lines, args.limit);
    let problems = lines.into_iter().map(|line| line.problem(path)).collect::<Result<Vec<_>>>()?;
    let source = format!("{}, {}", file_name(path), counted(problems.len(), "problem"));
    Ok(ProblemSet { source, problems })
}

/// The prompts asked for: as [`load`], but answers may be missing, and there may be several files; one whose name does not
/// end in .jsonl is a prompt as a whole.
///
/// # Errors
/// As [`load`].
pub(crate) fn prompts(args: &SourceArgs, embedded: bool, seed: u64) -> Result<PromptSet> {
    if args.files.is_empty() {
        let count = demo_count(args.demo, embedded, DEMO_PROMPTS, "no prompts: give FILEs")?;
        let prompts = generated(count, seed).into_iter().map(|problem| problem.prompt).collect();
        return Ok(PromptSet { source: demo_source(count, seed), prompts });
    }
    let (mut prompts, mut names) = (Vec::new(), Vec::new());
    for path in &args.files {
        names.push(file_name(path));
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl")) {
            let mut lines = parse(&text, path, seed, args.instruction.as_deref())?;
            limit(&mut lines, args.limit);
            prompts.extend(lines.into_iter().map(|line| line.prompt));
        } else {
            let text = prompt::without_line_end(text);
            if text.is_empty() {
                return Err(Error::Usage(format!("{}: the prompt is empty", path.display())));
            }
            prompts.push(text);
        }
    }
    let source = format!("{}, {}", names.join(" + "), counted(prompts.len(), "prompt"));
    Ok(PromptSet { source, prompts })
}

fn demo_count(asked: Option<NonZeroUsize>, embedded: bool, default: usize, none: &str) -> Result<usize> {
    match asked {
        Some(count) => Ok(count.get()),
        None if embedded => Ok(default),
        None => Err(Error::Usage(format!("{none}, or --demo N for those of the demo model"))),
    }
}

fn demo_source(count: usize, seed: u64) -> String {
    format!("{} a task, seed {seed}", counted(count, "demo problem"))
}

/// `3 problems`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Leaves the first `most` lines of each group.
fn limit(lines: &mut Vec<Line>, most: Option<NonZeroUsize>) {
    let Some(most) = most else { return };
    let mut seen: HashMap<Option<String>, usize> = HashMap::new();
    lines.retain(|line| {
        let count = seen.entry(line.group.clone()).or_default();
        *count += 1;
        *count <= most.get()
    });
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

/// A line of a file: a problem, whose answer may be missing.
struct Line {
    number: usize,
    id: String,
    group: Option<String>,
    prompt: String,
    /// Or what is wrong with it.
    reference: Result<Reference, String>,
}

impl Line {
    fn problem(self, path: &Path) -> Result<Problem> {
        let Line { number, id, group, prompt, reference } = self;
        let reference = reference.map_err(|what| at(path, number, &what))?;
        Ok(Problem { id, group, prompt, reference })
    }
}

fn at(path: &Path, line: usize, what: &str) -> Error {
    Error::Usage(format!("{} line {line}: {what}", path.display()))
}

fn parse(text: &str, path: &Path, seed: u64, instruction: Option<&str>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let wrong = |what: String| at(path, number, &what);
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|e| wrong(format!("not a JSON object: {e}")))?;
        let line = parse_line(&object, number, sample_seed(seed, index), instruction).map_err(wrong)?;
        if let Some(first) = seen.insert(line.id.clone(), number) {
            return Err(wrong(format!("the id {} is that of line {first}", line.id)));
        }
        lines.push(line);
    }
    match lines.is_empty() {
        true => Err(Error::Usage(format!("{}: no problem in it", path.display()))),
        false => Ok(lines),
    }
}

/// What a line says, or what is wrong with it.
fn parse_line(
    object: &Map<String, Value>,
    number: usize,
    seed: u64,
    instruction: Option<&str>,
) -> Result<Line, String> {
    let one_of = |names: &[&str]| names.iter().find_map(|name| field(object, name));
    let missing = |what: &str, names: &[&str]| {
        let there: Vec<&str> = object.keys().map(String::as_str).collect();
        format!("no {what}: looked for the fields {}; there are {}", names.join(", "), there.join(", "))
    };
    let question = one_of(&QUESTION).ok_or_else(|| missing("question", &QUESTION))?;
    let (mut prompt, reference) = if INCORRECT.iter().any(|name| field(object, name).is_some()) {
        let right =
            field(object, "correct answer").ok_or_else(|| missing("right option", &["Correct Answer"]))?;
        let wrong = INCORRECT.iter().filter_map(|name| field(object, name)).collect();
        let (prompt, reference) = options(question, right, wrong, seed);
        (prompt, Ok(reference))
    } else {
        let is_demo = demo::Problem::parse(&question).is_some();
        let of = |answer| if is_demo { Reference::Demo(answer) } else { Reference::Text(answer) };
        (question, answer(object, &missing).map(of))
    };
    let usual = match &reference {
        Ok(Reference::Choice { .. }) => LETTER,
        _ if demo::Problem::parse(&prompt).is_some() => "",
        _ => STEP_BY_STEP,
    };
    let instruction = instruction.unwrap_or(usual);
    if !instruction.is_empty() {
        prompt = format!("{prompt}\n\n{instruction}");
    }
    let id = one_of(&ID).unwrap_or_else(|| format!("line {number}"));
    Ok(Line { number, id, group: one_of(&GROUP), prompt, reference })
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
        let path = Path::new("p.jsonl");
        let lines = parse(text, path, 0, None).map_err(|e| e.to_string())?;
        lines.into_iter().map(|line| line.problem(path).map_err(|e| e.to_string())).collect()
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
                let make = || {
                    let line = parse(&line, Path::new("p"), seed, Some("")).expect("valid").remove(0);
                    line.problem(Path::new("p")).expect("valid")
                };
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
    fn prompts_need_no_answers() {
        let text = "{\"prompt\": \"edit ab ba\"}\n{\"problem\": \"p\", \"solution\": \"none\"}";
        let lines = parse(text, Path::new("p.jsonl"), 0, None).expect("prompts");
        let prompts: Vec<&str> = lines.iter().map(|line| line.prompt.as_str()).collect();
        assert_eq!(prompts, ["edit ab ba", &format!("p\n\n{STEP_BY_STEP}")]);
        assert!(lines.iter().all(|line| line.reference.is_err()));
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
