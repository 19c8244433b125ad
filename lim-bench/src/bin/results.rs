//! Renders a report of the GPU runner, beside the peers', as the Markdown table of docs/benchmarks.md.

use std::path::Path;
use std::process::ExitCode;

use lim_bench::{report, table};
use serde::de::DeserializeOwned;

const USAGE: &str = "\
usage: results OURS.json [PEERS.json] [--write DOCUMENT.md]

OURS.json is written by the GPU runner (cargo run --release -p lim-bench --features cuda --bin gpu), PEERS.json by
lim-bench/peers/peers.py. Prints the table, or writes it between the marks of DOCUMENT.md that name OURS' folder:
    cargo run -p lim-bench --bin results -- lim-bench/results/h200/gpu.json lim-bench/results/h200/peers.json \\
        --write docs/benchmarks.md";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        say(USAGE);
        return ExitCode::SUCCESS;
    }
    let (ours, peers, document) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ours] => (ours, None, None),
        [ours, "--write", document] => (ours, None, Some(document)),
        [ours, peers] => (ours, Some(peers), None),
        [ours, peers, "--write", document] => (ours, Some(peers), Some(document)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(ours, peers, document) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("results: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{}", text.trim_end());
}

fn run(ours: &str, peers: Option<&str>, document: Option<&str>) -> Result<(), String> {
    let folder =
        Path::new(ours).parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let ours: report::Report = read(ours.as_ref())?;
    let peers: Option<report::Peers> = peers.map(|path| read(path.as_ref())).transpose()?;
    let rendered = table::render(&ours, peers.as_ref());
    let Some(path) = document else {
        say(&rendered);
        return Ok(());
    };
    let gpu = folder.ok_or("OURS.json lies in no folder that names its GPU")?;
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let missing = || format!("{path}: no lines {} and {}", table::begin(&gpu), table::END);
    let text = table::replaced(&text, &gpu, &rendered).ok_or_else(missing)?;
    std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}
