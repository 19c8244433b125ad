//! Shows samples that are generated side by side one after the other, each as it comes.

use lim_model::Progress;

use crate::console::Console;
use crate::error::Result;

/// Text of several samples on its way to stdout. The first unfinished one is shown live; those behind it wait.
pub(super) struct Show {
    console: Console,
    samples: Vec<Pending>,
    /// Sample being shown.
    at: usize,
    /// Its text so far ends a line.
    line_ended: bool,
    headed: bool,
}

#[derive(Clone, Default)]
struct Pending {
    text: String,
    ended: bool,
}

impl Show {
    pub(super) fn new(console: Console, samples: usize) -> Self {
        let samples = vec![Pending::default(); samples];
        Show { console, samples, at: 0, line_ended: true, headed: false }
    }

    /// Takes what has just happened.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn progress(&mut self, progress: Progress<'_>) -> Result<()> {
        let (sample, text, ended) = match progress {
            Progress::Prefill { .. } => return Ok(()),
            Progress::Token { sample, text, .. } => (sample, text, false),
            Progress::Finished { sample, text, .. } => (sample, text, true),
        };
        if let Some(pending) = self.samples.get_mut(sample) {
            pending.text.push_str(text);
            pending.ended |= ended;
        }
        self.show()
    }

    fn show(&mut self) -> Result<()> {
        let many = self.samples.len();
        while let Some(pending) = self.samples.get_mut(self.at) {
            let (text, ended) = (std::mem::take(&mut pending.text), pending.ended);
            if many > 1 && !self.headed {
                self.console.result(format_args!("--- sample {} of {many}\n", self.at + 1))?;
                self.headed = true;
            }
            if !text.is_empty() {
                self.console.result(&text)?;
                self.line_ended = text.ends_with('\n');
            }
            if !ended {
                break;
            }
            if !self.line_ended {
                self.console.result("\n")?;
            }
            (self.at, self.line_ended, self.headed) = (self.at + 1, true, false);
        }
        Ok(())
    }
}
