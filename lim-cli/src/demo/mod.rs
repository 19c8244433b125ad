//! The problems that the demo model was trained to solve, with their right answers: `lim-bench/train/tasks.py` in
//! Rust. What the model says is checked against these.

mod sample;

use std::fmt;

use crate::output::Check;

/// What the demo model is not.
pub(crate) const ONLY: &str = "the demo model solves problems such as `edit kitten sitting`, `walk ab bc ca from a 4` \
                               and `prog x3 y7 do 2 Ax=x+y,By=y*x;`; what it says to anything else means nothing";

/// A problem in one of the three forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// `edit kitten sitting`: how many letters must be inserted, deleted or replaced?
    Edit { from: String, to: String },
    /// `walk ab ba from a 12`: where do 12 steps along the arrows a -> b, b -> a lead?
    Walk { arrows: Vec<(char, char)>, start: char, steps: usize },
    /// `prog x3 y7 do 12 Ax=x+y,By=y*x;`: what are the variables, modulo 10, after 12 rounds of the lines A and B?
    Prog { start: Vec<(char, u8)>, rounds: usize, lines: Vec<Line> },
}

/// `Ax=x+y`: label, variable, operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    label: char,
    target: char,
    left: char,
    op: char,
    right: char,
}

/// Longest words of `edit`, as many rounds or steps as the model has digits for: it has seen nothing beyond.
const MAX_WORD: usize = 24;
const MAX_STEPS: usize = 999;
const MAX_ROUNDS: usize = 99;
const MAX_LINES: usize = 12;
const MAX_NAMES: usize = 6;

impl Problem {
    /// The problem that a prompt states, if it has one of the forms and sizes that the model was trained on.
    pub(crate) fn parse(prompt: &str) -> Option<Self> {
        let words: Vec<&str> = prompt.split_whitespace().collect();
        match words[..] {
            ["edit", from, to] => {
                let fits = |w: &str| w.len() <= MAX_WORD && w.bytes().all(|b| b.is_ascii_lowercase());
                (fits(from) && fits(to)).then(|| Problem::Edit { from: from.into(), to: to.into() })
            }
            ["walk", ref arrows @ .., "from", start, steps] => {
                let arrows = arrows.iter().map(|a| pair(a)).collect::<Option<Vec<_>>>()?;
                let (start, steps) = (one(start)?, count(steps, MAX_STEPS)?);
                let problem = Problem::Walk { arrows, start, steps };
                problem.walk_end().map(|_| problem)
            }
            ["prog", ref start @ .., "do", rounds, body] => {
                let start = start.iter().map(|v| variable(v)).collect::<Option<Vec<_>>>()?;
                let lines =
                    body.strip_suffix(';')?.split(',').enumerate().map(line).collect::<Option<Vec<_>>>()?;
                let known = |name: char| start.iter().any(|(n, _)| *n == name);
                let closed = lines.iter().all(|l| known(l.target) && known(l.left) && known(l.right));
                let distinct =
                    start.iter().enumerate().all(|(i, (n, _))| start[..i].iter().all(|(m, _)| m != n));
                let fits = start.len() <= MAX_NAMES && lines.len() <= MAX_LINES;
                let rounds = count(rounds, MAX_ROUNDS)?;
                (closed && distinct && fits).then_some(Problem::Prog { start, rounds, lines })
            }
            _ => None,
        }
    }

    /// First word of the prompt.
    pub(crate) fn task(&self) -> &'static str {
        match self {
            Problem::Edit { .. } => "edit",
            Problem::Walk { .. } => "walk",
            Problem::Prog { .. } => "prog",
        }
    }

    /// The right answer as the model should write it.
    pub(crate) fn answer(&self) -> String {
        match self {
            Problem::Edit { from, to } => edit_distance(from.as_bytes(), to.as_bytes()).to_string(),
            Problem::Walk { .. } => self.walk_end().map_or_else(String::new, String::from),
            Problem::Prog { start, rounds, lines } => run(start, *rounds, lines),
        }
    }

    /// Compares what the model said, which ends in `=ANSWER`, with the right answer. A text that was cut off
    /// (`ended` is false) gives none.
    pub(crate) fn check(&self, text: &str, ended: bool) -> Check {
        let expected = self.answer();
        let answer = text.rsplit_once('=').filter(|_| ended).map(|(_, answer)| answer.trim().to_owned());
        Check { task: self.task(), correct: answer.as_ref() == Some(&expected), expected, answer }
    }

    /// Where the walk ends; `None` when an arrow is missing or given twice.
    fn walk_end(&self) -> Option<char> {
        let Problem::Walk { arrows, start, steps } = self else { return None };
        let next = |at: char| {
            let mut from = arrows.iter().filter(|(a, _)| *a == at);
            let (_, to) = from.next()?;
            from.next().is_none().then_some(*to)
        };
        (0..*steps).try_fold(*start, |at, _| next(at))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Edit { from, to } => write!(f, "edit {from} {to}"),
            Problem::Walk { arrows, start, steps } => {
                f.write_str("walk")?;
                arrows.iter().try_for_each(|(a, b)| write!(f, " {a}{b}"))?;
                write!(f, " from {start} {steps}")
            }
            Problem::Prog { start, rounds, lines } => {
                f.write_str("prog")?;
                start.iter().try_for_each(|(name, value)| write!(f, " {name}{value}"))?;
                write!(f, " do {rounds} ")?;
                for (i, Line { label, target, left, op, right }) in lines.iter().enumerate() {
                    write!(f, "{}{label}{target}={left}{op}{right}", if i == 0 { "" } else { "," })?;
                }
                f.write_str(";")
            }
        }
    }
}

