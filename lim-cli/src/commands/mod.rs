//! One file per command.

mod bench;
mod calibrate;
mod completions;
mod doctor;
mod eval;
mod generate;
mod inspect;
mod man;
mod score;

use crate::args::Command;
use crate::error::Result;

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Generate(args) => generate::run(*args),
        Command::Score(args) => score::run(*args),
        Command::Bench(args) => bench::run(*args),
        Command::Eval(args) => eval::run(*args),
        Command::Calibrate(args) => calibrate::run(*args),
        Command::Inspect(args) => inspect::run(*args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
