//! Answers as models write them, references as data sets have them, and what a careful reader says.

use super::Grade::{Correct, Ungraded, Wrong};
use super::{Grade, Reference};

/// What was written, the reference, the verdict.
type Row = (&'static str, &'static str, Grade);

/// Where the answer stands in the text.
const EXTRACTION: &[Row] = &[
    ("So \\boxed{5} is it, no, \\boxed{7}.", "7", Correct),
    ("\\boxed{\\frac{1}{2}}", "0.5", Correct),
    ("\\boxed{\\{1, 2\\}}", "\\{2, 1\\}", Correct),
    ("\\boxed{\\text{the set } \\{1\\}", "3", Wrong),
    ("\\boxed{4} and then \\boxed{cut", "4", Correct),
    ("\\fbox{9}", "9", Correct),
    ("It is 8, so \\boxed{8}. I was to use \\boxed{}.", "8", Correct),
    ("$\\boxed 6$", "6", Correct),
    ("<think>maybe \\boxed{1}</think>It is \\boxed{2}.", "2", Correct),
    ("<think>so \\boxed{3}</think>That was all.", "3", Correct),
    ("<think>it is 10</think>We get 12.", "12", Correct),
    ("He has 3 + 4 = 7.\n#### 7", "7", Correct),
    ("#### 1,200", "1200", Correct),
    ("#### $18.00", "18", Correct),
    ("The answer is 42.", "42", Correct),
    ("The final answer is: **$3.5$**.", "7/2", Correct),
    ("**Answer:** 17", "17", Correct),
    ("The answer is then 5 apples.", "5", Correct),
    ("answer = -3", "-3", Correct),
    ("We count 12, then 13.", "13", Correct),
    ("It falls by -4 degrees", "-4", Correct),
    ("It falls by −4 degrees", "-4", Correct),
    ("which is 7-4", "4", Correct),
    ("in all 1,234,567 people.", "1234567", Correct),
    ("about 12.5%", "12.5", Correct),
    ("Half, that is 1/2.", "0.5", Correct),
    ("I cannot tell.", "5", Wrong),
    ("I cannot tell.", "x+1", Ungraded),
    ("", "5", Wrong),
];

/// Numbers.
const NUMBERS: &[Row] = &[
    ("42", "42", Correct),
    ("42", "43", Wrong),
    ("42.0", "42", Correct),
    ("+7", "7", Correct),
    ("-7", "7", Wrong),
    ("007", "7", Correct),
    ("1,000", "1000", Correct),
    ("1{,}000", "1,000", Correct),
    ("1\\,000", "1000", Correct),
    ("0.333", "\\frac{1}{3}", Wrong),
    ("0.125", "\\frac18", Correct),
    ("\\dfrac{3}{4}", "3/4", Correct),
    ("\\frac{6}{8}", "\\tfrac{3}{4}", Correct),
    ("-\\frac{1}{2}", "\\frac{-1}{2}", Correct),
    ("2\\frac{1}{3}", "\\frac{7}{3}", Correct),
    ("2 1/3", "7/3", Correct),
    ("50\\%", "50", Correct),
    ("50%", "0.5", Correct),
    ("0.5", "50\\%", Correct),
    ("5%", "50%", Wrong),
    ("2^{10}", "1024", Correct),
    ("3\\times10^{4}", "30000", Correct),
    ("3 \\cdot 7", "21", Correct),
    ("\\sqrt{49}", "7", Correct),
    ("0.1+0.2", "0.3", Correct),
    ("1e5", "100000", Ungraded),
    ("123456789012345678901234567890", "123456789012345678901234567891", Wrong),
    ("1/0", "0", Ungraded),
    ("x = 5", "5", Correct),
    ("x=5", "6", Wrong),
    ("f(x) = 5", "5", Correct),
];

/// Money, angles and other units.
const UNITS: &[Row] = &[
    ("\\$18", "18", Correct),
    ("$18$", "\\$18", Correct),
    ("90^\\circ", "90", Correct),
    ("90°", "90^{\\circ}", Correct),
    ("90 degrees", "90", Correct),
    ("5\\text{ cm}", "5", Correct),
    ("5 cm", "5\\,\\text{cm}", Correct),
    ("5 cm", "6 cm", Wrong),
    ("5 cm", "5 m", Ungraded),
    ("12 square feet", "12", Correct),
    ("8\\text{ cm}^2", "8", Correct),
    ("3 hours", "3", Correct),
    ("\\frac{1}{2}\\mathrm{m}", "0.5", Correct),
    ("60 km/h", "60", Correct),
    ("5 million", "5", Ungraded),
    ("3 squared", "3", Ungraded),
];

