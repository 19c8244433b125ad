//! `completions`: a script for the user's shell.

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::console::Console;
use crate::error::Result;

pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    // Written to memory first: clap_complete panics when its writer fails, as a closed stdout does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lim-cli", &mut script);
    Console::new(false).result(String::from_utf8_lossy(&script))
}
