//! What an answer stands for: a number or expression, a tuple or interval, a set.

use super::expression::Expression;
use super::latex;

/// An answer, read.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    /// `(1, 2)`, `[0, 3)`: order counts, and so do the brackets.
    Sequence {
        brackets: [char; 2],
        items: Vec<Value>,
    },
    /// `\{1, 2\}`, `1 or 2`, `\pm 2`, a union of intervals: order does not count.
    Set {
        items: Vec<Value>,
        /// Written as a set, not as a mere list.
        braces: bool,
    },
}

/// A single thing.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// In one spelling, without spaces.
    pub(super) text: String,
    /// `None` where it is not arithmetic.
    pub(super) expression: Option<Expression>,
    pub(super) percent: bool,
    pub(super) unit: Option<String>,
}

/// Nesting beyond this is not read further.
const MAX_DEPTH: usize = 8;

/// The ways to read an answer, the likeliest first: `1,234` is a number, or else a list.
pub(super) fn readings(text: &str) -> Vec<Value> {
    let text = latex::normalise(text);
    let (core, _) = latex::unit(&text);
    let mut readings = Vec::new();
    if has_thousands(core.trim_start_matches('-').trim_end_matches('%')) {
        readings.push(Value::Scalar(scalar(&text.replace(',', ""))));
    }
    readings.push(value(&text, 0));
    readings
}

/// `1,234,567.5`: a comma before every three digits.
fn has_thousands(text: &str) -> bool {
    let (whole, _) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or("");
    (1..=3).contains(&first.len())
        && digits(first)
        && whole.contains(',')
        && groups.all(|g| g.len() == 3 && digits(g))
}

fn value(text: &str, depth: usize) -> Value {
    let text = right_side(text.trim());
    if depth == MAX_DEPTH {
        return Value::Scalar(scalar(text));
    }
    let read = |parts: Vec<&str>| -> Vec<Value> { parts.into_iter().map(|p| value(p, depth + 1)).collect() };
    if text == "\\emptyset" {
        return Value::Set { items: Vec::new(), braces: true };
    }
    let unions = split(text, &["\\cup"]);
    if unions.len() > 1 {
        return Value::Set { items: read(unions), braces: true };
    }
    let list = split(text, &[",", ";", " or ", " and "]);
    if list.len() > 1 {
        return Value::Set { items: read(list), braces: false };
    }
    if let Some(inside) = text.strip_prefix("\\{").and_then(|t| t.strip_suffix("\\}")) {
        let items = if inside.trim().is_empty() { Vec::new() } else { read(split(inside, &[",", ";"])) };
        return Value::Set { items, braces: true };
    }
    if let Some((brackets, inside)) = bracketed(text) {
        let items = split(inside, &[",", ";"]);
        if items.len() > 1 {
            return Value::Sequence { brackets, items: read(items) };
        }
    }
    if text.contains("\\pm") {
        let [plus, minus] = ["+", "-"].map(|sign| text.replace("\\pm", sign));
        let items = [plus, minus].iter().map(|text| value(text, depth + 1)).collect();
        return Value::Set { items, braces: false };
    }
    Value::Scalar(scalar(text))
}

/// `5` of `x = 5` and `f(x) = 5`, `[0,1]` of `x \in [0,1]`: the name is in the question. Other equations stay.
fn right_side(text: &str) -> &str {
    if let Some((left, right)) = text.split_once("\\in")
        && left.trim().len() == 1
        && !right.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        return right.trim();
    }
    let Some((left, right)) = text.split_once('=').filter(|(_, right)| !right.contains('=')) else {
        return text;
    };
    let left = left.trim();
    let name: usize = left.chars().take_while(char::is_ascii_alphabetic).count();
    let rest = &left[name..];
    let argument = rest.is_empty() || (rest.starts_with('(') && rest.ends_with(')') && rest.len() <= 5);
    let index = rest.starts_with('_') && rest.len() <= 4;
    if name == 1 && (argument || index) && !left.ends_with(['<', '>', '!']) { right.trim() } else { text }
}

