//! Finds the answer in what a model wrote.

use super::latex::group;

/// What follows the thinking, if there was any.
pub(super) fn after_thinking(text: &str) -> &str {
    text.rsplit_once("</think>").map_or(text, |(_, answer)| answer)
}

/// The answer that the model marks: the last `\boxed`, else the last `####`, else the last "answer is". Looked for behind
/// the thinking first.
pub(super) fn marked(text: &str) -> Option<String> {
    let find = |text: &str| boxed(text).or_else(|| hashes(text)).or_else(|| stated(text));
    find(after_thinking(text)).or_else(|| boxed(text))
}

/// The argument of the last complete `\boxed` or `\fbox`; braces nest.
pub(crate) fn boxed(text: &str) -> Option<String> {
    let mut end = text.len();
    while let Some(at) = ["\\boxed", "\\fbox"].into_iter().filter_map(|c| text[..end].rfind(c)).max() {
        let after = &text[at + if text[at..].starts_with("\\boxed") { 6 } else { 5 }..];
        if let Some(inside) = after.trim_start().strip_prefix('{') {
            // An empty one repeats the question's instruction.
            if let Some((answer, _)) = group(inside).filter(|(answer, _)| !answer.trim().is_empty()) {
                return Some(answer.trim().to_owned());
            }
        } else if let Some(word) = after.strip_prefix(' ').and_then(|rest| rest.split_whitespace().next()) {
            // `\boxed 5`, as some references have it.
            let word = word.trim_end_matches(['$', '.', ',']);
            if !word.is_empty() {
                return Some(word.to_owned());
            }
        }
        end = at;
    }
    None
}

/// What stands behind the last `####`, as GSM8K writes answers.
pub(crate) fn hashes(text: &str) -> Option<String> {
    let (_, after) = text.rsplit_once("####")?;
    let answer = cleaned(after.lines().next().unwrap_or(""));
    (!answer.is_empty()).then_some(answer)
}

/// "The answer is 5.", "Answer: 5", "final answer = 5".
fn stated(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let mut end = lower.len();
    while let Some(at) = lower[..end].rfind("answer") {
        let after = text[at + "answer".len()..].trim_start_matches(['*', '_', ' ']);
        let is = ["is:", "is", ":", "="].into_iter().find_map(|word| after.strip_prefix(word));
        if let Some(rest) = is {
            let rest = rest.trim_start_matches(['*', '_', ':']).trim_start();
            let answer = cleaned(sentence(rest));
            if !answer.is_empty() {
                return Some(answer);
            }
        }
        end = at;
    }
    None
}

/// Up to the end of the line or sentence; the point of a decimal ends none.
fn sentence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or("");
    let stop = line.match_indices(". ").map(|(at, _)| at).next().unwrap_or(line.len());
    &line[..stop]
}

/// Without marks of Markdown, of mathematics and of the sentence's end around it.
fn cleaned(text: &str) -> String {
    let text = text.trim().trim_matches(['*', '_', '`', ' ']).trim_end_matches(['.', '!']);
    text.trim_matches(['*', '$', ' ']).trim_start_matches("\\(").trim_end_matches("\\)").trim().to_owned()
}

/// The last number: sign, thousands, decimals, a fraction and percent belong to it.
pub(super) fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_part = |at: usize| match bytes[at] {
        b'0'..=b'9' => true,
        // Between digits only.
        b',' | b'.' | b'/' => {
            at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
        }
        _ => false,
    };
    let last = (0..bytes.len()).rev().find(|&at| bytes[at].is_ascii_digit())?;
    let mut begin = last;
    while begin > 0 && is_part(begin - 1) {
        begin -= 1;
    }
    // A point or a minus before the first digit; a minus between two things is an operator.
    if text[..begin].ends_with('.') {
        begin -= 1;
    }
    let minus = ["-", "−"].into_iter().find(|minus| text[..begin].ends_with(minus)).unwrap_or("");
    if !text[..begin - minus.len()].ends_with(|c: char| c.is_alphanumeric() || c == ')') {
        begin -= minus.len();
    }
    let percent =
        if text[last + 1..].starts_with('%') || text[last + 1..].starts_with("\\%") { "%" } else { "" };
    Some(format!("{}{percent}", &text[begin..=last]))
}

/// A text from its number on, if it has but one.
pub(super) fn from_number(text: &str) -> Option<&str> {
    let number = last_number(text)?;
    let (before, tail) = text.split_at(text.rfind(number.as_str())?);
    let has_digit = |part: &str| part.contains(|c: char| c.is_ascii_digit());
    (!has_digit(before) && !has_digit(&tail[number.len()..])).then_some(tail)
}

/// The letter of an option in a short answer: `B`, `(B)`, `\text{B}`, `B. because`, `Option B`.
pub(super) fn letter(answer: &str, options: usize) -> Option<char> {
    let plain = super::latex::normalise(answer);
    let plain = plain.trim_matches(['*', '_', '`', ' ', '.', ':']);
    let plain = ["option ", "choice ", "Option ", "Choice "]
        .into_iter()
        .find_map(|word| plain.strip_prefix(word))
        .unwrap_or(plain)
        .trim_start_matches('(');
    let mut chars = plain.chars();
    let first = chars.next()?;
    let rest = chars.as_str().trim_end_matches(')');
    // Alone a small letter will do.
    let letter = option(if rest.is_empty() { first.to_ascii_uppercase() } else { first }, options)?;
    // The word "A", as in "A proton", is no letter.
    (rest.is_empty() || chars.as_str().starts_with([')', '.', ':', ','])).then_some(letter)
}

fn option(c: char, options: usize) -> Option<char> {
    ('A'..='Z').take(options).find(|&letter| letter == c)
}

/// The last letter that stands for an option: a line of its own, `(B)` or `B)`, `option B` or `**B**`.
pub(super) fn last_letter(text: &str, options: usize) -> Option<char> {
    let words = || text.split_whitespace().rev();
    let named = words().find_map(|word| {
        let word = word.trim_matches(['*', '_', '.', ',', ':', '"']);
        let inside = word.strip_suffix(')')?;
        let mut inside = inside.strip_prefix('(').unwrap_or(inside).chars();
        inside.next().filter(|_| inside.as_str().is_empty()).and_then(|c| option(c, options))
    });
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).and_then(|line| letter(line, options));
    line.or(named).or_else(|| {
        let words: Vec<&str> = text.split_whitespace().collect();
        words.windows(2).rev().find_map(|pair| {
            let says = pair[0].eq_ignore_ascii_case("option") || pair[0].eq_ignore_ascii_case("choice");
            let bold = || pair[1].starts_with("**").then_some(());
            says.then_some(()).or_else(bold).and_then(|()| letter(pair[1], options))
        })
    })
}
