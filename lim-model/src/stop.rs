//! Stop strings in streamed text.

use crate::{Error, Result};

/// Watches streamed text for stop strings, wherever the pieces are cut.
///
/// Text is held back only while it may still turn out to be the beginning of a stop string.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Watches for any of `stops`.
    ///
    /// # Errors
    /// When one of them is empty: it would stop before the first token.
    pub fn new(stops: &[String]) -> Result<Self> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(Error::Request { what: "stop string", reason: format!("number {index} is empty") });
        }
        Ok(StopStrings { stops: stops.to_vec(), held: String::new() })
    }

    /// Takes the next piece and appends to `out` what can no longer be part of a stop string. True once a stop string
    /// is complete: everything before it is in `out`, it and what follows it are dropped.
    pub fn push(&mut self, piece: &str, out: &mut String) -> bool {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let free = self.held.len() - self.pending();
        out.push_str(&self.held[..free]);
        self.held.drain(..free);
        false
    }

    /// Appends to `out` what was held back when the text ends without a stop string.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Bytes of the longest end of `held` that begins a stop string.
    fn pending(&self) -> usize {
        let held = self.held.as_str();
        held.char_indices()
            .map(|(at, _)| &held[at..])
            .find(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
            .map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is emitted, and whether a stop was found, for text cut into `pieces`.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let (mut watch, mut out) = (StopStrings::new(&stops).unwrap(), String::new());
        for piece in pieces {
            if watch.push(piece, &mut out) {
                return (out, true);
            }
        }
        watch.finish(&mut out);
        (out, false)
    }

    #[test]
    fn a_stop_across_pieces_is_not_emitted() {
        assert_eq!(run(&["</s>"], &["one <", "/", "s", "> two"]), ("one ".into(), true));
    }

    #[test]
    fn the_first_of_several_stops_counts() {
        assert_eq!(run(&["zz", "b"], &["abczz"]), ("a".into(), true));
    }

    #[test]
    fn a_beginning_that_leads_nowhere_is_emitted() {
        assert_eq!(run(&["abc"], &["ab", "abd"]), ("ababd".into(), false));
        assert_eq!(run(&["abc"], &["xab"]), ("xab".into(), false));
    }

    #[test]
    fn only_a_possible_beginning_is_held() {
        let (mut watch, mut out) = (StopStrings::new(&["é!".into()]).unwrap(), String::new());
        assert!(!watch.push("caf\u{e9}", &mut out));
        assert_eq!(out, "caf");
        assert!(!watch.push("s", &mut out));
        assert_eq!(out, "cafés");
    }

    #[test]
    fn an_empty_stop_is_refused() {
        let err = StopStrings::new(&["a".into(), String::new()]).unwrap_err();
        assert!(err.to_string().contains("number 1"), "{err}");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[ab]{0,24}", stop in "[ab]{1,4}", cut in 1usize..4) {
            let pieces: Vec<String> =
                text.as_bytes().chunks(cut).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = match text.find(&stop) {
                Some(at) => (text[..at].to_string(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], &pieces), whole);
        }
    }
}