fn bracketed(text: &str) -> Option<([char; 2], &str)> {
    let mut chars = text.chars();
    let brackets = [chars.next()?, chars.next_back()?];
    (matches!(brackets[0], '(' | '[') && matches!(brackets[1], ')' | ']'))
        .then_some((brackets, chars.as_str()))
}

/// Cuts at separators outside of all brackets. A text that begins or ends with one is not cut.
fn split<'a>(text: &'a str, separators: &[&str]) -> Vec<&'a str> {
    let (mut parts, mut depth, mut begin, mut at) = (Vec::new(), 0i32, 0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if depth == 0
            && let Some(found) = separators.iter().find(|s| rest.starts_with(**s))
        {
            parts.push(&text[begin..at]);
            at += found.len();
            begin = at;
            continue;
        }
        let next = rest.chars().next().unwrap_or(' ');
        match next {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        at += next.len_utf8();
    }
    parts.push(&text[begin..]);
    if parts.iter().any(|part| part.trim().is_empty()) { vec![text] } else { parts }
}

fn scalar(text: &str) -> Scalar {
    let (core, unit) = latex::unit(text);
    let percent = core.trim_end().ends_with('%');
    let core = core.trim().trim_end_matches('%');
    // Words stay apart, so that they are not read as one name.
    let has_words =
        core.split(' ').filter(|w| w.len() > 1 && w.bytes().all(|b| b.is_ascii_alphabetic())).count() > 1;
    let compact = without_single_groups(&core.split_whitespace().collect::<String>());
    let text = match alone(&compact) {
        _ if has_words => core.to_lowercase(),
        Some(letter) => letter.to_string(),
        None => compact,
    };
    let expression = if has_words { None } else { Expression::parse(&text) };
    Scalar { text, expression, percent, unit: unit.map(str::to_owned) }
}

/// `C` of `(C)`.
fn alone(text: &str) -> Option<char> {
    let mut inside = text.strip_prefix('(')?.strip_suffix(')')?.chars();
    inside.next().filter(|c| c.is_ascii_alphabetic() && inside.next().is_none())
}

/// `x^{2}` as `x^2`, `101_{2}` as `101_2`.
fn without_single_groups(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        match chars[at..] {
            [mark @ ('^' | '_'), '{', one, '}', ..] => {
                out.extend([mark, one]);
                at += 4;
            }
            _ => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(value: &Value) -> String {
        match value {
            Value::Scalar(s) => s.text.clone(),
            Value::Sequence { brackets: [open, close], items } => {
                format!("{open}{}{close}", items.iter().map(shape).collect::<Vec<_>>().join(" "))
            }
            Value::Set { items, .. } => {
                format!("{{{}}}", items.iter().map(shape).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn structure() {
        for (text, expected) in [
            ("1,234", "1234"),
            ("1, 234", "{1 234}"),
            ("(1, \\frac{1}{2})", "(1 \\frac{1}{2})"),
            ("\\left[0, 3\\right)", "[0 3)"),
            ("\\{1, (2, 3)\\}", "{1 (2 3)}"),
            ("x = 1 or x = 2", "{1 2}"),
            ("2 \\pm \\sqrt{3}", "{2+\\sqrt{3} 2-\\sqrt{3}}"),
            ("(-\\infty, 0) \\cup [1, 2]", "{(-\\infty 0) [1 2]}"),
            ("f(x) = x^{2}", "x^2"),
            ("x^2 + y^2 = 1", "x^2+y^2=1"),
            ("\\text{(C)}", "C"),
            ("(x+1)(x-1)", "(x+1)(x-1)"),
            (",", ","),
            ("", ""),
        ] {
            assert_eq!(shape(&readings(text)[0]), expected, "{text}");
        }
    }
}