/// Roots, constants, variables.
const SYMBOLS: &[Row] = &[
    ("\\sqrt{2}", "\\sqrt2", Correct),
    ("sqrt(2)", "\\sqrt{2}", Correct),
    ("\\frac{\\sqrt{3}}{2}", "\\sqrt{3}/2", Correct),
    ("\\frac{1}{\\sqrt{3}}", "\\frac{\\sqrt{3}}{3}", Correct),
    ("\\sqrt{8}", "2\\sqrt{2}", Correct),
    ("2\\sqrt{3}", "3\\sqrt{2}", Ungraded),
    ("1.414", "\\sqrt{2}", Ungraded),
    ("\\frac{\\pi}{2}", "\\pi/2", Correct),
    ("2π", "2\\pi", Correct),
    ("3.14", "\\pi", Ungraded),
    ("x^2+2x+1", "(x+1)^2", Correct),
    ("1+2x", "2x + 1", Correct),
    ("x^{2}", "x^2", Correct),
    ("x^2", "x^3", Ungraded),
    ("X^2", "x^2", Ungraded),
    ("\\frac{x}{2}", "\\frac12x", Correct),
    ("\\sin x", "\\sin(x)", Ungraded),
    ("\\log_2 3", "\\log_{2}3", Correct),
    ("y = 2x + 1", "2x+1", Correct),
    ("x^2+y^2=1", "x^2 + y^2 = 1", Correct),
    ("x^2+y^2=1", "x^2+y^2=2", Ungraded),
    ("101_2", "101_{2}", Correct),
    ("x > 3", "(3, \\infty)", Ungraded),
    ("i+1", "1 + i", Correct),
];

/// Tuples, intervals, sets, lists.
const STRUCTURE: &[Row] = &[
    ("(1, 2)", "(1,2)", Correct),
    ("\\left(1,\\frac{1}{2}\\right)", "(1, 0.5)", Correct),
    ("(1, 2)", "(2, 1)", Wrong),
    ("(1, 2)", "(1, 2, 3)", Wrong),
    ("1, 2", "(1, 2)", Correct),
    ("[0, 3)", "\\left[0,3\\right)", Correct),
    ("[0, 3]", "[0, 3)", Wrong),
    ("(-\\infty, 2)", "\\left(-\\infty, 2\\right)", Correct),
    ("(-∞, 0) ∪ (1, 2]", "(1,2] \\cup (-\\infty,0)", Correct),
    ("\\{1, 2, 3\\}", "\\{3,1,2\\}", Correct),
    ("1, 2, 3", "\\{3, 2, 1\\}", Correct),
    ("\\{1, 2\\}", "\\{1, 3\\}", Wrong),
    ("\\{1, 2\\}", "\\{1, 2, 3\\}", Wrong),
    ("\\{5\\}", "5", Correct),
    ("\\emptyset", "\\varnothing", Correct),
    ("1 or 2", "2, 1", Correct),
    ("x = 1 \\text{ or } x = -3", "-3, 1", Correct),
    ("\\pm 2", "2, -2", Correct),
    ("\\pm 2", "2", Wrong),
    ("1 \\pm \\sqrt{5}", "1-\\sqrt{5}, 1+\\sqrt{5}", Correct),
    ("1 \\pm \\sqrt{5}", "1 \\pm \\sqrt{7}", Ungraded),
    ("1,234", "1, 234", Correct),
    ("5", "1, 2", Wrong),
    ("1/2, 0.5", "\\frac12", Correct),
    ("x \\in [1, 2]", "[1,2]", Correct),
    ("x = 2, y = 3", "(2, 3)", Correct),
    ("(1, 2), (3, 4)", "(3,4), (1,2)", Correct),
    ("(1, 2), (3, 4)", "(2,1), (3,4)", Wrong),
    ("0.\\overline{3}", "1/3", Ungraded),
    ("\\mathbb{R}", "(-\\infty, \\infty)", Ungraded),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", Correct),
];

