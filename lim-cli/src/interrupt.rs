//! Ctrl-C: the first asks the running command to stop at the next token, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Set once the user has asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT.
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = flag.clone();
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        })
        .map_err(|e| Error::Failed(format!("cannot watch for Ctrl-C: {e}")))?;
        Ok(Interrupt(flag))
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// # Errors
    /// [`Error::Interrupted`] once requested.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}
