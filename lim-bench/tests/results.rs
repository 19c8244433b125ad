//! The committed table is the one that the committed results give.

use std::fs;
use std::path::Path;

use lim_bench::report::{Machine, PeerRow, Peers, Report, Row};
use lim_bench::table;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn document_shows_the_committed_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("../docs/benchmarks.md")).expect("docs/benchmarks.md");
    let folders = fs::read_dir(root.join("results")).expect("results");
    let gpus: Vec<_> = folders.map(|folder| folder.expect("a folder").path()).collect();
    let gpus: Vec<_> = gpus.iter().filter(|folder| folder.join("gpu.json").exists()).collect();
    assert!(!gpus.is_empty(), "no results are committed");
    for folder in gpus {
        let gpu = folder.file_name().expect("a name").to_string_lossy();
        let ours: Report = read(&folder.join("gpu.json"));
        let peers = folder.join("peers.json");
        let peers: Option<Peers> = peers.exists().then(|| read(&peers));
        let expected = table::replaced(&document, &gpu, &table::render(&ours, peers.as_ref()));
        let expected = expected.unwrap_or_else(|| panic!("no marks of {gpu} in docs/benchmarks.md"));
        assert_eq!(document, expected, "run the command in the mark of docs/benchmarks.md for {gpu}");
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