/// Words and letters.
const WORDS: &[Row] = &[
    ("\\text{Yes}", "yes", Correct),
    ("Tuesday", "\\text{Tuesday}", Correct),
    ("no solution", "\\text{No solution}", Correct),
    ("blue", "lube", Ungraded),
    ("\\text{(C)}", "C", Correct),
    ("\\text{(C)}", "\\text{(D)}", Wrong),
    ("even", "\\text{odd}", Ungraded),
];

#[track_caller]
fn check(rows: &[Row], text: impl Fn(&str) -> String) {
    let mut failed = Vec::new();
    for &(written, reference, expected) in rows {
        let graded = Reference::Text(reference.into()).grade(&text(written), true);
        if graded.grade != expected {
            failed.push(format!("{written} against {reference}: {graded:?}, not {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn answers_are_found_in_texts() {
    check(EXTRACTION, str::to_owned);
}

#[test]
fn boxed_answers_are_compared() {
    let tables = [NUMBERS, UNITS, SYMBOLS, STRUCTURE, WORDS];
    assert!(EXTRACTION.len() + tables.iter().map(|t| t.len()).sum::<usize>() >= 120);
    for table in tables {
        check(table, |written| format!("Thus $\\boxed{{{written}}}$."));
    }
}

#[test]
fn sure_verdicts_do_not_depend_on_the_side() {
    let mut failed = Vec::new();
    for &(written, reference, expected) in [NUMBERS, UNITS, SYMBOLS, STRUCTURE, WORDS].into_iter().flatten() {
        let grade = super::compare(reference, written);
        if grade != expected {
            failed.push(format!("{reference} against {written}: {grade:?}, not {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn options_are_letters() {
    let options: Vec<String> =
        ["10 m", "A proton", "\\frac{1}{2}", "none"].map(str::to_owned).into_iter().collect();
    let reference = Reference::Choice { options, right: 1 };
    for (text, answer, expected) in [
        ("\\boxed{B}", Some("B"), Correct),
        ("\\boxed{\\text{B}}", Some("B"), Correct),
        ("\\boxed{(b)}", Some("B"), Correct),
        ("The answer is (C).", Some("C"), Wrong),
        ("The answer is B. It is stable.", Some("B"), Correct),
        ("Answer: B) A proton", Some("B"), Correct),
        ("\\boxed{A proton}", Some("B"), Correct),
        ("\\boxed{0.5}", Some("C"), Wrong),
        ("A proton is heavy, so option B", Some("B"), Correct),
        ("I weigh (A) and (B).\n\nB", Some("B"), Correct),
        ("First (A), but it is (B)", Some("B"), Correct),
        ("A proton is heavy.", None, Wrong),
        ("\\boxed{E}", None, Wrong),
        ("<think>(A)?</think> I choose **B**", Some("B"), Correct),
    ] {
        let graded = reference.grade(text, true);
        assert_eq!((graded.answer.as_deref(), graded.grade), (answer, expected), "{text}");
    }
}

#[test]
fn what_was_cut_off_counts_only_if_marked() {
    let number = Reference::Text("7".into());
    assert_eq!(number.grade("so far 7", false).answer, None);
    assert_eq!(number.grade("\\boxed{7} and on", false).grade, Correct);
    let demo = Reference::Demo("x1y2".into());
    assert_eq!(demo.grade("01|\n=x1y2", true).grade, Correct);
    assert_eq!((demo.grade("a=x1y2", false).answer, demo.grade("a=x1y3", true).grade), (None, Wrong));
}

#[test]
fn any_text_is_graded_without_a_panic() {
    let pieces = [
        "\\boxed{",
        "}",
        "{",
        "####",
        "answer is",
        "\\frac",
        "\\sqrt[",
        "(",
        "]",
        "1,",
        "é",
        "\\",
        "-",
        "^",
        "_",
        "%",
    ];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                let text = format!("{a}{b}{c}");
                Reference::Text(text.clone()).grade(&text, true);
                super::compare(&text, "\\frac{1}{2}");
                Reference::Choice { options: vec![text.clone()], right: 0 }.grade(&text, true);
            }
        }
    }
}
