//! Renders a report of the GPU runner, beside the peers', as the Markdown table of docs/kernels.md, or one of `lim-cli eval`
//! as those of docs/results.md.

use std::path::Path;
use std::process::ExitCode;

use lim_bench::{grid, report, table};
use serde::de::DeserializeOwned;

const USAGE: &str = "\
usage: results OURS.json [PEERS.json] [--write DOCUMENT.md]
       results --eval REPORT.json [--write DOCUMENT.md]

OURS.json is written by the GPU runner (cargo run --release -p lim-bench --features cuda --bin gpu), PEERS.json by
lim-bench/peers/peers.py. Prints the table, or writes it between the marks of DOCUMENT.md that name OURS' folder:
    cargo run -p lim-bench --bin results -- lim-bench/results/h200/gpu.json lim-bench/results/h200/peers.json \\
        --write docs/kernels.md
REPORT.json is what lim-cli eval writes with --out:
    cargo run -p lim-bench --bin results -- --eval lim-bench/results/demo/report.json --write docs/results.md";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        say(USAGE);
        return ExitCode::SUCCESS;
    }
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--eval", report] => eval(report).map(|text| say(&text)),
        ["--eval", report, "--write", document] => eval(report).and_then(|text| put(document, report, &text)),
        [ours] => render(ours, None).map(|text| say(&text)),
        [ours, "--write", document] => render(ours, None).and_then(|text| put(document, ours, &text)),
        [ours, peers] => render(ours, Some(peers)).map(|text| say(&text)),
        [ours, peers, "--write", document] => {
            render(ours, Some(peers)).and_then(|text| put(document, ours, &text))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
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

fn render(ours: &str, peers: Option<&str>) -> Result<String, String> {
    let ours: report::Report = read(ours.as_ref())?;
    let peers: Option<report::Peers> = peers.map(|path| read(path.as_ref())).transpose()?;
    Ok(table::render(&ours, peers.as_ref()))
}

fn eval(report: &str) -> Result<String, String> {
    read::<grid::Eval>(report.as_ref()).map(|eval| grid::render(&eval))
}

/// Puts `text` between the marks of `document` that name the folder of `source`.
fn put(document: &str, source: &str, text: &str) -> Result<(), String> {
    let folder = Path::new(source).parent().and_then(Path::file_name);
    let name = folder.ok_or_else(|| format!("{source}: lies in no folder that names it"))?.to_string_lossy();
    let old = std::fs::read_to_string(document).map_err(|e| format!("{document}: {e}"))?;
    let missing = || format!("{document}: no lines {} and {}", table::begin(&name), table::END);
    let new = table::replaced(&old, &name, text).ok_or_else(missing)?;
    std::fs::write(document, new).map_err(|e| format!("{document}: {e}"))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}
