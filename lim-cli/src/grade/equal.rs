//! Whether two answers are the same, as far as that can be told for sure.

use super::Grade;
use super::value::{Scalar, Value, readings};

use Grade::{Correct, Ungraded, Wrong};

/// Compares an answer with the reference. `Ungraded` where they differ in writing, but might be equal.
pub(crate) fn compare(answer: &str, reference: &str) -> Grade {
    if answer.trim() == reference.trim() {
        return Correct;
    }
    let (answers, references) = (readings(answer), readings(reference));
    let grades: Vec<Grade> = answers.iter().flat_map(|a| references.iter().map(|r| values(a, r))).collect();
    // The likeliest readings come first; another pair can only find them equal.
    if grades.contains(&Correct) { Correct } else { grades.first().copied().unwrap_or(Ungraded) }
}

/// Whether it is a single number.
pub(super) fn is_number(text: &str) -> bool {
    readings(text).first().is_some_and(number)
}

fn number(value: &Value) -> bool {
    match value {
        Value::Scalar(s) => s.expression.as_ref().is_some_and(|e| e.number().is_some()),
        _ => false,
    }
}

fn values(answer: &Value, reference: &Value) -> Grade {
    match (answer, reference) {
        (Value::Scalar(a), Value::Scalar(b)) => scalars(a, b),
        (Value::Set { items: a, .. }, Value::Set { items: b, .. }) => sets(a, b),
        (Value::Sequence { brackets: p, items: a }, Value::Sequence { brackets: q, items: b }) => {
            match in_order(a, b) {
                Correct if p != q => Wrong,
                grade => grade,
            }
        }
        // The same things in a list and in a tuple.
        (Value::Sequence { items: a, .. }, Value::Set { items: b, braces: false })
        | (Value::Set { items: a, braces: false }, Value::Sequence { items: b, .. }) => in_order(a, b),
        (Value::Sequence { items: a, .. }, Value::Set { items: b, .. })
        | (Value::Set { items: a, .. }, Value::Sequence { items: b, .. }) => match sets(a, b) {
            Correct => Ungraded,
            grade => grade,
        },
        (one @ Value::Scalar(_), Value::Set { items, .. } | Value::Sequence { items, .. })
        | (Value::Set { items, .. } | Value::Sequence { items, .. }, one @ Value::Scalar(_)) => {
            match (answer, reference, &items[..]) {
                (Value::Set { .. }, _, [item]) | (_, Value::Set { .. }, [item]) => values(item, one),
                // "1/2, that is 0.5" has but one thing in it.
                (Value::Set { .. }, _, [first, ..]) | (_, Value::Set { .. }, [first, ..])
                    if items.iter().all(|item| values(item, first) == Correct) =>
                {
                    values(first, one)
                }
                _ => differing_counts(items, std::slice::from_ref(one)),
            }
        }
    }
}

fn scalars(a: &Scalar, b: &Scalar) -> Grade {
    // Words, not names of variables.
    let is_word = |text: &str| text.len() > 2 && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b' ');
    let words = is_word(&a.text) && a.text.eq_ignore_ascii_case(&b.text);
    if a.unit.is_some() && b.unit.is_some() && a.unit != b.unit {
        return Ungraded;
    }
    if a.percent == b.percent && (a.text == b.text || words) {
        return Correct;
    }
    if let (Some(x), Some(y)) = (letter(a), letter(b)) {
        return if x == y { Correct } else { Wrong };
    }
    let (Some(x), Some(y)) = (&a.expression, &b.expression) else { return Ungraded };
    match (x.number(), y.number()) {
        (Some(x), Some(y)) if a.percent == b.percent => {
            if x == y {
                Correct
            } else {
                Wrong
            }
        }
        // 50% is 50 where the question asks for percent, and a half elsewhere.
        (Some(x), Some(y)) => {
            let hundred = super::rational::Rational::whole(100);
            let (percent, plain) = if a.percent { (x, y) } else { (y, x) };
            if percent == plain || percent.over(hundred) == Some(plain) { Correct } else { Wrong }
        }
        _ if x == y && a.percent == b.percent => Correct,
        _ => Ungraded,
    }
}

/// The letter of an option.
fn letter(scalar: &Scalar) -> Option<&str> {
    let text = scalar.text.as_str();
    (text.len() == 1 && ("A".."K").contains(&text)).then_some(text)
}

fn in_order(a: &[Value], b: &[Value]) -> Grade {
    if a.len() != b.len() {
        return differing_counts(a, b);
    }
    let grades: Vec<Grade> = a.iter().zip(b).map(|(a, b)| values(a, b)).collect();
    if grades.contains(&Wrong) {
        Wrong
    } else if grades.contains(&Ungraded) {
        Ungraded
    } else {
        Correct
    }
}

/// Every item of one finds its own in the other.
fn sets(a: &[Value], b: &[Value]) -> Grade {
    if a.len() != b.len() {
        return differing_counts(a, b);
    }
    let mut left: Vec<&Value> = b.iter().collect();
    let mut without = Vec::new();
    for item in a {
        match left.iter().position(|other| values(item, other) == Correct) {
            Some(at) => drop(left.swap_remove(at)),
            None => without.push(item),
        }
    }
    if without.is_empty() {
        return Correct;
    }
    let none_may_equal = |item: &&Value| left.iter().all(|other| values(item, other) == Wrong);
    if without.iter().any(none_may_equal) { Wrong } else { Ungraded }
}

/// Different counts of things are different for sure where all of them are numbers.
fn differing_counts(a: &[Value], b: &[Value]) -> Grade {
    if a.iter().chain(b).all(number) { Wrong } else { Ungraded }
}
