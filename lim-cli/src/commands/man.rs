//! `man`: manual pages from the command line's own definitions.

use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::console::Console;
use crate::error::{Error, Result};

pub(crate) fn run(args: &ManArgs) -> Result<()> {
    let console = Console::new(false);
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        clap_mangen::generate_to(Cli::command(), dir).map_err(Error::io(dir))?;
        console.note(format_args!("pages are in {}; read one with man -l FILE", dir.display()));
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Error::io("manual page"))?;
    console.result(String::from_utf8_lossy(&page))
}
