//! A text with the tokens marked that were kept: in colours on a terminal, in brackets elsewhere.

use std::io::IsTerminal;

/// How marks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// ANSI colours.
    Colours,
    /// `[kept]`.
    Brackets,
}

/// How much a token was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// There was no step in which it could be chosen.
    NoCandidate,
    /// In less than a tenth of the steps in which it could be.
    Rare,
    /// In less than half.
    Some,
    /// In at least half.
    Most,
}

const RARE: f64 = 0.1;
const MOST: f64 = 0.5;

/// Faint; black on light blue; white on blue.
const NO_CANDIDATE: &str = "\x1b[2m";
const SOME: &str = "\x1b[30;48;5;153m";
const MANY: &str = "\x1b[97;48;5;26m";
const PLAIN: &str = "\x1b[0m";

impl Marks {
    /// Colours where stdout is a terminal that takes them; a variable `NO_COLOR` that is not empty forbids them
    /// (no-color.org).
    pub(super) fn for_stdout() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if std::io::stdout().is_terminal() && !forbidden && !dumb { Marks::Colours } else { Marks::Brackets }
    }

    /// What marks mean.
    pub(super) fn legend(self) -> String {
        let of = "of the steps in which it could be chosen";
        match self {
            Marks::Colours => format!(
                "{MANY}kept in at least half{PLAIN} {of}, {SOME}in at least a tenth{PLAIN}, less; \
                 {NO_CANDIDATE}first and recent tokens are always kept{PLAIN}"
            ),
            Marks::Brackets => format!("[kept] in at least half {of}"),
        }
    }

    /// `pieces` of text with the share of steps in which each was kept; `None` where it was never a candidate.
    pub(super) fn mark(self, pieces: &[(String, Option<f64>)]) -> String {
        let runs = pieces.chunk_by(|a, b| level(a.1) == level(b.1));
        runs.map(|run| {
            let text: String = run.iter().map(|(piece, _)| piece.as_str()).collect();
            self.run(&text, level(run[0].1))
        })
        .collect()
    }

    fn run(self, text: &str, level: Level) -> String {
        let code = match (self, level) {
            _ if text.is_empty() => return String::new(),
            (Marks::Brackets, Level::Most) => return format!("[{text}]"),
            (Marks::Brackets, _) | (_, Level::Rare) => return text.to_owned(),
            (_, Level::NoCandidate) => NO_CANDIDATE,
            (_, Level::Some) => SOME,
            (_, Level::Most) => MANY,
        };
        // A line end within a background colours the rest of the line.
        let lines: Vec<String> = text
            .split('\n')
            .map(|line| if line.is_empty() { String::new() } else { format!("{code}{line}{PLAIN}") })
            .collect();
        lines.join("\n")
    }
}

fn level(share: Option<f64>) -> Level {
    match share {
        None => Level::NoCandidate,
        Some(share) if share >= MOST => Level::Most,
        Some(share) if share >= RARE => Level::Some,
        Some(_) => Level::Rare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<(String, Option<f64>)> {
        let piece = |text: &str, share| (text.to_owned(), share);
        vec![
            piece("ab", None),
            piece("c", Some(0.5)),
            piece("d\ne", Some(1.0)),
            piece("", Some(0.3)),
            piece("f", Some(0.2)),
            piece("g", Some(0.0)),
        ]
    }

    #[test]
    fn brackets_mark_what_most_steps_kept() {
        assert_eq!(Marks::Brackets.mark(&pieces()), "ab[cd\ne]fg");
    }

    #[test]
    fn colours_end_with_the_line() {
        let text = Marks::Colours.mark(&pieces());
        let expected =
            [format!("{NO_CANDIDATE}ab{PLAIN}{MANY}cd{PLAIN}\n{MANY}e{PLAIN}"), format!("{SOME}f{PLAIN}g")]
                .concat();
        assert_eq!(text, expected);
    }
}
