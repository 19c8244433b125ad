//! Command line of lim: generate, score, bench, eval, calibrate, inspect, doctor.

mod args;
mod bandwidth;
mod chart;
mod commands;
mod console;
mod demo;
mod device;
mod embedded;
mod error;
mod grade;
mod grid;
mod interrupt;
mod machine;
mod memory;
mod open;
mod output;
mod policy;
mod problems;
mod prompt;
mod random;
mod report;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(args::Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, error::Error::OutputClosed) {
                // Nothing is left to report to when stderr is closed as well.
                let _ = writeln!(std::io::stderr(), "error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
