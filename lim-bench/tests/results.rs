//! The committed tables are those that the committed results give.

use std::fs;
use std::path::{Path, PathBuf};

use lim_bench::grid::{self, Eval, EvalRow};
use lim_bench::report::{Machine, PeerRow, Peers, Report, Row};
use lim_bench::table;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Folders of `results/` that hold the file `name`.
fn folders_with(name: &str) -> Vec<PathBuf> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let folders = fs::read_dir(results).expect("results");
    let folders = folders.map(|folder| folder.expect("a folder").path());
    let found: Vec<_> = folders.filter(|folder| folder.join(name).exists()).collect();
    assert!(!found.is_empty(), "no {name} is committed");
    found
}

/// The document has `text` between the marks that name `folder`.
fn shows(document: &str, folder: &Path, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let held = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = folder.file_name().expect("a name").to_string_lossy();
    let expected = table::replaced(&held, &name, text);
    let expected = expected.unwrap_or_else(|| panic!("no marks of {name} in docs/{document}"));
    assert_eq!(held, expected, "run the command in the mark of docs/{document} for {name}");
}

#[test]
fn kernels_show_the_committed_results() {
    for folder in folders_with("gpu.json") {
        let ours: Report = read(&folder.join("gpu.json"));
        let peers = folder.join("peers.json");
        let peers: Option<Peers> = peers.exists().then(|| read(&peers));
        shows("kernels.md", &folder, &table::render(&ours, peers.as_ref()));
    }
}

#[test]
fn results_show_the_committed_evaluations() {
    for folder in folders_with("report.json") {
        shows("results.md", &folder, &grid::render(&read(&folder.join("report.json"))));
    }
}

#[test]
fn evaluations_have_a_row_a_policy_and_a_column_a_budget() {
    let row = |setting: &str, group: Option<&str>, pass_at_1| EvalRow {
        setting: setting.into(),
        group: group.map(str::to_owned),
        pass_at_1,
        mean_tokens: 1500.4,
        truncated: 0.25,
        mean_context_tokens: 900.0,
        mean_attended_tokens: 400.0,
    };
    let of = |setting: &str, walk, prog| {
        [row(setting, None, 0.5), row(setting, Some("walk"), walk), row(setting, Some("prog"), prog)]
    };
    let rows =
        [of("full", 1.0, 1.0), of("lim:64", 0.5, 0.25), of("lim:128:select=2s,5s", 1.0, 0.75)].concat();
    let (model, device, dtype, problems) = ("m".into(), "d".into(), "bf16".into(), "p".into());
    let text = grid::render(&Eval { model, device, dtype, problems, rows });
    for line in [
        "| policy | layers | K = 64 | K = 128 |",
        "| full | default | 100 / 100 | 100 / 100 |",
        "| lim | default | 50 / 25 | - |",
        "| lim | select=2s,5s | - | 100 / 75 |",
        "| lim | default | 1500 (25%), 400 of 900 | - |",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[test]
fn row_names_fastest_peer_limit_and_goal() {
    let mut report =
        Report::new(Machine { gpu: "NVIDIA H200".into(), copy_gb_per_s: Some(4000.0), ..Machine::default() });
    report.rows.push(Row::graph("dense", 1, Some(32768), 40.0, 134_217_728));
    report.rows.push(Row::graph("dense + scores", 1, Some(32768), 43.0, 138_412_032));
    let variant = Row::graph("dense", 1, Some(32768), 41.0, 134_217_728);
    report.rows.push(Row { note: Some("room for 131072".into()), ..variant });
    let peer =
        |peer: &str, batch, us| PeerRow { op: "dense".into(), peer: peer.into(), batch, n: Some(32768), us };
    let rows = vec![peer("slow", 1, 50.0), peer("fast", 1, 42.8), peer("other shape", 8, 1.0)];
    let peers = Peers { gpu: "test".into(), rows };
    let text = table::render(&report.judged(), Some(&peers));
    // 134,217,728 bytes at 4 TB/s are 33.6 us; the goal of the second row is 1.08 times the first's 40.
    for line in [
        "| dense | 1 | 32768 | 40.0 | 42.8 (fast) | 33.6 | 84% | 35.0 | no |",
        "| dense + scores | 1 | 32768 | 43.0 | - | 34.6 | 80% | 43.2 | yes |",
        "| dense (room for 131072) | 1 | 32768 | 41.0 | - | 33.6 | 82% | 35.0 | no |",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[test]
fn peers_output_is_read() {
    let text = r#"{"gpu": "NVIDIA H200", "driver": "580", "torch": "2", "cuda": "13", "failed": [], "rows": [
        {"op": "read", "peer": "torch sum", "us": 990.0, "gb_per_s": 4340.0},
        {"op": "select", "peer": "torch topk + unique (host sync)", "n": 32768, "us": 196.0, "topk_us": 77.0},
        {"op": "weights", "peer": "cuBLAS", "batch": 1, "us": 4250.0}]}"#;
    let peers: Peers = serde_json::from_str(text).expect("peers");
    let mut report = Report::new(Machine { gpu: "NVIDIA H200".into(), ..Machine::default() });
    report.rows.push(Row::graph("select", 1, Some(32768), 10.0, 1));
    report.rows.push(Row::graph("weights", 1, None, 3700.0, 1));
    let text = table::render(&report.judged(), Some(&peers));
    assert!(text.contains("| 196.0 (torch topk + unique (host sync)) |"), "{text}");
    assert!(text.contains("| weights | 1 | - | 3700.0 | 4250.0 (cuBLAS) | - | - | 3750.0 | yes |"), "{text}");
}