/// Levenshtein's distance, row by row.
fn edit_distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let cell = if a == b { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = std::mem::replace(&mut row[j + 1], cell);
        }
    }
    row[to.len()]
}

fn run(start: &[(char, u8)], rounds: usize, lines: &[Line]) -> String {
    let mut variables = start.to_vec();
    for _ in 0..rounds {
        for line in lines {
            let value =
                |name: char| variables.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| i32::from(*v));
            let (left, right) = (value(line.left), value(line.right));
            let result = match line.op {
                '+' => left + right,
                '-' => left - right,
                _ => left * right,
            };
            if let Some((_, value)) = variables.iter_mut().find(|(n, _)| *n == line.target) {
                *value = result.rem_euclid(10) as u8;
            }
        }
    }
    variables.iter().map(|(name, value)| format!("{name}{value}")).collect()
}

fn one(word: &str) -> Option<char> {
    let mut chars = word.chars().filter(char::is_ascii_lowercase);
    chars.next().filter(|_| word.len() == 1)
}

fn pair(word: &str) -> Option<(char, char)> {
    Some((one(word.get(..1)?)?, one(word.get(1..)?)?))
}

fn variable(word: &str) -> Option<(char, u8)> {
    let digit = word.get(1..).filter(|d| d.len() == 1)?;
    Some((one(word.get(..1)?)?, digit.parse().ok()?))
}

fn count(word: &str, most: usize) -> Option<usize> {
    word.parse().ok().filter(|n| (1..=most).contains(n) && word.bytes().all(|b| b.is_ascii_digit()))
}

fn line((index, text): (usize, &str)) -> Option<Line> {
    let chars: Vec<char> = text.chars().collect();
    let [label, target, '=', left, op @ ('+' | '-' | '*'), right] = chars[..] else { return None };
    (label as usize == 'A' as usize + index).then_some(Line { label, target, left, op, right })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(prompt: &str) -> String {
        let problem = Problem::parse(prompt).expect(prompt);
        assert_eq!(problem.to_string(), prompt);
        problem.answer()
    }

    #[test]
    fn answers() {
        assert_eq!(answer("edit kitten sitting"), "3");
        assert_eq!(answer("edit abc abc"), "0");
        assert_eq!(answer("edit a bcdefghijklm"), "12");
        assert_eq!(answer("walk ab bc ca from a 4"), "b");
        assert_eq!(answer("walk ab ba from b 999"), "a");
        // x: 3+7=0, y: 7*0=0; then all stays 0.
        assert_eq!(answer("prog x3 y7 do 12 Ax=x+y,By=y*x;"), "x0y0");
        assert_eq!(answer("prog x3 y7 do 1 Ax=x-y;"), "x6y7");
    }

    #[test]
    fn answers_are_those_of_the_training_script() {
        for (prompt, expected) in [
            ("edit wwxxzzzwxwzzxwzxwxzww xzxxzzzzxw", "13"),
            ("edit zwujxeplfwceyclwp znuxpffneyw", "9"),
            ("edit ht pghagtbveenbhbbppgbaamh", "21"),
            ("walk bv xe ej hl ci lb ja ih ac vn nx mm from c 156", "h"),
            ("walk ii cm yl de td mk py ec hp rv vf ft lr sh ks from c 231", "l"),
            ("prog i5 f5 n9 m9 s6 do 4 An=i+n,Bi=n*s,Cf=m-n;", "i2f7n2m9s6"),
            ("prog z7 s4 o9 a7 k7 f5 do 5 Ak=f-f,Bo=k+s,Ca=f-k;", "z7s4o4a5k0f5"),
        ] {
            assert_eq!(answer(prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn other_texts_are_no_problems() {
        for prompt in [
            "",
            "edit one",
            "edit One two",
            "edit abcdefghijklmnopqrstuvwxyz a",
            "walk ab from a 2",
            "walk ab ac ba from a 2",
            "walk ab ba from a 0",
            "walk abc ba from a 1",
            "prog x3 do 2 Ax=x+y;",
            "prog x3 x4 do 2 Ax=x+x;",
            "prog x3 do 2 Ax=x/x;",
            "prog x3 do 2 Bx=x+x;",
            "prog x3 do 2 Ax=x+x",
            "prog x3 do +2 Ax=x+x;",
            "How far is it from a to b?",
        ] {
            assert_eq!(Problem::parse(prompt), None, "{prompt}");
        }
    }

    #[test]
    fn the_last_equals_sign_begins_the_answer() {
        let problem = Problem::parse("prog x3 y7 do 1 Ax=x-y;").expect("a problem");
        assert!(problem.check("01Ax=x-y;376|x6y7\n=x6y7", true).correct);
        let wrong = problem.check("01Ax=x-y;376|x6y7\n=x6y8", true);
        assert_eq!((wrong.correct, wrong.answer.as_deref()), (false, Some("x6y8")));
        let cut = problem.check("01Ax=x6y7", false);
        assert_eq!((cut.correct, cut.answer), (false, None));
    }
}
