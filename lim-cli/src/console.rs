//! The two channels: results to stdout, everything else to stderr.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};

/// Writes results and reports; `quiet` silences all but results and errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    quiet: bool,
}

impl Console {
    pub(crate) fn new(quiet: bool) -> Self {
        Console { quiet }
    }

    /// Result text, flushed so that a stream is seen as it comes.
    ///
    /// # Errors
    /// [`Error::OutputClosed`] when the reader has gone.
    pub(crate) fn result(self, text: impl Display) -> Result<()> {
        let mut out = std::io::stdout().lock();
        write!(out, "{text}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
            std::io::ErrorKind::BrokenPipe => Error::OutputClosed,
            _ => Error::io("stdout")(e),
        })
    }

    /// A line of report. A closed stderr loses it, which is what closing stderr asks for.
    pub(crate) fn note(self, line: impl Display) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// A bar of `len` steps, drawn only on a terminal.
    pub(crate) fn bar(self, what: &'static str, len: u64) -> ProgressBar {
        if !self.draws() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(len).with_style(style).with_message(what)
    }

    /// A bar of bytes whose length is not known yet, drawn only on a terminal.
    pub(crate) fn bytes_bar(self) -> ProgressBar {
        if !self.draws() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style)
    }

    /// A spinner for work of unknown length, drawn only on a terminal.
    pub(crate) fn spinner(self, what: String) -> ProgressBar {
        if !self.draws() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn draws(self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }
}
