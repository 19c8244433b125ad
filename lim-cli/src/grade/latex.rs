//! One spelling for what LaTeX, Unicode and plain text write in many ways.

/// Read as what they stand for.
const SAME: [(&str, &str); 47] = [
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\leq", "\\le"),
    ("\\geq", "\\ge"),
    ("\\neq", "\\ne"),
    ("\\varnothing", "\\emptyset"),
    ("\\displaystyle", ""),
    ("\\left", ""),
    ("\\right", ""),
    ("\\Bigl", ""),
    ("\\Bigr", ""),
    ("\\bigl", ""),
    ("\\bigr", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\circ", ""),
    ("\\degree", ""),
    ("\\qquad", " "),
    ("\\quad", " "),
    ("{,}", ""),
    ("\\!", ""),
    ("\\,", ""),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
    ("\\(", ""),
    ("\\)", ""),
    ("\\[", ""),
    ("\\]", ""),
    ("\\%", "%"),
    ("\\$", ""),
    ("$", ""),
    ("°", ""),
    ("−", "-"),
    ("–", "-"),
    ("×", "\\times "),
    ("·", "\\cdot "),
    ("÷", "\\div "),
    ("π", "\\pi "),
    ("∞", "\\infty "),
    ("∪", "\\cup "),
    ("±", "\\pm "),
    ("√", "\\sqrt "),
];

/// Commands that only set a typeface: their argument stays, as words.
const FACES: [&str; 10] =
    ["text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "operatorname", "boxed"];

/// Single letters that are units behind a number.
const SHORT_UNITS: [&str; 13] = ["m", "g", "s", "h", "L", "l", "K", "C", "F", "N", "J", "W", "V"];

/// Words behind a number that are no unit: with them it is another number, or none.
const NO_UNITS: [&str; 19] = [
    "or",
    "and",
    "pi",
    "sqrt",
    "infty",
    "infinity",
    "if",
    "mod",
    "hundred",
    "thousand",
    "million",
    "billion",
    "trillion",
    "dozen",
    "squared",
    "cubed",
    "factorial",
    "below",
    "less",
];

/// The text in one spelling, its words still apart.
pub(super) fn normalise(text: &str) -> String {
    let mut out = text.to_owned();
    for (from, to) in SAME {
        out = replaced(&out, from, to);
    }
    for face in FACES {
        out = without_face(&out, &format!("\\{face}"));
    }
    out = roots(&out);
    out = words(&out).replace("^{2}", "^2").replace("^{3}", "^3");
    let out = mixed_numbers(out.trim().trim_end_matches('.').trim_end());
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces a command only where its whole name stands: `\left(`, not `\leftarrow`.
fn replaced(text: &str, from: &str, to: &str) -> String {
    let is_name = from.starts_with('\\') && from.ends_with(|c: char| c.is_ascii_alphabetic());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let after = &rest[at + from.len()..];
        // An escaped backslash, as the line break `\\`, begins no command.
        let escaped = rest[..at].chars().rev().take_while(|&c| c == '\\').count() % 2 == 1;
        let whole = !(is_name && after.starts_with(|c: char| c.is_ascii_alphabetic()));
        out.push_str(&rest[..at]);
        out.push_str(if whole && !(escaped && from.starts_with('\\')) { to } else { from });
        rest = after;
    }
    out + rest
}

/// Puts the arguments of `command` in its place, spaced.
fn without_face(text: &str, command: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(command) {
        let after = &rest[at + command.len()..];
        let argument = after.trim_start().strip_prefix('{').and_then(group);
        out.push_str(&rest[..at]);
        rest = match argument {
            Some((inside, after)) => {
                out.push_str(&format!(" {} ", inside.trim()));
                // An exponent belongs to the word before it: cm^2.
                if after.starts_with('^') {
                    out.pop();
                }
                after
            }
            None => {
                out.push_str(command);
                after
            }
        };
    }
    out + rest
}

/// What stands before the brace that closes a group, and what stands after it; escaped braces do not count.
pub(super) fn group(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut escaped) = (0usize, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// `sqrt(2)` and `\sqrt 2` as `\sqrt{2}`.
fn roots(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("sqrt") {
        let after = rest[at + 4..].trim_start();
        out.push_str(rest[..at].trim_end_matches('\\'));
        out.push_str("\\sqrt");
        rest = after;
        if let Some((inside, after)) = after.strip_prefix('(').and_then(parenthesis) {
            out.push_str(&format!("{{{}}}", roots(inside)));
            rest = after;
        }
    }
    out + rest
}

fn parenthesis(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Names of constants written as words, and words that say nothing.
fn words(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word = &rest[begin..];
        let word = &word[..word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len())];
        let command = rest[..begin].ends_with('\\');
        out.push_str(&rest[..begin]);
        out.push_str(match word {
            _ if command => word,
            "pi" => "\\pi",
            "inf" | "infinity" => "\\infty",
            "degrees" | "degree" => "",
            "percent" => "%",
            _ => word,
        });
        rest = &rest[begin + word.len()..];
    }
    out + rest
}

/// `3 1/2` as `(3+1/2)`: without the space it would be 31/2.
fn mixed_numbers(text: &str) -> String {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let parts: Vec<&str> = text.trim_start_matches('-').split_whitespace().collect();
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match parts[..] {
        [whole, part, ref rest @ ..]
            if digits(whole) && part.split_once('/').is_some_and(|(a, b)| digits(a) && digits(b)) =>
        {
            format!("{sign}({whole}+{part}) {}", rest.join(" "))
        }
        _ => text.to_owned(),
    }
}

/// A number and the unit behind it: `5 cm^2` is `5` and `cm^2`.
pub(super) fn unit(text: &str) -> (&str, Option<&str>) {
    let is_unit = |c: char| c.is_ascii_alphabetic() || matches!(c, ' ' | '/' | '^' | '.');
    let mut begin = text.len();
    for (at, c) in text.char_indices().rev() {
        // Digits belong to a unit only as its exponent.
        let exponent = matches!(c, '2' | '3') && text[..at].ends_with('^');
        if !is_unit(c) && !exponent {
            break;
        }
        begin = at;
    }
    let (number, unit) = text.split_at(begin);
    let (spaced, unit) = (unit.starts_with(' '), unit.trim());
    let follows = number.ends_with(|c: char| c.is_ascii_digit() || matches!(c, '}' | ')' | '%'));
    let is_word = |word: &str| {
        let word = word.split('^').next().unwrap_or(word);
        let long = word.len() >= 2 && !NO_UNITS.contains(&word);
        long || (spaced && SHORT_UNITS.contains(&word))
    };
    let begins = unit.starts_with(|c: char| c.is_ascii_alphabetic());
    let words = || unit.split([' ', '/', '.']).filter(|w| !w.is_empty());
    if follows && begins && words().all(is_word) { (number, Some(unit)) } else { (text, None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for (text, expected) in [
            ("$\\dfrac{1}{2}$", "\\frac{1}{2}"),
            ("\\left( 1, 2 \\right)", "( 1, 2 )"),
            ("\\leftarrow", "\\leftarrow"),
            ("90^\\circ", "90"),
            ("5\\text{ cm}", "5 cm"),
            ("1{,}000", "1000"),
            ("sqrt(2) + √3", "\\sqrt{2} + \\sqrt3"),
            ("2pi", "2\\pi"),
            ("3 1/2", "(3+1/2)"),
            ("-3 1/2 hours", "-(3+1/2) hours"),
            ("a \\\\ left", "a \\\\ left"),
        ] {
            assert_eq!(normalise(text), expected, "{text}");
        }
    }

    #[test]
    fn units_stand_behind_numbers() {
        for (text, number, expected) in [
            ("5 cm", "5", Some("cm")),
            ("5 m", "5", Some("m")),
            ("5m", "5m", None),
            ("5 x", "5 x", None),
            ("12 square feet", "12", Some("square feet")),
            ("3 km/h", "3", Some("km/h")),
            ("8 cm^2", "8", Some("cm^2")),
            ("3 or more", "3 or more", None),
            ("red", "red", None),
            ("x^2", "x^2", None),
        ] {
            assert_eq!(unit(text), (number, expected), "{text}");
        }
    }
}
